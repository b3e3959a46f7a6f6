"""A model of conversations and the data it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modalign.datasets.decoding.sample import Sample, decode_sample
from modalign.datasets.shards import ShardSet
from modalign.zoo.losses.parts.distributed import rank, world_size
from modalign.zoo.metrics.over_ranks import gathered
from modalign.zoo.stack.generate import Decoding, Prompt, answers

from ..data_kind import DIALOGUE
from ..examples import CaptionChoice
from ..recipe.dialogue_settings import DialogueConfig
from .asking import Asker, Question


@dataclass
class Asked:
    """A question about a sample, with its pictures."""

    sample: Sample
    question: Question


@dataclass
class DialogueSubject:
    """A model and a set of samples.

    Attributes:
        model: A stack.
        name: What results call it.
        shards: The set.
        data: What results call the set.
        config: What is asked.
        languages: Caption languages; None is all.
        batch_size: Conversations answered at a time.
        over_ranks: Every rank measures the same, sharing the work; then tasks are collectives.
        progress: Wraps what takes long.
        open: Opens further shards by name.
    """

    model: Any
    name: str
    shards: ShardSet
    data: str
    config: DialogueConfig = field(default_factory=DialogueConfig)
    languages: Sequence[str] | None = None
    batch_size: int = 8
    over_ranks: bool = False
    progress: Callable[[Any, int, str], Any] | None = None
    open: Callable[[str], ShardSet] = ShardSet
    kind: ClassVar[str] = DIALOGUE

    def samples(self, shards: ShardSet | None = None) -> Iterator[Sample]:
        """The decoded samples of a set, in stored order."""
        for raw in (shards or self.shards).samples(None):
            yield decode_sample(raw)

    def asked(self, config: DialogueConfig, shards: ShardSet | None = None) -> list[Asked]:
        """Every question of a set."""
        asker = Asker(config, CaptionChoice(self.languages, "first", False))
        return [Asked(sample, question) for sample in self.samples(shards) for question in asker.questions(sample)]

    def answers(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """The model's answers; ranks share the prompts, and all have all answers."""
        mine = range(len(prompts)) if not self.over_ranks else range(rank(), len(prompts), world_size())
        parts = [list(mine)[start : start + self.batch_size * 4] for start in range(0, len(mine), self.batch_size * 4)]
        watched = parts if self.progress is None else self.progress(parts, len(parts), "answers")
        found: dict[int, str] = {}
        for numbers in watched:
            texts = answers(self.model, [prompts[number] for number in numbers], decoding, self.batch_size)
            found |= dict(zip(numbers, texts, strict=True))
        if self.over_ranks:
            found = {number: text for part in gathered(found) for number, text in part.items()}
        return [found[number] for number in range(len(prompts))]

    def report(self, task: str, n: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
        """The JSON of a result: {task, model, data, n, metrics, baselines}."""
        return {"task": task, "model": self.name, "data": self.data, "n": dict(n), **parts}


def prompt_of(asked: Asked) -> Prompt:
    """The prompt of a question."""
    return Prompt(asked.question.dialogue, asked.sample.images, asked.sample.key)
