"""How a text table is written, where nobody says: what separates its cells, and which is its decimal mark. Never a guess.

A character is taken for the separator if it alone gives every row as many cells as the first line has names. A comma is taken for the
decimal mark if cells are separated by something else, some number can only be meant so (`6,5`, not `1,500`), and none has a decimal point.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.zoo.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame

SEPARATORS = (",", ";", "\t")
_SAMPLE = 1 << 20  # bytes that are looked at; the whole file is checked when it is read
_COMMA = r"[+-]?\d+,\d+([eE][+-]?\d+)?"
_MAY_BE_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"
_POINT = r"[+-]?\d*\.\d+([eE][+-]?\d+)?"


def separator_of(path: Path, data: bytes) -> str:
    """The character between the cells of a text table.

    Args:
        path: The file; `.tsv` says that it is a tab.
        data: Its content, UTF-8.

    Raises:
        DataError: If two characters would do.
    """
    usual = "\t" if ".tsv" in path.name.lower() else ","
    if usual == "\t":
        return usual
    text = data[:_SAMPLE].decode("utf-8", "ignore")
    widths = {character: _widths(text, character, whole=len(data) <= _SAMPLE) for character in SEPARATORS}
    possible = [character for character, (first, *_) in widths.items() if first > 1]
    fitting = [character for character in possible if len(set(widths[character])) == 1]
    if len(fitting) > 1:
        shown = " and ".join(map(_said, fitting))
        raise DataError(
            f"{path}: the cells may be separated by {shown}, every row has as many of either; say which with --delimiter {fitting[0]!r}"
        )
    if fitting:
        return fitting[0]
    return usual if usual in possible or not possible else possible[0]


def _widths(text: str, character: str, *, whole: bool) -> list[int]:
    """How many cells each row has, the first line first; blank lines do not count."""
    try:
        rows = [len(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=character) if row]
    except csv.Error:
        return [0]
    return (rows if whole or len(rows) < 3 else rows[:-1]) or [0]  # the last one may be cut off


def _said(character: str) -> str:
    return "a tab" if character == "\t" else repr(character)


def has_decimal_commas(frame: DataFrame, columns: Sequence[str]) -> bool:
    """Whether the numbers of a table whose cells are not separated by commas have decimal commas, beyond doubt.

    Args:
        frame: The table, read with a decimal point.
        columns: Its columns of numbers.
    """
    certain = False
    for column in columns:
        values = frame[column]
        if values.dtype.kind == "f" and (values.dropna() % 1 != 0).any():
            return False
        if values.dtype.kind in "biuf":
            continue
        cells = values.dropna().astype(str).str.strip()
        if cells.str.fullmatch(_POINT).any():
            return False
        commas = cells[cells.str.fullmatch(_COMMA)]
        certain = certain or not commas.str.fullmatch(_MAY_BE_THOUSANDS).all()
    return certain
