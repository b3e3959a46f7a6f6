"""`modalign data series`: a table of series -> shards."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..home import local_path
from ..shards.manifest import counted
from .frequency import said
from .series_set import Series, SeriesSet
from .stored import write_series
from .table_options import require_table


def pack_series(
    table: str,
    *,
    out: str,
    time: str | None = None,
    id: str | None = None,
    label: str | None = None,
    layout: Literal["wide", "long"] = "wide",
    variable: str | None = None,
    value: str | None = None,
    static: list[str] | None = None,
    ignore: list[str] | None = None,
    frequency: str | None = None,
    missing: list[str] | None = None,
    time_format: str | None = None,
    delimiter: str = "",
    decimal: str = ".",
    samples_per_shard: int = 1000,
) -> None:
    """Packs a table of time series into shards; a series is one sample.

    Every series is checked and put on one step: gaps become rows of missing values. Nothing is written if anything is wrong.

    Args:
        table: A .csv, .tsv (also .gz) or .parquet file.
        out: Folder to make; it must be absent or empty.
        time: Column with the times; found by name or content if not given; `none` takes the rows as they come.
        id: Column that tells several series apart.
        label: Column with a series' class.
        layout: `wide` has a row per time and a column per channel, `long` a row per value.
        variable: (long) Column that names the channel.
        value: (long) Column that holds the value.
        static: Columns that hold one number per series.
        ignore: Columns to leave out.
        frequency: Step between rows as pandas writes it (h, 15min, D, MS); inferred if not given, checked if given.
        missing: Further texts that stand for a missing value, such as -9999; always: an empty cell, ?, NA, N/A, NaN, null, None.
        time_format: How times are written, e.g. %d/%m/%Y %H:%M; s, ms, us or ns for Unix time.
        delimiter: What separates the cells of a text table; found out if not given.
        decimal: Decimal mark of numbers; a comma is found out where cells are separated by something else.
        samples_per_shard: Series in a tar.

    Raises:
        DataError: Naming file, series, row and column.
    """
    found = SeriesSet.open(
        require_table(table),
        time=time,
        id=id,
        label=label,
        layout=layout,
        variable=variable,
        value=value,
        static=static or (),
        ignore=ignore or (),
        frequency=frequency,
        missing=missing or (),
        time_format=time_format,
        delimiter=delimiter,
        decimal=decimal,
    )
    source = local_path(table).name
    manifest = write_series(found.series, out, source=source, samples_per_shard=samples_per_shard)
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    print(f"{out}: {summary(found)}, in {counted(len(manifest.shards), 'shard')}, {size:.1f} MB")
    for note in found.notes:
        print(f"note: {note}")


def summary(found: SeriesSet) -> str:
    """What a set holds, in one line: series, rows, columns, step, from when to when, share of missing values."""
    lengths = [len(one) for one in found.series]
    rows = f"{lengths[0]} rows" if len(set(lengths)) == 1 else f"{min(lengths)} to {max(lengths)} rows"
    shown = ", ".join(found.columns[:8]) + (", ..." if len(found.columns) > 8 else "")
    cells = sum(one.values.size for one in found.series)
    missing = sum(int(np.isnan(one.values).sum()) for one in found.series) / cells
    labels = f", {counted(len(found.labels), 'class').replace('classs', 'classes')}" if found.labels else ""
    static = f", static: {', '.join(found.static)}" if found.static else ""
    return (
        f"{len(found)} series of {rows} x {counted(len(found.columns), 'column')} ({shown}){static}{labels}; {_span(found.series)}; "
        f"missing: {missing:.2%} of the values"
    )


def _span(series: list[Series]) -> str:
    starts = [one.start for one in series if one.start is not None]
    if len(starts) != len(series):
        return "rows without time"
    last = max(one.times()[-1] for one in series)
    return f"step {series[0].frequency}, from {said(min(starts))} to {said(last)}"
