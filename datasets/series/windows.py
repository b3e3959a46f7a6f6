"""Windows of series as virtual samples: numbered in order, never stored, fetched a whole batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.zoo.errors import DataError

from .config import SeriesConfig
from .missing import KNOWN, POLICY, refuse_missing
from .series_set import Series, SeriesSet
from .split import Part, borders


@dataclass(frozen=True)
class Columns:
    """Which columns windows hold.

    Attributes:
        target: Predicted; the first channels.
        past: Past covariates; the channels behind.
        known: Known-future covariates.
        static: Numbers of a series.
    """

    target: tuple[str, ...]
    past: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def scaled(self) -> tuple[str, ...]:
        """Columns that change in time."""
        return self.target + self.past + self.known


class WindowSet:
    """Every window of a part of a set of series.

    A window is `look_back` rows a model sees and `horizon` rows it predicts; the first ones look back into the part before. Without
    a horizon every row of a window is judged, so that windows lie inside the part. Only the rows are kept in memory, scaled once; a
    batch is one gather. Windows are numbered series by series, in time order. Like a set of shards it has sizes (windows per series),
    a fingerprint and keys, so that the same order function mixes it.

    Args:
        series: The set.
        config: How it is cut.
        columns: Which columns are used.
        scale: Column -> [mean, standard deviation].
        part: `train`, `val` or `test`.
        look_back: L.
        horizon: H; 0 for windows without a future.
        stride: Steps between the starts of windows.

    Raises:
        DataError: If there is no window at all, or values are missing in a known-future column or where `config.missing` refuses them.
    """

    def __init__(
        self,
        series: SeriesSet,
        config: SeriesConfig,
        columns: Columns,
        scale: dict[str, list[float]],
        *,
        part: Part,
        look_back: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        self.series, self.columns, self.part = series, columns, part
        self.look_back, self.horizon, self.stride, self.scale = look_back, horizon, stride, scale
        self.store, self.folder = SimpleNamespace(name=series.name), series.name
        ranges = [_rows_of(series, number, config, part, look_back, horizon) for number in range(len(series))]
        counts = [max(0, (end - first - look_back - horizon) // stride + 1) for first, end in ranges]
        if not sum(counts):
            raise DataError(_no_window(series, part, ranges, look_back, horizon))
        kept = [number for number, count in enumerate(counts) if count]
        self.left_out = [series.series[number].key for number, count in enumerate(counts) if not count]
        self.shard_sizes = [counts[number] for number in kept]
        self._series, self._first_row = np.array(kept), np.array([ranges[number][0] for number in kept])
        self._ends = np.cumsum(self.shard_sizes)
        lengths = [ranges[number][1] - ranges[number][0] for number in kept]
        self._offset = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        starts = [first + stride * np.arange(count) for first, count in zip(self._offset, self.shard_sizes, strict=True)]
        self._start = torch.from_numpy(np.concatenate(starts))  # of every window, in the rows of all series together
        rows = np.concatenate([_scaled(series, number, columns.scaled, scale, *ranges[number]) for number in kept])
        missing, channels = np.isnan(rows), len(columns.target) + len(columns.past)
        self._refuse(missing[:, channels:], columns.known, KNOWN)
        if config.missing == "error":
            self._refuse(missing, columns.scaled, POLICY)
        self.has_missing = bool(missing.any())
        self._rows = _Rows(np.where(missing, 0, rows).astype(np.float32), channels, look_back + horizon)
        self._observed = _Rows(~missing, channels, look_back + horizon) if self.has_missing else None
        self._static = static_of([series.series[number] for number in kept], columns.static)

    def _refuse(self, missing: np.ndarray, columns: Sequence[str], why: str) -> None:
        """Refuses missing values, of the rows of all series together; rows are counted in their own series."""
        for place, part in enumerate(np.split(missing, self._offset[1:])):
            refuse_missing(
                self.series.name, self.series.series[int(self._series[place])], columns, part, why, int(self._first_row[place])
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def fingerprint(self) -> str:
        """A hash of what windows hold; equal for copies of the same data cut alike."""
        cut = (self.columns, self.scale, self.part, self.look_back, self.horizon, self.stride, self.shard_sizes)
        return hashlib.sha256(f"{self.series.fingerprint}{cut!r}{self._first_row.tolist()}".encode()).hexdigest()[:16]

    def locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(series, first row in that series) of windows by number."""
        place = np.searchsorted(self._ends, numbers, side="right")
        inside = numbers - np.concatenate([[0], self._ends[:-1]])[place]
        return self._series[place], self._first_row[place] + inside * self.stride

    def key(self, number: int) -> str:
        """SERIES@ROW, the first row of the window."""
        series, row = self.locate(np.array([number]))
        return f"{self.series.series[int(series[0])].key}@{int(row[0])}"

    def check_cache(self, window: int) -> None:
        """As of a set of shards; windows lie in memory."""

    def batch(self, numbers: Sequence[int] | np.ndarray, draws: Sequence[tuple[int, ...]] = ()) -> dict[str, Any]:
        """The named tensors of some windows; see `modalign.zoo.series.base.SeriesModel` for their shapes. Nothing is drawn at random."""
        chosen = torch.from_numpy(np.asarray(numbers, dtype=np.int64))
        start = self._start.index_select(0, chosen)
        batch = self._cut(self._rows, start)
        if self._observed is not None:
            cut = self._cut(self._observed, start)
            batch |= {"observed": cut["values"]}
            batch |= {"target_observed": cut["target"]} if self.horizon else {}
        if self._static is not None:
            batch["static"] = self._static[np.searchsorted(self._ends, chosen.numpy(), side="right")]
        return batch

    def _cut(self, rows: _Rows, start: Tensor) -> dict[str, Any]:
        window, targets = rows.windows(start), len(self.columns.target)
        if not self.horizon:
            batch = {"values": window}
        else:
            past, future = window.split_with_sizes((self.look_back, self.horizon), 1)
            batch = {"values": past, "target": future if targets == len(self.columns.scaled) else future[..., :targets]}
        if self.columns.known:
            batch |= {"values": batch["values"][..., : rows.channels], "known": window[..., rows.channels :]}
        return batch


class _Rows:
    """Rows (R, C) of which windows of some length are gathered as blocks of memory."""

    def __init__(self, rows: np.ndarray, channels: int, length: int) -> None:
        self.rows, self.channels, self.length = torch.from_numpy(np.ascontiguousarray(rows)), channels, length
        self._lay()

    def _lay(self) -> None:
        """Lays the blocks over the rows: (R - length + 1, length · C), no copy."""
        count, width = self.rows.shape
        self.blocks = self.rows.as_strided((count - self.length + 1, self.length * width), (width, 1))

    def windows(self, start: Tensor) -> Tensor:
        """(B, length, C): rows `start` to `start + length - 1`."""
        return self.blocks.index_select(0, start).view(-1, self.length, self.rows.shape[1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "blocks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lay()


def _rows_of(series: SeriesSet, number: int, config: SeriesConfig, part: Part, look_back: int, horizon: int) -> tuple[int, int]:
    """Rows the windows of a part may touch: those of the part and, where something behind them is predicted, the look-back before it."""
    found = borders(series.series[number], config.split)
    first, end = found[part]
    if part == "train" and config.few_shot is not None:
        end = first + int((end - first - look_back) * config.few_shot // 100) + look_back
    return (first, end) if config.split == "none" or not horizon else (max(0, first - look_back), end)


def _scaled(
    series: SeriesSet, number: int, columns: Sequence[str], scale: dict[str, list[float]], first: int, end: int
) -> np.ndarray:
    places = [series.columns.index(column) for column in columns]
    mean, std = np.array([scale[column] for column in columns]).T
    return (series.series[number].values[first:end][:, places] - mean) / std


def static_of(series: Sequence[Series], names: Sequence[str]) -> Tensor | None:
    """(N, S) static numbers of some series, in their own units; None if none are asked for.

    Args:
        series: N series.
        names: S names.
    """
    return torch.tensor([[float(one.static[name]) for name in names] for one in series]) if names else None


def _no_window(series: SeriesSet, part: str, ranges: Sequence[tuple[int, int]], look_back: int, horizon: int) -> str:
    rows = max(0, max((end - first for first, end in ranges), default=0))
    which = "its only series" if len(ranges) == 1 else f"the longest of its {len(ranges)} series"
    need, has, shorten = f"{look_back} rows, all inside the part", f"has {rows} there", "model.look_back"
    if horizon:
        need = f"{look_back} rows of look-back and {horizon} of horizon, {look_back + horizon} together"
        has, shorten = f"{has} (look-back included)", f"{shorten} or model.horizon"
    return (
        f"{series.name}: the {part} part has no window: a window takes {need}, and {which} {has}; shorten {shorten}, or give the part "
        "more rows with data.series.split (or data.series.few_shot)"
    )
