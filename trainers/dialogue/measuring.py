"""What tasks of conversations share: asking every question of a set, and asking again with other pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from modalign.zoo.errors import DataError
from modalign.zoo.stack.generate import Decoding

from ..data_kind import DIALOGUE
from ..evaluation.task import MeasuringTask, Table
from .subject import Asked, DialogueSubject, prompt_of

_SHOWN = 12
SHUFFLED = "pictures shuffled"


@dataclass
class DialogueTask(MeasuringTask):
    """A measurement by answers.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        beams: Beams of the search; 1 takes the likeliest token each time.
        limit: Measure on so many questions, the first ones; default all.
        train_data: Shards that baselines may learn from; default the recipe's training set has no part in the measurement.
        shuffled: Also ask every question of another picture: what is left of the score was not seen.
    """

    kind: ClassVar[str] = DIALOGUE
    max_new_tokens: int = 64
    beams: int = 1
    limit: int | None = None
    train_data: str | None = None
    shuffled: bool = True

    def decoding(self) -> Decoding:
        """How tokens are chosen."""
        return Decoding(self.max_new_tokens, beams=self.beams)

    def some(self, asked: list[Asked], subject: DialogueSubject, what: str) -> list[Asked]:
        """As many questions as are wanted.

        Raises:
            DataError: If there is none.
        """
        if not asked:
            raise DataError(f"{subject.data}: no sample has {what} to ask about; give a set that has, or another task")
        return asked[: self.limit]

    def answered(self, subject: DialogueSubject, asked: Sequence[Asked]) -> list[str]:
        """The model's answers."""
        return subject.answers([prompt_of(one) for one in asked], self.decoding())

    def answered_elsewhere(self, subject: DialogueSubject, asked: Sequence[Asked]) -> list[str] | None:
        """Its answers to the same questions about other samples' pictures; None if that is not wanted, or there is one sample."""
        keys = list(dict.fromkeys(one.sample.key for one in asked))
        if not self.shuffled or len(keys) < 2:
            return None
        other = dict(zip(keys, [*keys[len(keys) // 2 :], *keys[: len(keys) // 2]], strict=True))
        pictures = {one.sample.key: one.sample.images for one in asked}
        counts = {key: len(images) for key, images in pictures.items()}
        if any(counts[key] != counts[other[key]] for key in keys):
            return None
        prompts = [replace(prompt_of(one), images=pictures[other[one.sample.key]]) for one in asked]
        return subject.answers(prompts, self.decoding())


def shown(asked: Sequence[Asked], answers: Sequence[str]) -> list[dict[str, Any]]:
    """Some questions with their answers, for the report."""
    step = max(1, len(asked) // _SHOWN)
    return [
        {
            "key": one.sample.key,
            "question": one.question.dialogue.turns[-1].text.strip(),
            "answer": answer,
            "right": list(one.question.answers[:2]),
            "box": None if one.question.box is None else list(one.question.box),
        }
        for one, answer in list(zip(asked, answers, strict=True))[::step][:_SHOWN]
    ]


def numbered(asked: Sequence[Asked]) -> list[str]:
    """A name for every question: its sample and its number."""
    return [f"{number:06d} {one.sample.key}" for number, one in enumerate(asked)]


def score_table(report: Mapping[str, Any], title: str, columns: Mapping[str, str], percent: bool = False) -> Table:
    """A result's metrics above its baselines.

    Args:
        report: The result.
        title: One line.
        columns: Metric -> heading.
        percent: Shares as percentages.
    """
    factor = 100 if percent else 1

    def row(values: Mapping[str, Any]) -> list[object]:
        return [f"{values[name] * factor:.{1 if percent else 3}f}" if name in values else "-" for name in columns]

    rows = [("model", *row(report["metrics"])), *((name, *row(values)) for name, values in report["baselines"].items())]
    return Table(title, ("", *columns.values()), rows)
