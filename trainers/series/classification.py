"""Task `classification`: which class a series is of, beside the commonest class and a linear classifier of the raw values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.zoo.metrics.over_ranks import summed

from ..data_kind import SERIES
from ..evaluation.task import MeasuringTask, Table
from .imputation import check_task
from .linear_classifier import fit_linear
from .passes import on_device, part_of, passes
from .subject import SeriesSubject


@dataclass
class ClassificationTask(MeasuringTask):
    """Accuracy over all series of the test set, overall and by class.

    Attributes:
        train_data: The training set, for the linear classifier beside the model; none is fitted without it.
        batch_size: Series at a time.
    """

    train_data: str | None = None
    batch_size: int = 256
    name: ClassVar[str] = "classification"
    kind: ClassVar[str] = SERIES

    @torch.no_grad()
    def measure(self, subject: SeriesSubject) -> dict[str, Any]:
        """See `MeasuringTask`."""
        check_task(subject.model, self.name)
        samples, labels = part_of(subject, "test"), subject.model.config.series.labels
        counts = torch.zeros(len(labels), 2, dtype=torch.float64)
        for view in on_device(passes(subject, samples, self.batch_size), subject.model):
            _count(counts, subject.model.eval()(view)["logits"].argmax(-1), view["label"])
        right, total = summed(counts).T
        share = torch.bincount(samples.labels, minlength=len(labels)).max() / len(samples)
        baselines = {"commonest class": {"accuracy": round(100 * float(share), 4)}}
        if self.train_data is not None:
            baselines["linear classifier of the raw values"] = {"accuracy": self._linear(subject, samples)}
        metrics = {"accuracy": round(100 * float(right.sum() / total.sum()), 4)}
        by_class = {label: round(100 * float(r / t), 4) for label, r, t in zip(labels, right, total, strict=True) if t}
        return subject.report(self.name, {"series": len(samples)}, metrics=metrics, baselines=baselines, by_class=by_class)

    def _linear(self, subject: SeriesSubject, samples: Any) -> float:
        from .data import open_series, windows_of

        assert self.train_data is not None
        train = windows_of(open_series(self.train_data, subject.config), subject.model, subject.config, "test")
        with torch.enable_grad():
            predict = fit_linear(_rows(train), train.labels, len(subject.model.config.series.labels))
        return round(100 * float((predict(_rows(samples)) == samples.labels).double().mean()), 4)

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask`."""
        rows = [("model", f"{report['metrics']['accuracy']:.1f}")]
        rows += [(name, f"{values['accuracy']:.1f}") for name, values in report["baselines"].items()]
        title = f"accuracy in percent: {report['n']['series']} series of {report['data']}"
        by_class = [(name, f"{value:.1f}") for name, value in report["by_class"].items()]
        return [Table(title, ("by", "accuracy"), rows), Table("accuracy by class", ("class", "accuracy"), by_class)]


def _count(counts: Tensor, predicted: Tensor, label: Tensor) -> None:
    right = (predicted == label).double().cpu()
    counts[:, 0].index_add_(0, label.cpu(), right)
    counts[:, 1].index_add_(0, label.cpu(), torch.ones_like(right))


def _rows(samples: Any) -> Tensor:
    return samples.batch(range(len(samples)))["values"].flatten(1)
