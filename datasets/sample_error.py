"""The error that is one sample's fault: it can be counted, listed and skipped."""

from __future__ import annotations

from typing import Any

from modalign.zoo.errors import DataError


class SampleError(DataError):
    """Something is wrong with one sample; the message says where.

    Attributes:
        shard: Path or address of the shard.
        key: The sample's key.
        field: The member at fault; "" if it is the sample as a whole.
        reason: What is wrong, without the place.
    """

    def __init__(self, shard: str, key: str, field: str, reason: str) -> None:
        super().__init__(f"{place_of(shard, key, field)}: {reason}")
        self.shard, self.key, self.field, self.reason = shard, key, field, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.shard, self.key, self.field, self.reason)


def place_of(shard: str, key: str, field: str = "") -> str:
    """Returns how messages name a sample: ``SHARD: sample KEY, field EXT``."""
    return f"{shard}: sample {key!r}" + (f", field {field!r}" if field else "")
