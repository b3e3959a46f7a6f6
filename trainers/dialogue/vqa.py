"""Questions with short answers: about the fields of documents, or as conversations ask them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from modalign.zoo.metrics.vqa import anls, exact_match, token_f1

from ..evaluation.task import Table
from .measuring import SHUFFLED, DialogueTask, numbered, score_table, shown
from .subject import Asked, DialogueSubject

_COLUMNS = {"exact_match": "exact match", "anls": "ANLS", "token_f1": "token F1"}
FREQUENT = "most frequent training answer"


@dataclass
class VqaTask(DialogueTask):
    """Exact match, normalised edit similarity (ANLS) and token F1 of short answers.

    Attributes:
        question: What the user says about a field, with {field}; default as the model was trained.
    """

    name: ClassVar[str] = "vqa"
    question: str | None = None
    max_new_tokens: int = 64

    def measure(self, subject: DialogueSubject) -> dict[str, Any]:
        """See `MeasuringTask.measure`.

        Raises:
            DataError: If no sample has a field or a conversation.
        """
        config = self._config(subject)
        asked = self.some(subject.asked(config), subject, "a field or a conversation")
        right = {name: list(one.question.answers) for name, one in zip(numbered(asked), asked, strict=True)}
        written = self.answered(subject, asked)
        baselines = {}
        if self.train_data is not None:
            baselines[FREQUENT] = _scores(right, _frequent(subject.asked(config, subject.open(self.train_data)), asked))
        if (elsewhere := self.answered_elsewhere(subject, asked)) is not None:
            baselines[SHUFFLED] = _scores(right, elsewhere)
        n = {"pictures": len({one.sample.key for one in asked}), "questions": len(asked)}
        return subject.report("vqa", n, metrics=_scores(right, written), baselines=baselines, examples=shown(asked, written))

    def _config(self, subject: DialogueSubject) -> Any:
        asks = subject.config.ask if subject.config.ask in ("fields", "conversations") else None
        if asks is None:
            first = next(subject.samples())
            asks = "conversations" if "conversations" in first.meta else "fields"
        question = [self.question] if self.question else (subject.config.question if asks == subject.config.ask else [])
        return replace(subject.config, ask=asks, question=question)

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask.tables`."""
        n = report["n"]
        title = f"questions, in percent: {n['questions']} about {n['pictures']} pictures"
        return [score_table(report, title, _COLUMNS, percent=True)]


def _scores(right: Mapping[str, Sequence[str]], written: Sequence[str]) -> dict[str, float]:
    said = dict(zip(right, written, strict=True))
    return {"exact_match": exact_match(said, right), "anls": anls(said, right), "token_f1": token_f1(said, right)}


def _frequent(train: Sequence[Asked], asked: Sequence[Asked]) -> list[str]:
    """For every question the most frequent training answer to the same field."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in train:
        counts[one.question.what].update(one.question.answers[:1])
    return [counts[one.question.what].most_common(1)[0][0] if counts[one.question.what] else "" for one in asked]
