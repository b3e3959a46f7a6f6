"""The contract of an evaluation task, and what tasks measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modalign.datasets.shards import ShardSet

from ..data_kind import PAIRS
from .texts import TextVectors
from .vectors import Features, SetVectors, set_vectors


@dataclass
class Subject:
    """A model and a set of shards, and what several tasks need of them, made once.

    Attributes:
        model: A dual encoder.
        name: What results call the model.
        shards: The set.
        data: What results call the set.
        features: Cached features to use.
        num_workers: Worker processes that decode.
        progress: Wraps what takes long, such as `console.track`.
        over_ranks: Every rank measures the same, sharing the work; then tasks are collectives.
    """

    model: Any
    name: str
    shards: ShardSet
    data: str
    features: Features = field(default_factory=Features)
    num_workers: int = 0
    progress: Callable[[Any, int, str], Any] | None = None
    over_ranks: bool = False
    open: Callable[[str], ShardSet] = ShardSet
    kind: ClassVar[str] = PAIRS

    def __post_init__(self) -> None:
        self.texts = TextVectors(self.model, self.features.text, self.over_ranks)
        self._made: dict[tuple[Any, ...], SetVectors] = {}

    def use(self, features: Features) -> None:
        """Takes cached features in place of the encoders; before the first vectors are made."""
        self.features = features
        self.texts = TextVectors(self.model, features.text, self.over_ranks)

    def vectors(
        self, languages: Sequence[str] | None = None, first_caption: bool = False, encoder_features: bool = False
    ) -> SetVectors:
        """Vectors of every picture and caption; see `set_vectors`."""
        asked = (None if languages is None else tuple(languages), first_caption, encoder_features)
        if asked not in self._made:
            self._made[asked] = set_vectors(
                self.model,
                self.shards,
                languages=languages,
                first_caption=first_caption,
                features=self.features,
                num_workers=self.num_workers,
                progress=self.progress,
                over_ranks=self.over_ranks,
                encoder_features=encoder_features,
                texts=self.texts,
            )
        return self._made[asked]

    def pictures(self) -> SetVectors:
        """Vectors of every picture; of captions those that were made anyway."""
        return next(iter(self._made.values())) if self._made else self.vectors([])

    def report(self, task: str, n: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
        """The JSON of a result: {task, model, data, n, metrics, baselines, by_language}."""
        return {"task": task, "model": self.name, "data": self.data, "n": dict(n), **parts}


@dataclass
class Table:
    """A table of a result, for terminal, Markdown and HTML.

    Attributes:
        title: One line.
        header: Columns.
        rows: Their values.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass
class MeasuringTask:
    """A kind of measurement; its fields are its settings, typed and documented, and set by recipe and command line.

    A new one is a file with a subclass and a line in `tasks.py`, or comes through the entry-point group `modalign.tasks`.
    """

    name: ClassVar[str] = ""
    #: the kind of models and data it measures
    kind: ClassVar[str] = PAIRS

    def measure(self, subject: Any) -> dict[str, Any]:
        """Measures; returns what `Subject.report` makes. A collective where the subject is shared over ranks.

        Raises:
            ModalignError: If model or data do not allow it.
        """
        raise NotImplementedError

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """How a result is shown."""
        raise NotImplementedError


@dataclass
class EvaluationTask(MeasuringTask):
    """A measurement of pictures and texts.

    Attributes:
        languages: Caption languages; default all there are.
    """

    languages: list[str] | None = None


def mean_of(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of nested tables of numbers, entry by entry, over the tables that have the entry; `n` is left out."""
    names = dict.fromkeys(name for table in tables for name in table if name != "n")
    found: dict[str, Any] = {}
    for name in names:
        values = [table[name] for table in tables if name in table]
        found[name] = mean_of(values) if isinstance(values[0], Mapping) else round(sum(values) / len(values), 4)
    return found
