"""A model of time series and the data it is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet

from ..data_kind import SERIES


@dataclass
class SeriesSubject:
    """A model and a set of series.

    Attributes:
        model: The model.
        name: What results call it.
        series: The set.
        data: What results call the set.
        config: How the set is read and split.
        over_ranks: Every rank measures the same, sharing the work; then tasks are collectives.
    """

    model: Any
    name: str
    series: SeriesSet
    data: str
    config: SeriesConfig = field(default_factory=SeriesConfig)
    over_ranks: bool = False
    kind: ClassVar[str] = SERIES

    def report(self, task: str, n: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
        """The JSON of a result: {task, model, data, n, metrics, baselines}."""
        return {"task": task, "model": self.name, "data": self.data, "n": dict(n), **parts}
