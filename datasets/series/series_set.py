"""Sets of time series in memory: what windows, scalers and baselines read, whichever file it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from modalign.zoo.errors import DataError, nearest

from ..remote.access import Remote


@dataclass(frozen=True, eq=False)
class Series:
    """One series: rows in time order, columns that may have missing values.

    Attributes:
        key: Its name, unique in its set.
        values: (T, C) float64; NaN = missing.
        columns: Names of the columns.
        start: Time of the first row, datetime64[us] without zone; None: rows without time. Where the file gave zones it is UTC, and by the
            file's own clock if the step is a day or longer.
        frequency: Step between rows as pandas writes it (`h`, `15min`, `D`, `MS`); None: rows without time.
        static: Numbers that do not change within the series.
        label: Its class, if it has one.
        zone: The zone the file writes its times in (`Europe/Berlin`, `+02:00`), if it gives one.
    """

    key: str
    values: np.ndarray
    columns: tuple[str, ...]
    start: np.datetime64 | None = None
    frequency: str | None = None
    static: Mapping[str, float] = field(default_factory=dict)
    label: str | None = None
    zone: str | None = None

    def __len__(self) -> int:
        return len(self.values)

    def times(self) -> np.ndarray:
        """(T,) datetime64[us], or the row numbers 0 to T - 1 where rows have no time."""
        if self.start is None or self.frequency is None:
            return np.arange(len(self.values))
        from .frequency import grid

        return grid(self.start, self.frequency, len(self.values))

    def future(self, steps: int) -> np.ndarray:
        """The times (or row numbers) of the `steps` rows that would follow; (steps,)."""
        if self.start is None or self.frequency is None:
            return np.arange(len(self.values), len(self.values) + steps)
        from .frequency import grid

        return grid(self.start, self.frequency, len(self.values) + steps)[len(self.values) :]


class SeriesSet:
    """Series with the same columns and the same step.

    Args:
        series: At least one.
        name: Where they came from, for messages.
        notes: What was found out while reading that the user may want to know (gaps that were filled with missing rows, time zones).

    Raises:
        DataError: If series disagree in columns, step, static numbers or in having a label, or two have the same key.
    """

    def __init__(self, series: Sequence[Series], name: str, notes: Sequence[str] = ()) -> None:
        self.series, self.name, self.notes = list(series), name, list(notes)
        if not self.series:
            raise DataError(f"{name}: there is no series in it")
        _check_alike(self.series, name)

    def __len__(self) -> int:
        return len(self.series)

    def __repr__(self) -> str:
        return f"SeriesSet({self.name!r}, {len(self)} series x {len(self.columns)} columns, step {self.frequency})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns every series has, in their order."""
        return self.series[0].columns

    @property
    def frequency(self) -> str | None:
        """The step between rows; None where rows have no time."""
        return self.series[0].frequency

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the static numbers every series has."""
        return tuple(self.series[0].static)

    @property
    def labels(self) -> list[str]:
        """The classes that occur, sorted; empty where series have none."""
        return sorted({one.label for one in self.series if one.label is not None})

    @property
    def rows(self) -> int:
        """Rows of all series."""
        return sum(len(one) for one in self.series)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content; equal for a table and for the shards that were packed of it."""
        digest = hashlib.sha256(json.dumps([self.columns, self.frequency]).encode())
        for one in self.series:
            head = [one.key, None if one.start is None else str(one.start), dict(one.static), one.label, len(one)]
            digest.update(json.dumps(head, sort_keys=True).encode())
            # NaN has many bit patterns, and which one a reader makes is no content
            digest.update(np.where(np.isnan(one.values), np.nan, one.values).astype("<f8").tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def open(
        cls,
        spec: str,
        *,
        time: str | None = None,
        id: str | None = None,
        label: str | None = None,
        layout: Literal["wide", "long"] = "wide",
        variable: str | None = None,
        value: str | None = None,
        static: Sequence[str] = (),
        ignore: Sequence[str] = (),
        frequency: str | None = None,
        missing: Sequence[str] = (),
        time_format: str | None = None,
        delimiter: str = "",
        decimal: str = ".",
        remote: Remote | None = None,
    ) -> SeriesSet:
        """Reads a table, or shards that were packed of one.

        A name that ends in .csv, .tsv, .csv.gz, .tsv.gz or .parquet is a table; everything else is shards, as `ShardSet` takes them. What
        describes a table (all settings but `static`, `frequency` and `remote`) says nothing of shards and is not looked at for them.

        Args:
            spec: The table's path, or shards.
            time: Column with the times; found by name or content if not given; `none` takes rows as they come.
            id: Column that tells several series apart.
            label: Column with a series' class.
            layout: `wide` has a row per time and a column per channel, `long` a row per value.
            variable: (long) Column that names the channel.
            value: (long) Column that holds the value.
            static: Columns that hold one number per series.
            ignore: Columns to leave out.
            frequency: Step as pandas writes it; inferred if not given, checked if given.
            missing: Further texts that stand for a missing value, such as `-9999`.
            time_format: How times are written, as `strptime` has it, or `s`, `ms`, `us`, `ns` for Unix time.
            delimiter: What separates the cells of a text table; found out if not given.
            decimal: Decimal mark of numbers; a comma is found out where cells are separated by something else.
            remote: What may be read from other machines.

        Raises:
            DataError: Naming file, series, row and column, and what to do.
        """
        from .table_options import TableOptions, is_table

        if not is_table(spec):
            return _of_shards(spec, frequency, static, remote)
        from .tables import read_table

        options = TableOptions(
            time,
            id,
            label,
            layout,
            variable,
            value,
            tuple(static),
            tuple(ignore),
            frequency,
            tuple(missing),
            time_format,
            delimiter,
            decimal,
        )
        series, notes = read_table(spec, options)
        return cls(series, str(spec), notes)


def _of_shards(spec: str, frequency: str | None, static: Sequence[str], remote: Remote | None) -> SeriesSet:
    from .stored import read_shards

    found = SeriesSet(read_shards(spec, remote), str(spec))
    if frequency is not None:
        from .frequency import checked_frequency

        wanted = checked_frequency(frequency, found.name)
        if wanted != found.frequency:
            raise DataError(
                f"{found.name}: the step of its rows is {found.frequency}, not {wanted}; leave out frequency, or resample the data"
            )
    for name in static:
        if name not in found.static:
            raise DataError(
                f"{found.name}: no static number {name!r}{nearest(name, found.static)}; name it with --static when packing"
            )
    return found


def _check_alike(series: Sequence[Series], name: str) -> None:
    first, keys = series[0], set[str]()
    for one in series:
        where = f"{name}: series {one.key!r}"
        if one.key in keys:
            raise DataError(f"{where}: the key appears twice; every series needs its own")
        keys.add(one.key)
        if one.columns != first.columns:
            raise DataError(
                f"{where}: {_difference(one.columns, first)}; all series of a set have the same columns in the same order"
            )
        if one.frequency != first.frequency:
            raise DataError(
                f"{where}: its step is {one.frequency}, that of series {first.key!r} is {first.frequency}; a set has one step: resample, "
                "or pack the series into sets by step"
            )
        if set(one.static) != set(first.static):
            odd = sorted(set(one.static) ^ set(first.static))[0]
            raise DataError(f"{where}: the static number {odd!r} is in it or in series {first.key!r}, not in both")
        if (one.label is None) != (first.label is None):
            raise DataError(
                f"{where}: it has {'no' if one.label is None else 'a'} label, unlike series {first.key!r}; label all or none"
            )


def _difference(columns: tuple[str, ...], first: Series) -> str:
    for column in first.columns:
        if column not in columns:
            return f"it has no column {column!r}, which series {first.key!r} has"
    for column in columns:
        if column not in first.columns:
            return f"it has a column {column!r}, which series {first.key!r} has not"
    return f"its columns are in another order ({', '.join(columns)}) than those of series {first.key!r}"
