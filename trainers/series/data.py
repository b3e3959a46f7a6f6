"""From a recipe's names of series to sets of windows: files, columns, scaler, parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modalign.datasets.remote.access import remote_of
from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.cuts import CutSet
from modalign.datasets.series.labelled import LabelledSet
from modalign.datasets.series.roles import assign_roles
from modalign.datasets.series.scale import fit_scale, fit_static
from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.split import Part
from modalign.datasets.series.windows import Columns, WindowSet
from modalign.zoo.errors import AssemblyError, DataError, RecipeError, nearest
from modalign.zoo.series.description import SeriesDescription

from ..recipe import DataConfig
from .notes import tell_notes, tell_other_step
from .table_words import table_words


def config_of(data: DataConfig, task: str = "forecast") -> SeriesConfig:
    """The series settings of a stage's data, as a task uses them."""
    return config_for_task(data.series or SeriesConfig(), task)


def open_series(name: str, config: SeriesConfig, data: DataConfig | None = None) -> SeriesSet:
    """Opens a table or shards as the settings say."""
    remote = None if data is None else remote_of(data.allow_remote or None, data.remote_cache_gb)
    with table_words(recipe=data is not None):
        series = SeriesSet.open(name, **table_settings(config), remote=remote)
    tell_notes(series)
    return series


def table_settings(config: SeriesConfig) -> dict[str, Any]:
    """How a table is read, as `SeriesSet.open` takes it."""
    return {
        "time": config.time,
        "id": config.id,
        "label": config.label,
        "layout": config.layout,
        "static": config.static,
        "ignore": config.ignore,
        "missing": config.missing_marks,
        "time_format": config.time_format,
        "frequency": config.frequency,
    }


def training_names(data: DataConfig, where: str) -> list[str]:
    """The sets a stage trains on.

    Raises:
        RecipeError: If there is none.
    """
    if not data.train:
        raise RecipeError(f"{where}.train: say what to train on: a table, a folder of shards, asset:NAME, or --data.train my.csv")
    return [data.train] if isinstance(data.train, str) else list(data.train)


def columns_of(series: SeriesSet, config: SeriesConfig) -> Columns:
    """Which columns of a set have which role.

    Raises:
        DataError: If a column is not there, has two roles, or no target is left.
    """
    target = config.target
    if target is None and config.anomaly is not None:
        target = [c for c in series.columns if c not in (config.anomaly, *config.past, *config.known)]
    roles = assign_roles(series, target, config.past, config.known, config.static)
    return Columns(roles.target, roles.past, roles.known, roles.static)


def columns_from(description: SeriesDescription) -> Columns:
    """The columns a model knows."""
    return Columns(tuple(description.target), tuple(description.past), tuple(description.known), tuple(description.static))


def describe(sets: Sequence[SeriesSet], config: SeriesConfig) -> SeriesDescription:
    """Columns, step and scaler of training data.

    Raises:
        DataError: If sets differ in columns or step.
    """
    columns = [columns_of(series, config) for series in sets]
    for series, found in zip(sets, columns, strict=True):
        if found != columns[0] or series.frequency != sets[0].frequency:
            raise DataError(
                f"{series.name}: its columns or its step ({series.frequency}) are not those of {sets[0].name} ({sets[0].frequency}); a "
                "stage trains on series of one step and the same columns"
            )
    first = columns[0]
    scale = fit_scale(sets, first.scaled, config.split, config.scale)
    labels = sorted({label for series in sets for label in series.labels})
    return SeriesDescription(
        list(first.target),
        list(first.past),
        list(first.known),
        list(first.static),
        sets[0].frequency,
        scale,
        labels,
        config.split,
        config.few_shot,
        config.scale,
        fit_static(sets, first.static),
    )


def windows_of(
    series: SeriesSet,
    model: Any,
    config: SeriesConfig,
    part: Part,
    *,
    description: SeriesDescription | None = None,
    stride: int = 1,
) -> Any:
    """The samples of a part that a model reads, for its task, with its own look-back and horizon.

    Args:
        series: The set.
        model: The model.
        config: How it is cut.
        part: Which part.
        description: Columns and scaler; default the model's own.
        stride: Steps between windows.

    Returns:
        A `WindowSet`; for classification a `LabelledSet`, for short series a `CutSet`.

    Raises:
        AssemblyError: If the model was told of no data.
        DataError: If a column is missing or there is no window.
    """
    description = description or model.config.series
    if description is None:
        raise AssemblyError(f"this {model.family} was never told its columns; train it, or load a release of a trained one")
    columns, task = columns_from(description), model.config.task
    for column in columns.scaled:
        if column not in series.columns:
            raise DataError(
                f"{series.name}: there is no column {column!r}, which the model reads{nearest(column, series.columns)}"
            )
    look_back, horizon = model.config.look_back, model.config.horizon
    if task == "classification":
        shown = getattr(model.config, "demonstration_keys", None) if part == "train" else None
        classes, without = description.labels, shown or ()
        return LabelledSet(
            series, columns, description.scale, classes, look_back=look_back, without=without, missing=config.missing
        )
    cut = {"part": part, "look_back": look_back}
    if task == "short_term":
        return CutSet(series, columns, description.scale, **cut, horizon=horizon, history=config.history, missing=config.missing)
    return WindowSet(
        series, config, columns, description.scale, **cut, horizon=horizon if task == "forecast" else 0, stride=stride
    )


_SAMPLES = {
    "classification": "its last rows and its class, and data.train, data.val and data.test are sets of their own",
    "short_term": "cut once, at random for training (data.series.history says how far back), at its last horizons for val and test",
}


def config_for_task(config: SeriesConfig, task: str) -> SeriesConfig:
    """The same settings; series that are samples themselves, with a class or a cut each, are not split by rows.

    Raises:
        RecipeError: If settings cut such series into rows or windows.
    """
    if task not in ("classification", "short_term"):
        return config
    plain = SeriesConfig()
    for name in ("split", "few_shot", "stride", "val_stride"):
        value = getattr(config, name)
        if value != getattr(plain, name) and (name, value) != ("split", "none"):
            raise RecipeError(
                f"data.series.{name}: {value} has no meaning for {task}, where a series is one sample: {_SAMPLES[task]}; take it out"
            )
    return replace(config, split="none")


def own_description(series: SeriesSet, config: SeriesConfig, known: SeriesDescription | None) -> SeriesDescription:
    """How a set other than the training data is read: its own columns and scaler where it has training rows, else the model's.

    A scaler is fitted on a set's own training rows, as the protocol of zero-shot forecasting has it; for the data a model was trained on
    that is the model's scaler again.

    Raises:
        AssemblyError: If there are neither.
    """
    if config.split != "none":
        return describe([series], config)
    if known is None:
        raise AssemblyError("the model has no scaler and the split leaves no training rows to fit one on; give a split")
    return known


def tell_columns(model: Any, series: SeriesSet, config: SeriesConfig) -> None:
    """Tells a model the columns of the data it is measured on, where they are not those it was trained on (zero-shot).

    Another step between rows is said and not refused: from hours to quarters of an hour is a usual case of zero-shot forecasting.

    Raises:
        AssemblyError: If the model cannot read them: known-future columns without having been trained with such, more channels than
            positions, other channels than layers.
    """
    known = model.config.series
    tell_other_step(series, known)
    description = own_description(series, config, known)
    if columns_from(description) == columns_from(known):
        return
    if description.known and not known.known:  # its map of them would be a random one
        raise AssemblyError(
            f"data.series.known: this {model.family} was trained without known-future columns, so it cannot read "
            f"{', '.join(description.known)}; leave them out, or train it with them"
        )
    model.describe(description)


def sources_of(names: Sequence[str], config: SeriesConfig, data: DataConfig) -> list[SeriesSet]:
    """Opens several sets."""
    return [open_series(name, config, data) for name in names]


def weights_of(train: str | Mapping[str, float] | None) -> list[float] | None:
    """Weights of a mixture; None for a single source."""
    return [float(weight) for weight in train.values()] if isinstance(train, Mapping) else None
