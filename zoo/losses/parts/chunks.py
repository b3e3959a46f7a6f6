"""Cutting a batch into chunks of samples, as `cached_forward` wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import AssemblyError


def split_rows(batch: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    """Cuts a batch into chunks of at most `rows` samples.

    Args:
        batch: Named entries. A tensor or list with as many rows as there are samples is cut, one with K times as many (K negatives per
            sample, in the samples' order) too; the number of samples is the smallest length there is. Everything else goes into every
            chunk.
        rows: Samples per chunk; the last chunk may have fewer.

    Raises:
        AssemblyError: If `rows` is not positive, if there is nothing to cut, or if an entry's length is no multiple of the number of
            samples.
    """
    lengths = {name: len(value) for name, value in batch.items() if _has_rows(value)}
    if rows < 1 or not lengths:
        raise AssemblyError(f"cannot cut a batch of {', '.join(sorted(batch)) or 'nothing'} into chunks of {rows} rows")
    samples = min(lengths.values())
    for name, length in lengths.items():
        if length % max(samples, 1):
            raise AssemblyError(
                f"entry {name!r} has {length} rows, which is no multiple of the batch's {samples} samples; pad it"
            )
    starts = range(0, samples, rows) if samples else (0,)
    return [{name: _cut(value, start, rows, lengths.get(name, 0), samples) for name, value in batch.items()} for start in starts]


def _has_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim > 0)


def _cut(value: Any, start: int, rows: int, length: int, samples: int) -> Any:
    if not _has_rows(value):
        return value
    each = length // max(samples, 1)
    return value[start * each : (start + rows) * each]
