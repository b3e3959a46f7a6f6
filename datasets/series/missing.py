"""Missing values where none may be: the error that names the first one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign.zoo.errors import DataError

from .series_set import Series

POLICY = "data.series.missing is error; fill it, or set missing: mask"
KNOWN = "known-future columns must have no gaps; fill it"  # models get no mask of them


def refuse_missing(where: str, series: Series, columns: Sequence[str], missing: np.ndarray, why: str, first_row: int = 0) -> None:
    """Raises an error if anything is missing.

    Args:
        where: What messages call the set.
        series: The series.
        columns: Names of the K columns looked at.
        missing: (T, K) bool, of rows of the series that follow each other.
        why: What is wrong with that, and what to do.
        first_row: The series' row that `missing` begins with.

    Raises:
        DataError: Naming set, series, column, row and time.
    """
    if missing.any():
        row, column = (int(value) for value in np.argwhere(missing)[0])
        at = first_row + row
        raise DataError(
            f"{where}: series {series.key!r}, column {columns[column]!r} has no value at row {at} ({series.times()[at]}), and {why}"
        )
