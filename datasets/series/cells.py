"""A column of a table as numbers, missing ones as NaN; a cell that is neither is an error that names it."""

from __future__ import annotations

import re
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
            # Python reads 1_000 as a number, nobody else does; a point beside decimal commas may be meant for thousands
            if "_" in plain or (decimal != "." and "." in text):
                raise ValueError
            values[row] = float(plain)
        except ValueError:
            raise DataError(_not_a_number(text, row, column, where, decimal)) from None
    return values


def _not_a_number(text: str, row: int, column: pd.Series, where: str, decimal: str) -> str:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    hint = _of_marks(text, decimal)
    if hint is None:
        hint = f"leave the column out with --ignore {str(column.name)!r}, or say --missing {shown!r} if it stands for a missing value"
        if not any(letter.isdigit() for letter in text) and column.nunique() < len(column):
            hint += (
                f"; if it says which series a row is of, say --id {str(column.name)!r}, and --layout long if a row holds a single value of "
                "a channel that a column names"
            )
    return f"{where}: row {row}, column {str(column.name)!r} is {shown!r}, which is no number; {hint}"


def _of_marks(text: str, decimal: str) -> str | None:
    """What to do about a number with points and commas in it, if it is one."""
    other = "," if decimal == "." else "."
    thousands = re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}(\{other}\d{{3}})+(\{decimal}\d*)?", text) is not None
    fraction = re.fullmatch(rf"[+-]?\d*\{other}\d+", text) is not None
    without = f"write the numbers without a mark between thousands (pandas: read_csv(..., thousands={other!r}), then to_csv)"
    what = "comma" if other == "," else "point"
    if fraction:
        meant = f"if the {what} is the decimal mark, say --decimal {other}"
        return f"{meant}; if it separates thousands, {without}" if thousands else meant
    return without if thousands else None
