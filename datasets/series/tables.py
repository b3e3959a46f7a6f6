"""From a table to series: wide ones have a column per channel, long ones a row per value; gaps become rows of missing values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modalign.zoo.errors import DataError

from ..shards.manifest import counted
from .cells import numbers
from .frequency import checked_frequency, common_step, infer_frequency, positions, said, step_positions
from .mixed_step import refuse_mixed
from .reading import UNNAMED, read_frame
from .series_set import Series
from .table_options import NO_TIME, Names, TableOptions
from .times import looks_like_times, parse_times
from .zones import Zoned, by_own_clock, days_or_longer, zone_of

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class Group:
    """The rows of one series, as the table has them.

    Attributes:
        key: The series' name.
        rows: (T,) their numbers in the table.
        times: (T,) datetime64[us] or whole numbers, rising; None: rows have no time.
        values: (T, C).
        where: File and series, for messages.
    """

    key: str
    rows: np.ndarray
    times: np.ndarray | None
    values: np.ndarray
    where: str


def read_table(spec: str | Path, options: TableOptions) -> tuple[list[Series], list[str]]:
    """Reads the series of a table, and what there is to say about it.

    Raises:
        DataError: Naming file, series, row and column.
    """
    frame, names, decimal = read_frame(spec, options)
    commas, options = decimal != options.decimal, replace(options, decimal=decimal)
    where = str(spec)
    if names.time is None and options.time != NO_TIME:
        names = _time_by_content(frame, names, where)
    unnamed = [name for name in names.channels if name.startswith(UNNAMED)]
    if unnamed:
        raise DataError(
            f"{where}: column {unnamed[0].removeprefix(UNNAMED)} (the first is 0) has no name; name it, or, if it holds row numbers, "
            f"leave it out with --ignore {unnamed[0]!r}"
        )
    times, zoned = (None, None) if names.time is None else parse_times(frame[names.time], where, options.time_format)
    notes = ["numbers are read with a decimal comma"] if commas else []
    if names.time is None:
        notes.append("rows have no time (no column has the name of one, such as date, time or ds); they are taken as they come")
    columns, groups = (_long if options.layout == "long" else _wide)(frame, names, times, options, where)
    zones = [None] * len(groups) if zoned is None else [_zone(group, zoned) for group in groups]
    if zoned is not None:
        notes.append(_on_clock(groups, zoned, options.frequency, str(names.time), where))
    kept, gaps = _regular(groups, options, where)
    kept = [replace(one, zone=zone) for one, zone in zip(kept, zones, strict=True)]
    described = [_described(frame, names, options, group, one) for group, one in zip(groups, kept, strict=True)]
    return [replace(one, columns=columns) for one in described], notes + gaps


def _time_by_content(frame: DataFrame, names: Names, where: str) -> Names:
    found = [name for name in names.channels if looks_like_times(frame[name])]
    if len(found) > 1:
        raise DataError(
            f"{where}: columns {found[0]!r} and {found[1]!r} both look like times; say which is with --time {found[0]!r}"
        )
    if not found or len(names.channels) == 1:
        return names
    return replace(names, time=found[0], channels=tuple(name for name in names.channels if name != found[0]))


def _groups(frame: DataFrame, names: Names, where: str) -> Iterator[tuple[str, np.ndarray, str]]:
    """(key, rows, file and series) of each series, in the order of their first rows."""
    if names.id is None:
        stem = re.sub(r"(\.(csv|tsv|parquet|gz))+$", "", Path(where).name, flags=re.IGNORECASE)
        yield stem or "series", np.arange(len(frame)), where
        return
    import pandas as pd

    column = frame[names.id]
    texts = column.astype(object).where(~column.isna(), "").map(str).str.strip()
    blank = (texts == "").to_numpy()
    if blank.any():
        raise DataError(
            f"{where}: row {int(blank.argmax())} does not say which series it belongs to (column {names.id!r}); fill it in"
        )
    codes, keys = pd.factorize(texts)
    order = np.argsort(codes, kind="stable")
    for key, rows in zip(keys, np.split(order, np.cumsum(np.bincount(codes))[:-1]), strict=True):
        yield str(key), rows, f"{where}: series {str(key)!r}"


def _wide(
    frame: DataFrame, names: Names, times: np.ndarray | None, options: TableOptions, where: str
) -> tuple[tuple[str, ...], list[Group]]:
    values = np.stack([numbers(frame[name], where, options.missing, options.decimal) for name in names.channels], axis=1)
    groups = []
    for key, rows, place in _groups(frame, names, where):
        mine = None if times is None else times[rows]
        if mine is not None:
            _check_rising(mine, rows, place, names.id is None and options.layout == "wide")
        groups.append(Group(key, rows, mine, values[rows], place))
    return names.channels, groups


def _long(
    frame: DataFrame, names: Names, times: np.ndarray | None, options: TableOptions, where: str
) -> tuple[tuple[str, ...], list[Group]]:
    import pandas as pd

    assert names.value is not None
    values = numbers(frame[names.value], where, options.missing, options.decimal)
    if names.variable is None:
        codes, columns = np.zeros(len(frame), dtype=np.int64), [names.value]
    else:
        column = frame[names.variable]
        texts = column.astype(object).where(~column.isna(), "").map(str).str.strip()
        blank = (texts == "").to_numpy()
        if blank.any():
            raise DataError(f"{where}: row {int(blank.argmax())} does not say which channel it is of (column {names.variable!r})")
        codes, found = pd.factorize(texts)
        columns = [str(name) for name in found]
    groups = [_pivoted(key, rows, place, codes, values, times, columns) for key, rows, place in _groups(frame, names, where)]
    return tuple(columns), groups


def _pivoted(
    key: str,
    rows: np.ndarray,
    where: str,
    codes: np.ndarray,
    values: np.ndarray,
    times: np.ndarray | None,
    columns: Sequence[str],
) -> Group:
    """A series of a long table: a row per time, a column per channel."""
    parts = [rows[codes[rows] == code] for code in range(len(columns))]
    for column, part in zip(columns, parts, strict=True):
        if not len(part):
            raise DataError(f"{where}: it has no row of channel {column!r}; all series of a set have the same columns")
        if times is not None:
            _check_rising(times[part], part, f"{where}, column {column!r}", False)
        elif len(part) != len(parts[0]):
            raise DataError(
                f"{where}: channel {column!r} has {len(part)} rows, {columns[0]!r} has {len(parts[0])}, and without times they cannot be "
                "told which belong together; name the column of times with --time"
            )
    if times is None:
        return Group(key, parts[0], None, np.stack([values[part] for part in parts], axis=1), where)
    moments, first = np.unique(times[rows], return_index=True)
    table = np.full((len(moments), len(columns)), np.nan)
    for code, part in enumerate(parts):
        table[np.searchsorted(moments, times[part]), code] = values[part]
    return Group(key, rows[first], moments, table, where)


def _check_rising(times: np.ndarray, rows: np.ndarray, where: str, alone: bool) -> None:
    steps = np.diff(times).astype(np.int64)
    if (steps > 0).all():
        return
    place = int((steps <= 0).argmax())
    if steps[place] == 0 or len(np.unique(times)) < len(times):
        values, counts = np.unique(times, return_counts=True)
        twice = np.flatnonzero(times == values[(counts > 1).argmax()])
        hint = "; if it holds several series, name the column that tells them apart with --id" if alone else ""
        raise DataError(
            f"{where}: rows {rows[twice[0]]} and {rows[twice[1]]} have the same time {said(times[twice[0]])}; keep one of them, or "
            f"average them{hint}"
        )
    raise DataError(
        f"{where}: row {rows[place + 1]} ({said(times[place + 1])}) comes before row {rows[place]} ({said(times[place])}); sort the "
        "rows by time first"
    )


def _zone(group: Group, zoned: Zoned) -> str:
    assert group.times is not None
    return zoned.name or zone_of(group.times, zoned.offsets[group.rows])


def _on_clock(groups: Sequence[Group], zoned: Zoned, frequency: str | None, column: str, where: str) -> str:
    """Puts days and longer steps on the file's own clock, where midnight is midnight; returns what to say of it."""
    own = [group.times + zoned.offsets[group.rows].astype("timedelta64[us]") for group in groups if group.times is not None]
    if not (days_or_longer(own) if frequency is None else by_own_clock(checked_frequency(frequency, where))):
        return f"times of column {column!r} have a zone; they are kept as UTC"
    for group, times in zip(groups, own, strict=True):
        group.times = times
    return f"times of column {column!r} have a zone; days are counted by its own clock"


def _regular(groups: Sequence[Group], options: TableOptions, where: str) -> tuple[list[Series], list[str]]:
    """Puts every series on the grid of the one step; gaps become rows of missing values and are told."""
    if groups[0].times is None:
        if options.frequency is not None:
            raise DataError(
                f"{where}: frequency is {options.frequency}, but the rows have no time; name the column of times with --time"
            )
        return [Series(group.key, group.values, ()) for group in groups], []
    numbered = groups[0].times.dtype.kind == "i"
    if numbered and options.frequency is not None:
        raise DataError(
            f"{where}: frequency is {options.frequency}, but the times are row numbers; say what they count with --time_format"
        )
    step = _common_frequency(groups, options.frequency, where)
    kept, filled, first = [], 0, ""
    for group in groups:
        times = group.times
        assert times is not None
        if isinstance(step, int):
            found = step_positions(times - times[0], step, group.where, group.rows, times, str(step))
        else:
            found = positions(times, step, group.where, group.rows)
        values = np.full((int(found[-1]) + 1, group.values.shape[1]), np.nan)
        values[found] = group.values
        if len(values) > len(times) and not filled:
            gap = int((np.diff(found) > 1).argmax())
            first = f"the first in series {group.key!r} after row {group.rows[gap]} ({said(times[gap])})"
        filled += len(values) - len(times)
        kept.append(Series(group.key, values, (), *((None, None) if isinstance(step, int) else (times[0], step))))
    share = filled / sum(len(one) for one in kept)
    note = f"{counted(filled, 'row')} ({share:.2%}) not in the table and added with missing values, {first} (step {step})"
    return kept, [note] if filled else []


def _common_frequency(groups: Sequence[Group], frequency: str | None, where: str) -> str | int:
    """The step of all series: as it was given, else as inferred from each that has three rows (two, if none has three)."""
    if frequency is not None:
        return checked_frequency(frequency, where)
    times = [group.times for group in groups if group.times is not None]
    enough = min(3, max(len(one) for one in times))
    if enough < 2:
        raise DataError(
            f"{where}: no series has two rows, so that the step between rows cannot be inferred; give it with --frequency"
        )
    steps: dict[str | int, Group] = {}
    for group in groups:
        mine = group.times
        if mine is not None and len(mine) >= enough:
            refuse_mixed(mine, group.where, group.rows)
            steps.setdefault(common_step(np.diff(mine)) if mine.dtype.kind == "i" else infer_frequency(mine), group)
    if len(steps) > 1:
        (one, first), (other, second) = list(steps.items())[:2]
        raise DataError(
            f"{where}: series {first.key!r} has the step {one}, series {second.key!r} the step {other}; a set has one step: resample, take "
            "them apart, or give the step with --frequency (rows in between then count as missing)"
        )
    return next(iter(steps))


def _described(frame: DataFrame, names: Names, options: TableOptions, group: Group, series: Series) -> Series:
    """Adds what does not change within a series: static numbers and the label."""
    rows = group.rows if options.layout == "wide" else np.sort(group.rows)
    static = {}
    for name in names.static:
        values = np.unique(numbers(frame[name].iloc[rows], group.where, options.missing, options.decimal))
        if len(values) != 1 or np.isnan(values[0]):
            what = "is missing in it" if np.isnan(values).any() else f"changes within it ({values[0]:g}, {values[1]:g} ...)"
            raise DataError(f"{group.where}: the static column {name!r} {what}; a static number is one per series")
        static[name] = float(values[0])
    label = None
    if names.label is not None:
        texts = frame[names.label].iloc[rows].astype(object).map(str).str.strip().unique()
        if len(texts) != 1 or not texts[0]:
            raise DataError(
                f"{group.where}: the label (column {names.label!r}) must be one and the same in all its rows, found {list(texts[:3])}"
            )
        label = str(texts[0])
    return replace(series, static=static, label=label)
