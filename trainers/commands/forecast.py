"""`modalign forecast MODEL HISTORY`: what follows a user's series, in its own units and with real times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from modalign import zoo
from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.series.description import SeriesDescription
from modalign.zoo.series.predict import Forecast, predict

from ..console import console, print_table
from ..data_kind import SERIES
from ..device import pick_device
from ..kinds import kind_of
from ..series.data import columns_from, table_settings
from ..series.forecast_plot import plot_forecast
from ..series.forecast_table import short_rows, time_text, write_forecasts
from ..series.opening import check_step, config_for, open_for
from ..series.table_words import table_words


def forecast(
    model: str,
    history: str,
    horizon: int | None = None,
    out: str = "forecast.csv",
    plot: str | None = None,
    future: str | None = None,
    scaler: Literal["model", "own"] = "model",
    time: str | None = None,
    id: str | None = None,
    layout: Literal["wide", "long"] = "wide",
    frequency: str | None = None,
    ignore: list[str] | None = None,
    missing: list[str] | None = None,
    time_format: str | None = None,
    device: str = "auto",
) -> None:
    """Forecasts what follows the rows of a table, for every series in it.

    The last rows are what the model looks back on; they may have gaps and missing values. Forecasts are in the columns' own units.
    Where the model has quantiles, there is a column for each, such as `OT q0.1`.

    Args:
        model: A run folder, a release or a name.
        history: A table (CSV, Parquet) or shards with the model's columns.
        horizon: Steps to forecast; default all the model was trained for, and never more.
        out: The CSV to write; it must not exist.
        plot: Also draw history and forecast into this PNG; `.png` is added to a name without an ending.
        future: A table with the known-future columns for the steps to forecast, if the model reads such.
        scaler: Scale by the `model`'s training rows, or by the `own` rows of each series, for series of another size.
        time: Column with the times; found by its name if not given.
        id: Column that tells several series apart.
        layout: Whether the table has a column per channel (`wide`) or a row per value (`long`).
        frequency: Step between rows; inferred if not given.
        ignore: Columns to leave out, such as texts.
        missing: Further texts that stand for a missing value, such as -9999.
        time_format: How times are written, such as %d/%m/%Y; s, ms, us or ns for Unix time.
        device: Where to compute.

    Raises:
        ModalignError: If columns, step or rows do not fit the model.
    """
    target = Path(out)
    if target.exists():
        raise DataError(f"{out}: there is already such a file, and nothing is overwritten; choose another name with --out")
    loaded = zoo.load(model, pick_device(device))
    if kind_of(loaded).name != SERIES or loaded.config.series is None:
        raise AssemblyError(
            f"{model}: this {loaded.family} does not forecast time series; give a model that does (modalign zoo list)"
        )
    if loaded.config.task not in ("forecast", "short_term"):
        raise AssemblyError(
            f"{model}: this {loaded.family} was trained for {loaded.config.task}, so it does not forecast; give one of task: forecast"
        )
    known: SeriesDescription = loaded.config.series
    asked = {"time": time, "id": id, "frequency": frequency, "ignore": ignore, "missing": missing, "time_format": time_format}
    tables = table_settings(config_for(known, {key: value for key, value in asked.items() if value} | {"layout": layout}))
    series = open_for(known, history, tables)
    for note in series.notes:
        console.print(note, highlight=False)
    check_step(series, known)
    later = {} if future is None else _later(future, tables, series)
    found = [(one, _forecast_of(loaded, one, known, series.name, later, horizon, scaler)) for one in series.series]
    write_forecasts(target, found)
    steps = len(found[0][1].values)
    first, last = (time_text(found[0][0], found[0][0].future(steps)[place]) for place in (0, -1))
    console.print(f"{steps} steps of {len(found)} series, {first} to {last}: {out}", highlight=False)
    print_table(f"series {found[0][0].key}", *short_rows(*found[0]))
    if plot is not None:
        console.print(f"the picture: {plot_forecast(found, Path(plot))}", highlight=False)


def _later(name: str, tables: dict[str, Any], history: SeriesSet) -> dict[str, Series]:
    """Series of the history -> its rows of --future, which begin where the history ends.

    Raises:
        DataError: If they begin anywhere else: they would be read for the wrong times.
    """
    with table_words(recipe=False):
        # a single row shows no step, and the static numbers are the history's
        found = SeriesSet.open(name, **{**tables, "frequency": history.frequency, "static": ()})
    by_key = {one.key: one for one in found.series}
    if len(found) == len(history) == 1:  # a table of one series calls it by the file's name
        by_key = {history.series[0].key: found.series[0]}
    for one in history.series:
        later = by_key.get(one.key)
        if later is not None and later.start != one.future(1)[0] and one.start is not None:
            raise DataError(
                f"{name} (--future): series {later.key!r} begins at {time_text(later, later.times()[0])} and must begin at "
                f"{time_text(one, one.future(1)[0])}, the step behind the history; give those rows"
            )
    return by_key


def _forecast_of(
    model: Any,
    one: Series,
    known: SeriesDescription,
    name: str,
    later: dict[str, Series],
    horizon: int | None,
    scaler: str,
) -> Forecast:
    where = f"{name}: series {one.key!r}"
    columns = columns_from(known)
    history = _columns(one, [*columns.target, *columns.past], where)
    description = known if scaler == "model" else _own_scale(known, one, where)
    future = None
    if known.known:
        if one.key not in later:
            raise DataError(
                f"{where}: the model also reads {', '.join(known.known)} for the horizon; give them with --future TABLE"
            )
        ahead, needed = _columns(later[one.key], known.known, f"{where} (--future)"), int(model.config.horizon)
        if len(ahead) < needed:  # the model sees all of its horizon, however much of the forecast is asked for
            raise DataError(
                f"{where}: --future has {len(ahead)} rows of {', '.join(known.known)} for the horizon, the model needs {needed}"
            )
        future = np.concatenate([_columns(one, known.known, where), ahead[:needed]])
    return predict(
        model,
        torch.from_numpy(history),
        known=None if future is None else torch.from_numpy(future),
        static=one.static,
        horizon=horizon,
        description=description,
        name=where,
    )


def _columns(one: Series, names: Sequence[str], where: str) -> np.ndarray:
    from modalign.zoo.errors import nearest

    for column in names:
        if column not in one.columns:
            raise DataError(f"{where}: there is no column {column!r}, which the model reads{nearest(column, one.columns)}")
    return one.values[:, [one.columns.index(column) for column in names]]


def _own_scale(known: SeriesDescription, one: Series, where: str) -> SeriesDescription:
    """The same columns with the scale of a series' own rows."""
    from dataclasses import replace

    scale = {}
    for column in (*known.channels, *known.known):
        values = _columns(one, [column], where)[:, 0]
        values = values[~np.isnan(values)]
        if not len(values) or values.std() == 0:
            raise DataError(f"{where}: column {column!r} has no spread of its own to scale by; leave out --scaler own")
        scale[column] = [float(values.mean()), float(values.std())]
    return replace(known, scale=scale)
