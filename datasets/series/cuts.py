"""Many short series, each cut once: at random for training, at its end for evaluation (the protocol of the M4 competition)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch

from modalign.zoo.errors import DataError, RecipeError

from .missing import KNOWN, POLICY, refuse_missing
from .series_set import Series, SeriesSet
from .split import Part
from .windows import Columns, static_of


class CutSet:
    """One cut of every series: up to `look_back` values before it, up to `horizon` values behind it.

    For training the cut is drawn anew each time, uniformly in `[max(1, n - history · horizon), n)`, n the rows that are left without the
    last two horizons; validation predicts the last horizon but one, the test the last. What there is stands at the right of the look-back
    and at the left of the horizon; the rest is 0 and marked as missing. Known-future columns are given over both, behind a training cut as
    far as they go on in the series; before its first row they are 0.

    Args:
        series: The set.
        columns: Which columns are used.
        scale: Column -> [mean, standard deviation]; [0, 1] for the usual protocol, which scales nothing.
        part: `train`, `val` or `test`.
        look_back: L.
        horizon: H.
        history: How far back training cuts lie, in horizons.
        missing: `error` refuses missing values.

    Raises:
        RecipeError: If training cuts would lie in less than one row.
        DataError: If no series is long enough, or values are missing in a known-future column or where that is refused.
    """

    #: training cuts differ from epoch to epoch
    random = True

    def __init__(
        self,
        series: SeriesSet,
        columns: Columns,
        scale: dict[str, list[float]],
        *,
        part: Part,
        look_back: int,
        horizon: int,
        history: float,
        missing: Literal["mask", "error"] = "mask",
    ) -> None:
        self.series, self.columns, self.part = series, columns, part
        self.look_back, self.horizon, self.history = look_back, horizon, history
        self.store, self.folder = SimpleNamespace(name=series.name), series.name
        if part == "train" and history * horizon < 1:
            raise RecipeError(
                f"data.series.history: training cuts would lie in the last {history} · {horizon} (model.horizon) = {history * horizon:g} "
                f"rows of a series, which is less than one; give {-(-1000 // horizon) / 1000:g} or more"
            )
        held_out = {"train": 2, "val": 1, "test": 0}[part] * horizon
        self._held_out, least = held_out, 2 if part == "train" else horizon + 1
        kept = [one for one in series.series if len(one) - held_out >= least]
        self.left_out = [one.key for one in series.series if len(one) - held_out < least]
        if not kept:
            raise DataError(
                f"{series.name}: no series has the {held_out + least} rows that its {part} part needs at model.horizon {horizon} "
                f"(the longest has {max(len(one) for one in series.series)}); shorten the horizon"
            )
        self._rows = [_scaled(one, series, columns.target + columns.past, scale, len(one) - held_out) for one in kept]
        self._known = [_scaled(one, series, columns.known, scale, len(one)) for one in kept]
        for one, rows, known in zip(kept, self._rows, self._known, strict=True):
            refuse_missing(series.name, one, columns.known, np.isnan(known), KNOWN)
            if missing == "error":
                refuse_missing(series.name, one, columns.target + columns.past, np.isnan(rows), POLICY)
        self._keys, self.shard_sizes = [one.key for one in kept], [len(kept)]
        self._static = static_of(kept, columns.static)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def fingerprint(self) -> str:
        """A hash of what the cuts hold."""
        text = f"{self.series.fingerprint}{self.columns!r}{self.look_back}/{self.horizon}/{self.history}/{self.part}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def key(self, number: int) -> str:
        """The series' key."""
        return self._keys[number]

    def check_cache(self, window: int) -> None:
        """As of a set of shards; the series lie in memory."""

    def cut(self, number: int, draw: tuple[int, ...] = ()) -> int:
        """The first row that is predicted.

        Args:
            number: Of the series.
            draw: What a training cut depends on: (seed, epoch, place).
        """
        rows = len(self._rows[number])
        if self.part != "train":
            return rows - self.horizon
        first = max(1, rows - int(self.history * self.horizon))
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([value % 2**64 for value in draw])))
        return int(generator.integers(first, rows))

    def past(self, number: int) -> np.ndarray:
        """(n, C) everything before what is predicted, for scales of errors; scaled, NaN where missing."""
        return self._rows[number][: self.cut(number)]

    def batch(self, numbers: Sequence[int] | np.ndarray, draws: Sequence[tuple[int, ...]] = ()) -> dict[str, Any]:
        """`values`, `observed`, `target`, `target_observed`, and with such columns `known`, `static`; see `SeriesModel` for shapes."""
        count, targets = len(numbers), len(self.columns.target)
        values = np.full((count, self.look_back, targets + len(self.columns.past)), np.nan)
        target = np.full((count, self.horizon, targets), np.nan)
        known = np.zeros((count, self.look_back + self.horizon, len(self.columns.known)))
        for row, number in enumerate(np.asarray(numbers).tolist()):
            cut = self.cut(number, draws[row] if len(draws) else ())
            start = max(0, cut - self.look_back)
            padding = self.look_back - (cut - start)
            before, after = self._rows[number][start:cut], self._rows[number][cut : cut + self.horizon]
            values[row, padding:] = before
            target[row, : len(after)] = after[:, :targets]
            known[row, padding:] = self._known[number][start : cut + self.horizon]
        filled = {"values": values, "target": target}
        batch = {name: torch.from_numpy(np.nan_to_num(array, nan=0.0).astype(np.float32)) for name, array in filled.items()}
        batch["observed"], batch["target_observed"] = (torch.from_numpy(~np.isnan(array)) for array in filled.values())
        if self.columns.known:
            batch["known"] = torch.from_numpy(known.astype(np.float32))
        if self._static is not None:
            batch["static"] = self._static[np.asarray(numbers)]
        return batch


def _scaled(one: Series, series: SeriesSet, columns: Sequence[str], scale: dict[str, list[float]], end: int) -> np.ndarray:
    """(end, K) some columns of the first rows."""
    places = [series.columns.index(column) for column in columns]
    mean, std = np.array([scale[column] for column in columns]).reshape(-1, 2).T
    return (one.values[:end][:, places] - mean) / std
