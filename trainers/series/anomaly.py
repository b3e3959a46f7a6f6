"""Task `anomaly`: rows that a model cannot reconstruct; scored against marks where the data have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modalign.zoo.errors import DataError, RecipeError
from modalign.zoo.metrics.anomaly import anomaly_detection, anomaly_score

from ..data_kind import SERIES
from ..evaluation.task import MeasuringTask, Table
from .data import own_description
from .imputation import check_task
from .passes import on_device, part_of, passes
from .subject import SeriesSubject


@dataclass
class AnomalyTask(MeasuringTask):
    """Precision, recall and F1 of rows whose reconstruction error is above a percentile of all errors, after point adjustment.

    Every row of the training and test parts is scored, and no other: the score is the mean over the windows that cover it. The
    threshold lets the given share of training and test rows together be anomalous, as the reference does it; point adjustment counts a
    whole marked stretch as found if one of its rows is, which is kind to any detector: the random score beside it says how kind.

    Attributes:
        ratio: Share of rows that are taken to be anomalous, in percent.
        stride: Steps between the starts of windows, at most the look-back, which is the default: each row is then scored once (and the
            last rows by a window that ends with them).
        batch_size: Windows at a time.
    """

    ratio: float = 1.0
    stride: int | None = None
    batch_size: int = 256
    name: ClassVar[str] = "anomaly"
    kind: ClassVar[str] = SERIES

    @torch.no_grad()
    def measure(self, subject: SeriesSubject) -> dict[str, Any]:
        """See `MeasuringTask`.

        Raises:
            DataError: If no column marks the anomalies.
            RecipeError: If windows would leave rows out.
        """
        check_task(subject.model, self.name)
        look_back = subject.model.config.look_back
        if self.stride is not None and not 1 <= self.stride <= look_back:
            raise RecipeError(f"stride: {self.stride} must be from 1 to the look-back, {look_back}, so that every row is scored")
        column = subject.config.anomaly
        if column is None or column not in subject.series.columns:
            raise DataError(
                f"{subject.series.name}: no column marks anomalies; name it with --anomaly (data.series.anomaly), one of "
                f"{', '.join(subject.series.columns)}"
            )
        description = own_description(subject.series, subject.config, subject.model.config.series)
        train_windows, windows = (part_of(subject, part, description=description, stride=1) for part in ("train", "test"))
        train, test = (self._scores(subject, which) for which in (train_windows, windows))
        truth = _marks(subject, windows, column)
        begins = np.cumsum([size + look_back - 1 for size in windows.shard_sizes[:-1]]).tolist()
        found = anomaly_detection(train, test, truth, self.ratio, begins)
        noise = torch.rand(len(train) + len(test), generator=torch.Generator().manual_seed(0))
        random = anomaly_detection(noise[: len(train)], noise[len(train) :], truth, self.ratio, begins)
        n = {"rows": len(test), "anomalous": int(truth.sum()), "series_without_window": len(windows.left_out)}
        settings = {"ratio": self.ratio, "look_back": look_back}
        return subject.report(self.name, n, metrics=found, baselines={"random scores": random}, settings=settings)

    def _scores(self, subject: SeriesSubject, windows: Any) -> Tensor:
        """The score of every row of a part, series after series."""
        look_back, stride = windows.look_back, self.stride or windows.look_back
        chosen = _covering(windows.shard_sizes, stride)
        sums, counts = (
            torch.zeros(sum(size + look_back - 1 for size in windows.shard_sizes), dtype=torch.float64) for _ in range(2)
        )
        ends = np.cumsum([0, *windows.shard_sizes])
        row_of_window = {
            number: number + int(np.searchsorted(ends, number, side="right") - 1) * (look_back - 1) for number in chosen
        }
        place = 0
        for view in on_device(passes(subject, _Picked(windows, chosen), self.batch_size, shared=False), subject.model):
            answer = subject.model.eval()(view)["prediction"]
            for window in anomaly_score(answer, view["target"], view.get("target_observed")).double().cpu():
                first = row_of_window[chosen[place]]
                sums[first : first + look_back] += window
                counts[first : first + look_back] += 1
                place += 1
        return sums / counts

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask`."""
        by = {"model": report["metrics"], **report["baselines"]}
        rows = [(name.replace("_", " "), *[f"{values[name]:.3f}" for values in by.values()]) for name in report["metrics"]]
        n = report["n"]
        return [Table(f"anomalies: {n['anomalous']} of {n['rows']} rows of {report['data']} are marked", ("measure", *by), rows)]


def _covering(sizes: list[int], stride: int) -> list[int]:
    """Numbers of windows that cover every row: each `stride`-th of a series, and its last."""
    chosen: list[int] = []
    first = 0
    for size in sizes:
        own = list(range(first, first + size, stride))
        chosen += own + ([first + size - 1] if own[-1] != first + size - 1 else [])
        first += size
    return chosen


class _Picked:
    """Some windows of a set, as a set."""

    def __init__(self, windows: Any, chosen: list[int]) -> None:
        self.windows, self.chosen = windows, chosen
        self.store, self.folder = windows.store, windows.folder

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, numbers: Any, draws: Any = ()) -> dict[str, Any]:
        return self.windows.batch([self.chosen[number] for number in np.asarray(numbers).tolist()], draws)

    def key(self, number: int) -> str:
        return str(self.windows.key(self.chosen[number]))


def _marks(subject: SeriesSubject, windows: Any, column: str) -> Tensor:
    """Whether each row that was scored is marked."""
    place = subject.series.columns.index(column)
    starts = np.cumsum([0, *windows.shard_sizes[:-1]])
    series, first = windows.locate(starts)
    parts = [
        subject.series.series[int(number)].values[int(row) : int(row) + size + windows.look_back - 1, place] > 0
        for number, row, size in zip(series, first, windows.shard_sizes, strict=True)
    ]
    return torch.from_numpy(np.concatenate(parts))
