"""Windows of time series: what their stages read, validate by and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modalign import zoo
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.series.loader import WindowEvalLoader, WindowLoader
from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.parts.distributed import rank as own_rank
from modalign.zoo.losses.parts.distributed import world_size as ranks
from modalign.zoo.metrics.forecast import ForecastMetric
from modalign.zoo.metrics.over_ranks import summed

from ..console import console, warn
from ..data_kind import SERIES, Measure
from ..kinds import task_of_recipe
from ..objective import Objective
from ..parallel.rank import global_rank
from ..recipe import DataConfig, Recipe, StageConfig
from .columns_line import columns_line
from .data import config_of, describe, open_series, sources_of, tell_columns, training_names, weights_of, windows_of
from .demonstrations import show_demonstrations
from .notes import tell_skipped_starts
from .passes import on_device
from .subject import SeriesSubject
from .tasks import preparation

_EVAL_BATCH = 256


class SeriesKind:
    """See `Kind`."""

    name, task, metric = SERIES, "forecast", "mse"

    def metrics(self) -> Mapping[str, bool]:
        """Errors, all the lower the better; accuracy of classification."""
        return {"mse": False, "mae": False, "accuracy": True}

    def start(self, model: Any, recipe: Recipe, stage: str) -> None:
        """Fits the scaler on the training rows and tells the model its columns; says which they are.

        Raises:
            DataError: If the training set is measured on too, and its test part has no window.
        """
        data = recipe.stage_data(stage)
        config = config_of(data, model.config.task)
        names = training_names(data, f"stages.{stage}.data")
        sets = sources_of(names, config, data)
        model.describe(describe(sets, config))
        console.print(columns_line(sets[0], model.config.series, config, model.config.task))
        if data.test in names and stage in recipe.measured() and model.config.task == "forecast":
            windows_of(sets[names.index(data.test)], model, config, "test")  # not found out behind the training
        if getattr(model.config, "demonstrations", False) and model.config.demonstration_keys is None:
            show_demonstrations(model, sets, config, recipe.seed)

    def check(self, model: Any, stage: StageConfig, trained: Sequence[Any], where: str) -> None:
        """Refuses what is for pictures and texts; warns of quantiles that no loss reads."""
        if stage.cache.image or stage.cache.text or stage.cache.teacher_text:
            raise RecipeError(f"{where}.cache: a model of time series has no features to keep; take it out")
        if model.config.task == "short_term" and set(map(tuple, model.config.series.scale.values())) != {(0.0, 1.0)}:
            raise RecipeError(
                f"{where}.data.series.scale: short series have sizes of their own, and the model norms each; set scale: none"
            )
        classes, metric = model.config.task == "classification", None if stage.validate is None else stage.validate.metric
        if metric is not None and (metric == "accuracy") != classes:
            wanted = "accuracy" if classes else "mse or mae"
            raise RecipeError(f"{where}.validate.metric: {metric} is not measured of {model.config.task}; take {wanted}")
        if getattr(model.config, "head", None) == "quantile" and "quantiles" not in Objective(stage.losses, where).inputs():
            warn(
                f"{where}.losses: the model has quantiles and no loss reads them, so only their median trains; add pinball: {{}}"
            )

    def loader(
        self,
        model: Any,
        teachers: Sequence[Any],
        stage: StageConfig,
        data: DataConfig,
        objective: Any,
        *,
        where: str,
        seed: int,
        rank: int,
        world_size: int,
        folder: Path,
    ) -> WindowLoader:
        """The training windows in the plan's order."""
        config = config_of(data, model.config.task)
        sets = sources_of(training_names(data, f"{where}.data"), config, data)
        for series in sets:
            tell_skipped_starts(series, config.stride)
        sources = [windows_of(series, model, config, "train", stride=config.stride) for series in sets]
        sizes = [source.shard_sizes for source in sources]
        plan = BatchPlan(sizes, weights_of(data.train), data.batch_size, seed, data.samples_per_epoch)
        prepare = preparation(model, config)
        return WindowLoader(
            sources, plan, prepare, rank=rank, world_size=world_size, num_workers=data.num_workers, timeout=data.timeout
        )

    def measure(self, model: Any, recipe: Recipe, stage: str) -> Measure:
        """Errors on every window of the validation part, shared out over ranks.

        Raises:
            RecipeError: If there is no validation set.
        """
        data = recipe.stage_data(stage)
        if data.val is None:
            raise RecipeError(f"stages.{stage}.validate: there is nothing to validate on; give data.val, or take validate out")
        config = config_of(data, model.config.task)
        windows = windows_of(open_series(data.val, config, data), model, config, "val", stride=config.val_stride)
        loader = WindowEvalLoader(
            windows, batch_size=_EVAL_BATCH, prepare=preparation(model, config), rank=own_rank(), world_size=ranks()
        )

        return partial(_accuracy if model.config.task == "classification" else _errors, loader=loader)

    def notes(self, task: Any, stream: Any) -> dict[str, Any]:
        """How many windows there were to train on, and which series were too short for one."""
        sources = stream.loader.sources
        left_out = [key for source in sources for key in source.left_out]
        found: dict[str, Any] = {"training_windows": sum(len(source) for source in sources)}
        return found | ({"series_without_window": left_out} if left_out else {})

    def check_test(self, recipe: Recipe, stage: str) -> None:
        """Opens the test series; warns where a classifier trains on them."""
        data = recipe.stage_data(stage)
        assert data.test is not None
        test = open_series(data.test, config_of(data), data)
        if global_rank() == 0 and task_of_recipe(recipe, self) == "classification":
            names = training_names(data, f"stages.{stage}.data")
            if test.fingerprint in (one.fingerprint for one in sources_of(names, config_of(data), data)):
                warn(
                    f"stages.{stage}: data.test is what the stage trains on; its results say what was memorised, not what was learnt"
                )

    def subject(self, recipe: Recipe, release: Path, stage: str, device: str) -> SeriesSubject:
        """See `Kind`."""
        data = recipe.stage_data(stage)
        assert data.test is not None
        model = zoo.load(release, device)
        config = config_of(data, model.config.task)
        series = open_series(data.test, config, data)
        tell_columns(model, series, config)
        return SeriesSubject(model, stage, series, data.test, config)

    def pictures(self, recipe: Recipe, subject: SeriesSubject, evaluations: Mapping[str, Any]) -> str:
        """Forecasts against truth, error by step, and how far the branches agree layer by layer."""
        from .pictures import forecast_pictures

        return forecast_pictures(subject, evaluations)


@torch.no_grad()
def _errors(model: Any, loader: WindowEvalLoader) -> dict[str, float]:
    """MSE and MAE of what is predicted; the ranks share the batches."""
    model.eval()
    metric: ForecastMetric | None = None
    for view in on_device(loader, model):
        if metric is None:
            metric = ForecastMetric(view["target"].shape[1], model.config.series.target)
        metric.update(model(view)["prediction"], view["target"], view.get("target_observed"))
    if metric is None:  # fewer batches than ranks
        steps = model.config.horizon if model.config.task in ("forecast", "short_term") else model.config.look_back
        metric = ForecastMetric(steps, model.config.series.target)
    metric.merge_ranks()
    found = metric.compute()
    return {"mse": found["mse"], "mae": found["mae"]}


@torch.no_grad()
def _accuracy(model: Any, loader: WindowEvalLoader) -> dict[str, float]:
    """Share of right classes, in percent."""
    model.eval()
    counts = torch.zeros(2, dtype=torch.float64)
    for view in on_device(loader, model):
        right = model(view)["logits"].argmax(-1) == view["label"]
        counts += torch.tensor([float(right.sum()), float(len(right))], dtype=torch.float64)
    right, total = summed(counts).tolist()
    return {"accuracy": 100 * right / total}
