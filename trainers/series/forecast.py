"""Task `forecast`: errors on every window of the test part, in the data set's scale and in the columns' own units, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.datasets.series.loader import WindowEvalLoader
from modalign.datasets.series.split import PARTS, Part
from modalign.datasets.series.windows import WindowSet
from modalign.zoo.errors import AssemblyError, DataError, RecipeError
from modalign.zoo.losses.parts.distributed import rank, world_size
from modalign.zoo.metrics.forecast import ForecastMetric
from modalign.zoo.series.description import SeriesDescription
from modalign.zoo.series.naive import naive_forecasts
from modalign.zoo.series.predict import checked_horizon

from ..console import warn
from ..data_kind import SERIES
from ..evaluation.task import MeasuringTask, Table
from .data import own_description, windows_of
from .dlinear_baseline import Select, fit_dlinear
from .seasons import seasons_of
from .subject import SeriesSubject

#: windows -> forecasts by name, each with its quantiles if it has any
Forecaster = Callable[[Mapping[str, Tensor]], Mapping[str, tuple[Tensor, Tensor | None]]]


@dataclass
class ForecastTask(MeasuringTask):
    """Mean squared and absolute error over all windows, steps and channels; no window is left out.

    Attributes:
        part: Which part to measure: test, val or train.
        horizon: Measure the first so many steps only; default all the model predicts.
        seasons: Seasons of the seasonal naive forecast, in steps; default those that fit the step between rows, and the look-back.
        dlinear: Fits of DLinear to measure beside the model, each with its own seed; 0 fits none.
        dlinear_select: Take DLinear's weights of the `best` epoch on the validation part, as its usual script does, or of the `last`.
        batch_size: Windows at a time; the result does not depend on it.
    """

    part: str = "test"
    horizon: int | None = None
    seasons: list[int] | None = None
    dlinear: int = 1
    dlinear_select: Select = "best"
    batch_size: int = 256
    name: ClassVar[str] = "forecast"
    kind: ClassVar[str] = SERIES

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            RecipeError: Naming the setting.
        """
        if self.part not in PARTS:
            raise RecipeError(f"part: {self.part!r} is none of {', '.join(PARTS)}")
        if self.dlinear < 0 or self.batch_size < 1:
            raise RecipeError(f"dlinear is {self.dlinear} (0 or more) and batch_size {self.batch_size} (1 or more)")

    def measure(self, subject: SeriesSubject) -> dict[str, Any]:
        """See `MeasuringTask`.

        Raises:
            AssemblyError: If the model does not forecast, or not as far as asked.
            RecipeError: If a season is longer than the look-back.
        """
        model, part = subject.model, self._part()
        if model.config.task != "forecast":
            raise AssemblyError(
                f"this {model.family} was trained for {model.config.task}; measure it with --task {model.config.task}"
            )
        steps = checked_horizon(self.horizon, model)
        description = own_description(subject.series, subject.config, model.config.series)
        windows = windows_of(subject.series, model, subject.config, part, description=description)
        seasons = self._seasons(subject.series.frequency, windows.look_back)
        metrics = self._measured(windows, description, steps, _model_forecaster(model, seasons))
        alone = replace(description, past=[], known=[], static=[])  # DLinear knows no covariates
        parts, without = self._dlinear_parts(subject, alone)
        for seed in range(self.dlinear if parts else 0):
            metrics |= self._measured(windows, description, steps, self._dlinear(parts, alone, seed))
        return _report(self.name, subject, windows, metrics, model, steps, self.part) | ({"notes": [without]} if without else {})

    def _seasons(self, frequency: str | None, look_back: int) -> list[int]:
        """Seasons of the seasonal naive forecast: those asked for, all of them, or those that suggest themselves."""
        for season in self.seasons or ():
            if not 1 <= season <= look_back:
                raise RecipeError(
                    f"seasons: a window looks back {look_back} steps, so there is no last season of {season} to repeat; give seasons from "
                    f"1 to {look_back}"
                )
        return seasons_of(frequency, look_back) if self.seasons is None else self.seasons

    def _part(self) -> Part:
        return self.part  # type: ignore[return-value]

    def _dlinear_parts(self, subject: SeriesSubject, alone: SeriesDescription) -> tuple[list[WindowSet], str]:
        """Windows DLinear is fitted on and chosen by; none where there are none, and then why its row is left out."""
        if not self.dlinear or subject.config.split == "none":  # no training rows to fit it on
            return [], ""
        try:
            fit: tuple[Part, Part] = ("train", "val")
            return [windows_of(subject.series, subject.model, subject.config, part, description=alone) for part in fit], ""
        except DataError as error:
            without = f"no DLinear beside the model, it is fitted on windows of train and chosen by those of val: {error}"
            warn(without)
            return [], without

    def _dlinear(self, parts: list[WindowSet], alone: SeriesDescription, seed: int) -> Forecaster:
        train, val = parts
        fitted, targets = fit_dlinear(train, val, alone, seed, self.dlinear_select), len(alone.target)

        def forecast(view: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
            seen = {name: view[name][..., :targets] for name in ("values", "observed") if name in view}
            return {f"dlinear (seed {seed})": (fitted.to(seen["values"].device)(seen)["prediction"], None)}

        return forecast

    @torch.no_grad()
    def _measured(
        self, windows: WindowSet, description: SeriesDescription, steps: int, forecaster: Forecaster
    ) -> dict[str, dict[str, Any]]:
        """Name -> errors, over all windows; the ranks share the batches."""
        target = list(windows.columns.target)
        mean, std = description.scaler(target, torch.empty(0, dtype=torch.float64))
        found: dict[str, ForecastMetric] = {}

        def metric_of(name: str, quantiles: Tensor | None) -> ForecastMetric:
            levels = () if quantiles is None else _levels(quantiles, forecaster)
            return found.setdefault(name, ForecastMetric(steps, target, mean, std, levels))

        for view in _views(WindowEvalLoader(windows, batch_size=self.batch_size, rank=rank(), world_size=world_size())):
            observed = view.get("target_observed")
            for name, (prediction, quantiles) in forecaster(view).items():
                metric_of(name, quantiles).update(
                    prediction[:, :steps].cpu(),
                    view["target"][:, :steps].cpu(),
                    None if observed is None else observed[:, :steps].cpu(),
                    None if quantiles is None else quantiles[:, :steps].cpu(),
                )
        if not found:  # fewer windows than ranks: the others wait for this one's part of every sum
            for name, (_, quantiles) in forecaster(next(_views(WindowEvalLoader(windows, batch_size=1)))).items():
                metric_of(name, quantiles)
        for metric in found.values():
            metric.merge_ranks()
        return {name: metric.compute() for name, metric in found.items()}

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask`."""
        rows = [("model", *_row(report["metrics"]))]
        rows += [(name.replace("_", " "), *_row(values)) for name, values in report["baselines"].items()]
        n, settings = report["n"], report["settings"]
        title = (
            f"forecast of {settings['horizon']} steps from {settings['look_back']}: {n['windows']} windows x {n['channels']} channels of "
            f"{report['data']} ({settings['part']})"
        )
        header = ("forecast", "MSE", "MAE", "MSE, own units", "MAE, own units")
        found = [Table(title, header, rows)]
        if "wql" in report["metrics"]:
            found.append(_quantile_table(report["metrics"]))
        return found


def _views(loader: WindowEvalLoader) -> Iterator[dict[str, Tensor]]:
    for batch in loader:
        yield {key: value for key, value in batch.items() if isinstance(value, Tensor)}


def _model_forecaster(model: Any, seasons: list[int]) -> Forecaster:
    """The model and all forecasts that need none, in one pass."""

    def forecast(view: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
        model.eval()
        outputs = model({key: value.to(model.device) for key, value in view.items()})
        channels = view["target"].shape[2]
        naive = naive_forecasts(view["values"][..., :channels], _of(view, channels), view["target"].shape[1], seasons)
        found = {"model": (outputs["prediction"], outputs.get("quantiles"))}
        return found | {name: (values, None) for name, values in naive.items()}

    forecast.levels = getattr(model.config, "quantiles", None) or ()  # type: ignore[attr-defined]
    return forecast


def _levels(quantiles: Tensor, forecaster: Forecaster) -> list[float]:
    return list(forecaster.levels)  # type: ignore[attr-defined]


def _of(view: Mapping[str, Tensor], channels: int) -> Tensor | None:
    return view["observed"][..., :channels] if "observed" in view else None


def _report(
    task: str, subject: SeriesSubject, windows: WindowSet, metrics: dict[str, Any], model: Any, steps: int, part: str
) -> dict[str, Any]:
    own = metrics.pop("model")
    n = {
        "windows": own["windows"],
        "series": len(windows.shard_sizes),
        "channels": len(windows.columns.target),
        "elements": own["elements"],
        "series_without_window": len(windows.left_out),
    }
    settings = {"look_back": windows.look_back, "horizon": steps, "part": part, "split": subject.config.split}
    return subject.report(task, n, metrics=own, baselines=metrics, settings=settings)


def _row(errors: Mapping[str, Any]) -> list[str]:
    own = errors.get("original", {})
    return [f"{errors['mse']:.4f}", f"{errors['mae']:.4f}", *[f"{own[key]:.4g}" if key in own else "-" for key in ("mse", "mae")]]


def _quantile_table(errors: Mapping[str, Any]) -> Table:
    rows = [(f"{float(level):g}", f"{share:.3f}") for level, share in errors["coverage"].items()]
    return Table(f"quantiles: WQL {errors['wql']:.4f}, pinball {errors['pinball']:.4f}", ("level", "share below"), rows)
