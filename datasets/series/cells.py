"""A column of a table as numbers, missing ones as NaN; a cell that is neither is an error that names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modalign.zoo.errors import DataError

from .table_options import MISSING

if TYPE_CHECKING:
    import pandas as pd


def numbers(column: pd.Series, where: str, missing: Sequence[str] = (), decimal: str = ".") -> np.ndarray:
    """Returns a column as (T,) float64.

    Args:
        column: As `reading.read_frame` gives it; its name is the column's.
        where: The file, for messages.
        missing: Texts that stand for a missing value besides an empty cell and `table_options.MISSING`; a number among them also
            stands for it in columns of numbers.
        decimal: Decimal mark.

    Raises:
        DataError: Naming the first row whose cell is no finite number.
    """
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    if (is_numeric_dtype(column.dtype) and not is_complex_dtype(column.dtype)) or is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    else:
        values = _of_texts(column, where, {"", *MISSING, *missing}, decimal)
    for mark in missing:
        try:
            values[values == float(mark)] = np.nan
        except ValueError:
            continue  # a text, found as such
    infinite = np.isinf(values)
    if infinite.any():
        raise DataError(
            f"{where}: row {int(infinite.argmax())}, column {column.name!r} is infinite; leave the cell empty if it is not known"
        )
    return values


def _of_texts(column: pd.Series, where: str, missing: set[str], decimal: str) -> np.ndarray:
    absent = column.isna().to_numpy()
    values = np.full(len(column), np.nan)
    for row, cell in enumerate(column.astype(object)):
        text = "" if absent[row] else str(cell).strip()
        if text in missing:
            continue
        plain = text.replace(decimal, ".") if decimal != "." else text
        try:
            if "_" in plain:  # Python reads 1_000 as a number, nobody else does
                raise ValueError
            values[row] = float(plain)
        except ValueError:
            raise DataError(_not_a_number(text, row, str(column.name), where, decimal)) from None
    return values


def _not_a_number(text: str, row: int, column: str, where: str, decimal: str) -> str:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    hint = f"leave the column out with --ignore {column!r}, or say --missing {shown!r} if it stands for a missing value"
    if decimal == "." and "," in text and text.replace(",", "", 1).replace("-", "").isdecimal():
        hint = "if the comma is the decimal mark, say --decimal ,"
    return f"{where}: row {row}, column {column!r} is {shown!r}, which is no number; {hint}"
