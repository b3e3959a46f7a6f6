"""The list of samples that were skipped because they are bad, and the budget that ends a run with too many of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from modalign.zoo.errors import DataError


@dataclass
class Quarantine:
    """Counts skipped samples; the same sample counts once however often it is met.

    Attributes:
        total: Samples of all sources.
        budget: Share of them that may be skipped (at least one sample may); each rank counts what it meets.
        path: Where the list is written as JSON lines, if anywhere.
        entries: {(source, sample number): reason}.
    """

    total: int
    budget: float = 0.001
    path: Path | None = None
    entries: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def allowed(self) -> int:
        """How many samples may be skipped."""
        return math.ceil(self.total * self.budget)

    def add(self, skipped: Iterable[tuple[int, int, str]]) -> None:
        """Notes skipped samples.

        Raises:
            DataError: When there are more than the budget allows.
        """
        for source, number, reason in skipped:
            if (source, number) in self.entries:
                continue
            self.entries[source, number] = reason
            if self.path is not None:
                with open(self.path, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"source": source, "sample": number, "reason": reason}, ensure_ascii=False) + "\n")
        if len(self.entries) > self.allowed:
            last = next(reversed(self.entries.values()))
            raise DataError(
                f"{len(self.entries)} bad samples were skipped, more than the budget of {self.allowed} "
                f"({self.budget:.2%} of {self.total}); the last one: {last}"
            )
