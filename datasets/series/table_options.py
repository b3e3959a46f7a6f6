"""How a table is read: its settings, and which of its columns is what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modalign.zoo.errors import DataError, nearest

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
TIME_NAMES = ("date", "time", "ds", "ts", "timestamp", "datetime", "date_time", "date_utc", "time_utc", "utc_timestamp")
ID_NAMES = {"wide": ("unique_id", "item_id", "series_id"), "long": ("unique_id", "item_id", "series_id", "id", "series")}
VARIABLE_NAMES = ("variable", "channel", "column", "feature", "metric")
VALUE_NAMES = ("value", "y", "target")
#: what stands for a missing value, besides an empty cell
MISSING = ("?", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None")
NO_TIME = "none"


@dataclass(frozen=True)
class TableOptions:
    """How a table is read; see `SeriesSet.open` for what each means."""

    time: str | None = None
    id: str | None = None
    label: str | None = None
    layout: Literal["wide", "long"] = "wide"
    variable: str | None = None
    value: str | None = None
    static: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    frequency: str | None = None
    missing: tuple[str, ...] = ()
    time_format: str | None = None
    delimiter: str = ""
    decimal: str = "."

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            DataError: If a setting is none of its values, or does not go with the layout.
        """
        if self.layout not in ("wide", "long"):
            raise DataError(f"layout is {self.layout!r}; it can be 'wide' (a column per channel) or 'long' (a row per value)")
        if self.layout == "wide" and (self.variable or self.value):
            raise DataError("variable and value name columns of a long table; say --layout long too")
        if len(self.decimal) != 1 or len(self.delimiter) > 1:
            raise DataError(f"delimiter {self.delimiter!r} and decimal {self.decimal!r} must be one character each")


@dataclass(frozen=True)
class Names:
    """Which column of a table is what.

    Attributes:
        time: The times; None: none was named and none has the name of one (its content may still tell).
        id: What tells series apart.
        label: The class.
        static: Numbers of a series.
        variable: (long) The channel's name.
        value: (long) The value.
        channels: Everything else: the columns of the series (wide only).
    """

    time: str | None
    id: str | None
    label: str | None
    static: tuple[str, ...]
    variable: str | None
    value: str | None
    channels: tuple[str, ...]

    @property
    def texts(self) -> set[str]:
        """Columns that are read as text, letter by letter."""
        return {name for name in (self.time, self.id, self.label, self.variable) if name is not None}


def is_table(spec: str | os.PathLike[str]) -> bool:
    """True if a data location names a table by its suffix."""
    return isinstance(spec, str | os.PathLike) and os.fspath(spec).lower().endswith(SUFFIXES)


def find_names(columns: Sequence[str], options: TableOptions, where: str) -> Names:
    """Finds out which column is what: as the settings say, else by name.

    Raises:
        DataError: If a column that was named is not there, two have the name of a time, or a column has two roles.
    """
    for column in (options.time, options.id, options.label, options.variable, options.value, *options.static, *options.ignore):
        if column is not None and column != NO_TIME and column not in columns:
            raise DataError(f"{where}: there is no column {column!r}{nearest(column, columns)}")
    left = [column for column in columns if column not in options.ignore]
    taken = {options.id, options.label, options.variable, options.value, *options.static}
    time = options.time or _by_name([column for column in left if column not in taken], TIME_NAMES, "time", where)
    time = None if time == NO_TIME and NO_TIME not in columns else time
    id = options.id or _by_name([column for column in left if column not in taken], ID_NAMES[options.layout], "id", where)
    variable = value = None
    if options.layout == "long":
        variable = options.variable or _by_name(
            [column for column in left if column not in taken], VARIABLE_NAMES, "variable", where
        )
        value = options.value or _by_name([column for column in left if column not in taken], VALUE_NAMES, "value", where)
        if value is None:
            raise DataError(
                f"{where}: a long table has a column of values, and none is called {_listed(VALUE_NAMES)}; name it with --value"
            )
    roles = [name for name in (time, id, options.label, variable, value, *options.static) if name is not None]
    for name in roles:
        if roles.count(name) > 1 or name in options.ignore:
            raise DataError(
                f"{where}: column {name!r} has two roles; a column is time, id, label, static, variable, value or left out"
            )
    channels = tuple(column for column in left if column not in roles)
    if options.layout == "long" and channels:
        raise DataError(
            f"{where}: column {channels[0]!r} of this long table has no role; leave it out with --ignore, or, if it has a column per "
            "channel, read it as --layout wide"
        )
    if options.layout == "wide" and not channels:
        raise DataError(f"{where}: there is no column of values in it (columns: {', '.join(columns)})")
    return Names(time, id, options.label, options.static, variable, value, channels)


def _by_name(columns: Sequence[str], names: Sequence[str], role: str, where: str) -> str | None:
    found = [column for column in columns if column.strip().casefold().replace(" ", "_").replace("-", "_") in names]
    if len(found) > 1:
        hint = f"; or leave one out with --ignore {found[1]!r}" if role == "time" else ""
        raise DataError(f"{where}: columns {_listed(found)} could all be the {role}; say which with --{role} {found[0]!r}{hint}")
    return found[0] if found else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names) if len(names) < 3 else ", ".join(repr(name) for name in names)


def require_table(spec: str) -> str:
    """Returns a data location that names a table.

    Raises:
        DataError: If it names something else.
    """
    if not is_table(spec):
        raise DataError(f"{spec}: not a table of series; give a file that ends in {', '.join(SUFFIXES)}")
    return spec
