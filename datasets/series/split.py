"""Which rows of a series are for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

import numpy as np

from modalign.zoo.errors import DataError, RecipeError

from .config import ETT
from .series_set import Series

Part = Literal["train", "val", "test"]
Borders = dict[str, tuple[int, int]]
PARTS: tuple[Part, ...] = ("train", "val", "test")


def borders(series: Series, split: str | Mapping[str, Any]) -> Borders:
    """Part -> (first row, row behind the last) of the rows that are predicted in it.

    The windows of a part may look back into the part before, but what is predicted or judged in it are its own rows, from the first on.

    Args:
        series: The series.
        split: As `SeriesConfig.split`.

    Raises:
        DataError: If the series is too short for published borders or has no times to compare dates with.
        RecipeError: If the split is none.
    """
    rows = len(series.values)
    if split == "none":
        return {part: (0, rows) for part in PARTS}
    if isinstance(split, str):
        return _ett(series, split)
    if set(split) == {"train", "val", "test"} and all(_is_number(value) for value in split.values()):
        return _fractions(rows, {name: float(value) for name, value in split.items()})
    if {"val", "test"} <= set(split) <= {"val", "test", "end"}:
        return _dates(series, split)
    raise RecipeError(
        f"data.series.split: {dict(split)!r} is neither fractions of train, val and test nor dates of val, test (and end)"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ett(series: Series, kind: str) -> Borders:
    month = 30 * ETT[kind]
    first, second, end = 12 * month, 16 * month, 20 * month
    if len(series.values) < end:
        raise DataError(
            f"series {series.key!r} has {len(series.values)} rows, and the borders {kind} need {end}; "
            "give data.series.split fractions or dates"
        )
    return {"train": (0, first), "val": (first, second), "test": (second, end)}


def _fractions(rows: int, split: Mapping[str, float]) -> Borders:
    if not (min(split.values()) >= 0 and split["train"] > 0 and abs(sum(split.values()) - 1) <= 1e-6):  # so that NaN is none
        raise RecipeError(f"data.series.split: the fractions {dict(split)} must be 0 or more and add up to 1")
    train, test = int(rows * split["train"]), int(rows * split["test"])
    return {"train": (0, train), "val": (train, rows - test), "test": (rows - test, rows)}


def _dates(series: Series, split: Mapping[str, Any]) -> Borders:
    if series.start is None:
        raise DataError(f"series {series.key!r} has no times, so it cannot be split by date; give fractions")
    times = series.times()
    edges = [_row(times, split[name], name) for name in ("val", "test")]
    edges.append(_row(times, split["end"], "end") if split.get("end") is not None else len(times))
    if sorted(edges) != edges:
        raise RecipeError(f"data.series.split: the dates must follow each other as val, test, end; got {dict(split)}")
    return {"train": (0, edges[0]), "val": (edges[0], edges[1]), "test": (edges[1], edges[2])}


def _row(times: np.ndarray, text: Any, name: str) -> int:
    try:
        moment = np.datetime64(text.isoformat() if isinstance(text, date) else str(text))
    except ValueError:
        moment = np.datetime64("NaT")
    if np.isnat(moment):
        raise RecipeError(f"data.series.split.{name}: {text!r} is no date such as 2017-07-01 or 2017-07-01T12:00")
    return int(np.searchsorted(times, moment))
