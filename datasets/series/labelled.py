"""Labelled series as samples: a series is one window with a class."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch

from modalign.zoo.errors import DataError, nearest

from .missing import POLICY, refuse_missing
from .series_set import SeriesSet
from .windows import Columns


class LabelledSet:
    """One window of every series, its last `look_back` rows, with the number of its class.

    Args:
        series: The set; every series has a label.
        columns: Which columns are used; all of them are channels.
        scale: Column -> [mean, standard deviation].
        labels: The classes in the order of their numbers.
        look_back: L.
        without: Keys of series to leave out, such as those shown as examples.
        missing: `error` refuses missing values in the rows that are read.

    Raises:
        DataError: If a series has no label, a class nobody knows, too few rows, or values are missing where that is refused.
    """

    def __init__(
        self,
        series: SeriesSet,
        columns: Columns,
        scale: dict[str, list[float]],
        labels: Sequence[str],
        *,
        look_back: int,
        without: Collection[str] = (),
        missing: Literal["mask", "error"] = "mask",
    ) -> None:
        self.series, self.columns, self.look_back, self.horizon = series, columns, look_back, 0
        self.store, self.folder, self.left_out = SimpleNamespace(name=series.name), series.name, [*without]
        kept = [one for one in series.series if one.key not in without]
        self._keys = [one.key for one in kept]
        places = [series.columns.index(column) for column in columns.scaled]
        mean, std = np.array([scale[column] for column in columns.scaled]).T
        for one in kept:
            if len(one) < look_back:
                raise DataError(
                    f"{series.name}: series {one.key!r} has {len(one)} rows, model.look_back is {look_back}; shorten it, or leave the "
                    "series out"
                )
        rows = np.stack([(one.values[-look_back:][:, places] - mean) / std for one in kept])
        absent = np.isnan(rows)
        for one, of_one in zip(kept, absent, strict=True) if missing == "error" else ():
            refuse_missing(series.name, one, columns.scaled, of_one, POLICY, len(one) - look_back)
        self._values = torch.from_numpy(np.where(absent, 0, rows).astype(np.float32))
        self._observed = torch.from_numpy(~absent) if absent.any() else None
        self.labels = torch.tensor([_number(one.label, labels, f"{series.name}: series {one.key!r}") for one in kept])
        self.shard_sizes = [len(kept)]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def fingerprint(self) -> str:
        """A hash of what the samples hold."""
        text = f"{self.series.fingerprint}{self.columns!r}{self.look_back}{sorted(self.left_out)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def key(self, number: int) -> str:
        """The series' key."""
        return self._keys[number]

    def check_cache(self, window: int) -> None:
        """As of a set of shards; the series lie in memory."""

    def batch(self, numbers: Sequence[int] | np.ndarray, draws: Sequence[tuple[int, ...]] = ()) -> dict[str, Any]:
        """`values` (B, L, C), `label` (B,), and `observed` where values are missing."""
        rows = torch.as_tensor(np.asarray(numbers, dtype=np.int64))
        batch: dict[str, Any] = {"values": self._values[rows], "label": self.labels[rows]}
        if self._observed is not None:
            batch["observed"] = self._observed[rows]
        return batch


def _number(label: str | None, labels: Sequence[str], where: str) -> int:
    if label is None:
        raise DataError(f"{where}: it has no label; name the column of classes with data.series.label")
    if label not in labels:
        raise DataError(f"{where}: its class {label!r} was not among those trained on{nearest(label, labels)}")
    return list(labels).index(label)
