"""From the bytes of a table to its columns: strict about structure, so that no cell comes to stand under another column's name."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.zoo.errors import DataError

from ..home import local_path
from .dialect import has_decimal_commas, separator_of
from .table_options import MISSING, Names, TableOptions, find_names

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_BYTES = 8 << 30
UNNAMED = "Unnamed: "


def read_frame(spec: str | Path, options: TableOptions) -> tuple[DataFrame, Names, str]:
    """Reads a table; columns of numbers are numbers where every cell is one, text otherwise.

    Returns:
        The table, its rows numbered from 0, which column is what, and the decimal mark of its numbers.

    Raises:
        DataError: If it cannot be read, a row has too many or too few cells, or columns have no name or the same one.
    """
    path = local_path(spec)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.name.lower().endswith(".parquet"):
        frame, decimal = _parquet(path), options.decimal
        names = find_names(list(frame.columns), options, str(path))
    else:
        frame, names, decimal = _text(path, options)
    if not len(frame):
        raise DataError(f"{path}: there is no row in it")
    return frame, names, decimal


def _text(path: Path, options: TableOptions) -> tuple[DataFrame, Names, str]:
    data = _bytes(path)
    delimiter = options.delimiter or separator_of(path, data)
    header = _header(path, data, delimiter)
    names = find_names(header, options, str(path))
    frame = _parsed(path, data, header, names, options, delimiter, options.decimal)
    numbers = [name for name in (*names.channels, names.value, *names.static) if name is not None]
    if delimiter == "," or options.decimal != "." or not has_decimal_commas(frame, numbers):
        return frame, names, options.decimal
    return _parsed(path, data, header, names, options, delimiter, ","), names, ","


def _parsed(
    path: Path, data: bytes, header: list[str], names: Names, options: TableOptions, delimiter: str, decimal: str
) -> DataFrame:
    import pandas as pd

    values = [name for name in header if name not in names.texts]
    marks = ["", *MISSING, *options.missing]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = pd.read_csv(
                io.BytesIO(data),
                sep=delimiter,
                header=0,
                names=header,
                dtype=dict.fromkeys(names.texts, str),
                na_values=dict.fromkeys(values, marks),
                keep_default_na=False,
                low_memory=False,
                decimal=decimal,
                skip_blank_lines=len(header) > 1,  # of a single column, a blank line is a missing value
                **exact(pd.__version__),
            )
    except (ValueError, OverflowError, csv.Error) as error:  # pandas' own errors are ValueErrors
        _check_cells(path, data, delimiter, len(header))
        raise DataError(f"{path}: cannot be read as a table ({' '.join(str(error).split())})") from None
    even = b'"' not in data and data.count(delimiter.encode()) == (len(frame) + 1) * (len(header) - 1)
    if not even or not isinstance(frame.index, pd.RangeIndex):  # a short row would be filled, a long one shifted
        _check_cells(path, data, delimiter, len(header))
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{path}: rows have more cells than the first line has names; name every column")
    return frame


def exact(version: str) -> dict[str, Any]:
    """What makes `pandas.read_csv` read numbers to the last bit: from 3.1 on nothing, it always does and the setting is deprecated."""
    return {"float_precision": "round_trip"} if tuple(map(int, version.split(".")[:2])) < (3, 1) else {}


def _bytes(path: Path) -> bytes:
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as stream:
                data = stream.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES >> 30} GB; cut it into several files, or write parquet")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    if b"\0" in data:
        raise DataError(f"{path}: byte {data.index(0)} is zero, so this is no text; save it as CSV in UTF-8")
    return data


def _lines(path: Path, data: bytes, delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(data.decode("utf-8"), newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from None


def _header(path: Path, data: bytes, delimiter: str) -> list[str]:
    """The names in the first line; a column without one is called as pandas calls it."""
    first = next((line for line in _lines(path, data, delimiter) if line), None)
    if first is None:
        raise DataError(f"{path}: the file is empty")
    if len(first) == 1:
        for other in (";", "\t", "|", ","):
            if other != delimiter and other in first[0]:
                raise DataError(f"{path}: there is no {delimiter!r} in the first line, but {other!r}; say --delimiter {other!r}")
    if all(_is_number(name) for name in first) and first != [str(number) for number in range(len(first))]:
        raise DataError(f"{path}: the first line has numbers only; put a line with the names of the columns above it")
    return _checked_names(path, [name if name.strip() else f"{UNNAMED}{place}" for place, name in enumerate(first)])


def _checked_names(path: Path, names: Sequence[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: two columns are called {name!r}; give every column its own name")
    return list(names)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_cells(path: Path, data: bytes, delimiter: str, width: int) -> None:
    row = -2  # the first line is no row
    for line in _lines(path, data, delimiter):
        if not line or (width > 1 and len(line) == 1 and not line[0].strip()):
            continue
        row += 1
        if len(line) != width:
            raise DataError(
                f"{path}: row {row} has {len(line)} cells, the first line {width}; correct the row (are texts with commas quoted?)"
            )


def _parquet(path: Path) -> DataFrame:
    import pandas as pd

    try:
        frame: Any = pd.read_parquet(path, engine="pyarrow")
    except ImportError:
        raise DataError(
            f"{path}: parquet is read with pyarrow; install it (pip install 'modalign[parquet]'), or write a CSV"
        ) from None
    except Exception as error:  # pyarrow raises many types on damaged files
        raise DataError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=[str(name or f"{UNNAMED}{place}") for place, name in enumerate(frame.index.names)])
    frame.columns = _checked_names(path, [str(name) for name in frame.columns])
    return frame.reset_index(drop=True)
