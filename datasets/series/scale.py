"""The scaler of a data set: mean and standard deviation of its training rows, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

from .series_set import SeriesSet
from .split import borders

Scale = dict[str, list[float]]


def fit_scale(sets: Sequence[SeriesSet], columns: Sequence[str], split: str | Mapping[str, Any], kind: str = "standard") -> Scale:
    """Column -> [mean, population standard deviation] over the training rows of all series; missing values are left out.

    Args:
        sets: The sets.
        columns: The columns a model is given.
        split: As `SeriesConfig.split`.
        kind: `standard`, or `none` for [0, 1].

    Raises:
        DataError: If a column has no value in the training rows, or only one and the same.
    """
    if kind == "none":
        return {column: [0.0, 1.0] for column in columns}
    parts = []
    for series in sets:
        places = [series.columns.index(column) for column in columns]
        parts += [one.values[slice(*borders(one, split)["train"])][:, places] for one in series.series]
    rows, name = np.concatenate(parts), ", ".join(series.name for series in sets)
    return {column: _moments(rows[:, place], column, name) for place, column in enumerate(columns)}


def fit_static(sets: Sequence[SeriesSet], names: Sequence[str]) -> Scale:
    """Static number -> [mean, population standard deviation] over all series, each counting once.

    A deviation of 0 says that the number is the same everywhere; that is for a model to refuse, which cannot learn from it.

    Args:
        sets: The training sets.
        names: Their static numbers.
    """
    values = {name: np.array([one.static[name] for series in sets for one in series.series]) for name in names}
    return {name: [float(found.mean()), float(found.std())] for name, found in values.items()}


def _moments(values: np.ndarray, column: str, name: str) -> list[float]:
    values = values[~np.isnan(values)]
    if not len(values):
        raise DataError(f"{name}: column {column!r} has no value in the training rows; take it out, or move the split")
    mean, std = float(values.mean()), float(values.std())
    if std <= 1e-12 * max(1.0, abs(mean)):
        raise DataError(
            f"{name}: column {column!r} has the constant value {mean:g} in the {len(values)} training rows, so it cannot be scaled and "
            "there is nothing to learn; take it out of the columns, or set data.series.scale: none"
        )
    return [mean, std]
