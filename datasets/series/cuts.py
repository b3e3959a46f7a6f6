"""Many short series, each cut once: at random for training, at its end for evaluation (the protocol of the M4 competition)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from modalign.zoo.errors import DataError

from .series_set import SeriesSet
from .split import Part
from .windows import Columns


class CutSet:
    """One cut of every series: up to `look_back` values before it, up to `horizon` values behind it.

    For training the cut is drawn anew each time, uniformly in `[max(1, n - history · horizon), n)`, n the rows that are left without the
    last two horizons; validation predicts the last horizon but one, the test the last. What there is stands at the right of the look-back
    and at the left of the horizon; the rest is 0 and marked as missing.

    Args:
        series: The set.
        columns: Which columns are used.
        scale: Column -> [mean, standard deviation]; [0, 1] for the usual protocol, which scales nothing.
        part: `train`, `val` or `test`.
        look_back: L.
        horizon: H.
        history: How far back training cuts lie, in horizons.

    Raises:
        DataError: If no series is long enough.
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
    ) -> None:
        self.series, self.columns, self.part = series, columns, part
        self.look_back, self.horizon, self.history = look_back, horizon, history
        self.store, self.folder = SimpleNamespace(name=series.name), series.name
        held_out = {"train": 2, "val": 1, "test": 0}[part] * horizon
        self._held_out, least = held_out, 2 if part == "train" else horizon + 1
        kept = [one for one in series.series if len(one) - held_out >= least]
        self.left_out = [one.key for one in series.series if len(one) - held_out < least]
        if not kept:
            raise DataError(
                f"{series.name}: no series has the {held_out + least} rows that its {part} part needs at model.horizon {horizon} "
                f"(the longest has {max(len(one) for one in series.series)}); shorten the horizon"
            )
        places = [series.columns.index(column) for column in columns.scaled]
        mean, std = np.array([scale[column] for column in columns.scaled]).T
        self._rows = [(one.values[: len(one) - held_out, places] - mean) / std for one in kept]
        self._keys, self.shard_sizes = [one.key for one in kept], [len(kept)]

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
        """`values`, `observed`, `target` and `target_observed`; see `modalign.zoo.series.base.SeriesModel` for their shapes."""
        count, channels, targets = len(numbers), len(self.columns.scaled), len(self.columns.target)
        values = np.full((count, self.look_back, channels), np.nan)
        target = np.full((count, self.horizon, targets), np.nan)
        for row, number in enumerate(np.asarray(numbers).tolist()):
            cut = self.cut(number, draws[row] if len(draws) else ())
            before, after = self._rows[number][max(0, cut - self.look_back) : cut], self._rows[number][cut : cut + self.horizon]
            values[row, self.look_back - len(before) :] = before
            target[row, : len(after)] = after[:, :targets]
        filled = {"values": values, "target": target}
        batch = {name: torch.from_numpy(np.nan_to_num(array, nan=0.0).astype(np.float32)) for name, array in filled.items()}
        batch["observed"], batch["target_observed"] = (torch.from_numpy(~np.isnan(array)) for array in filled.values())
        return batch
