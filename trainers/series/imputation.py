"""Task `imputation`: errors at values that were hidden at random, beside what fills a gap without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.zoo.errors import RecipeError
from modalign.zoo.metrics.forecast import ForecastMetric
from modalign.zoo.series.window import filled, window_means

from ..data_kind import SERIES
from ..evaluation.task import MeasuringTask, Table
from .data import own_description
from .passes import on_device, part_of, passes, row_of
from .subject import SeriesSubject

_PLAIN = ("window_mean", "last_value", "linear")


@dataclass
class ImputationTask(MeasuringTask):
    """Mean squared and absolute error at hidden values, over every window inside the test part; what is hidden depends on the window alone.

    Attributes:
        part: Which part to measure: test, val or train.
        batch_size: Windows at a time; the result does not depend on it.
    """

    part: str = "test"
    batch_size: int = 256
    name: ClassVar[str] = "imputation"
    kind: ClassVar[str] = SERIES

    @torch.no_grad()
    def measure(self, subject: SeriesSubject) -> dict[str, Any]:
        """See `MeasuringTask`."""
        check_task(subject.model, self.name)
        description = own_description(subject.series, subject.config, subject.model.config.series)
        windows = part_of(subject, self.part, description=description)
        target = list(windows.columns.target)
        scale = description.scaler(target, torch.empty(0, dtype=torch.float64))
        # named beforehand: a rank without a window takes part in the sums too
        found = {name: ForecastMetric(windows.look_back, target, *scale) for name in ("model", *_PLAIN)}
        for view in on_device(passes(subject, windows, self.batch_size), subject.model):
            answers = {"model": subject.model.eval()(view)["prediction"], **_plain(view)}
            for name, answer in answers.items():
                found[name].update(answer.cpu(), view["target"].cpu(), view["target_observed"].cpu())
        for metric in found.values():
            metric.merge_ranks()
        results = {name: metric.compute() for name, metric in found.items()}
        own = results.pop("model")
        settings = {"mask_rate": subject.config.mask_rate, "part": self.part, "look_back": windows.look_back}
        n = {"windows": own["windows"], "hidden": own["elements"], "series_without_window": len(windows.left_out)}
        return subject.report(self.name, n, metrics=own, baselines=results, settings=settings)

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask`."""
        rows = [("model", *row_of(report["metrics"]))]
        rows += [(name.replace("_", " "), *row_of(values)) for name, values in report["baselines"].items()]
        rate = report["settings"]["mask_rate"]
        title = f"imputation of {rate:.1%} hidden values: {report['n']['windows']} windows of {report['data']}"
        return [Table(title, ("filled by", "MSE", "MAE", "MSE, own units", "MAE, own units"), rows)]


def check_task(model: Any, task: str) -> None:
    """Refuses to measure a model by what it was not trained for.

    Raises:
        RecipeError: Naming its own task.
    """
    if model.config.task != task:
        raise RecipeError(
            f"--task {task}: this {model.family} was trained for {model.config.task}; measure it with --task {model.config.task}"
        )


def _plain(view: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Window mean, last observed value, and the straight line between neighbours."""
    channels = view["target"].shape[2]
    values, observed = view["values"][..., :channels], view["observed"][..., :channels]
    mean = window_means(values, observed).expand_as(values)
    return dict(zip(_PLAIN, (mean, filled(values, observed), _linear(values, observed)), strict=True))


def _linear(values: Tensor, observed: Tensor) -> Tensor:
    """The straight line between the observed values before and behind; the nearer one where there is only one."""
    before, behind = filled(values, observed), filled(values.flip(1), observed.flip(1)).flip(1)
    steps = torch.arange(values.shape[1], device=values.device)[None, :, None]
    last = torch.where(observed, steps, -1).cummax(1).values
    following = torch.where(observed, steps, values.shape[1]).flip(1).cummin(1).values.flip(1)
    has_both = (last >= 0) & (following < values.shape[1])
    share = (steps - last) / (following - last).clamp(min=1)
    line = before + share * (behind - before)
    return torch.where(has_both, line, torch.where(last < 0, behind, before))
