"""The list of samples that were skipped because they are bad, and the budget that ends a run with too many of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

_FIELDS = {"source": int, "sample": int, "shard": str, "key": str, "field": str, "reason": str}


@dataclass(frozen=True)
class Skipped:
    """A sample that was skipped.

    Attributes:
        source: Number of its source in the mixture.
        sample: Its number in that source.
        shard: Path or address of its shard.
        key: Its key ("" if even that is not known).
        field: The member at fault ("" if it is the sample or shard as a whole).
        reason: What is wrong, as a sentence.
    """

    source: int
    sample: int
    shard: str
    key: str
    field: str
    reason: str


@dataclass
class Quarantine:
    """Counts skipped samples; the same sample counts once however often it is met, by whichever rank, before or after a resume.

    The list is a JSON-lines file, one per rank (`quarantine.jsonl`, `quarantine-rank1.jsonl`, ...), written at once. The files of a run
    are read back at the start and looked at again whenever a sample is added, so that the budget is one for all ranks.

    Attributes:
        total: Samples of all sources.
        budget: Share of them that may be skipped (at least one sample may).
        path: Where the list is written, if anywhere.
        rank: This process' number.
        data: A hash of the data; lines about other data do not count.
        entries: (source, sample number) -> what was skipped.
    """

    total: int
    budget: float = 0.001
    path: Path | None = None
    rank: int = 0
    data: str = ""
    entries: dict[tuple[int, int], Skipped] = field(default_factory=dict)
    _read: dict[Path, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.budget <= 1:
            raise DataError(f"error_budget is {self.budget}; it is a share of all samples, between 0 and 1")
        self.refresh()

    @property
    def allowed(self) -> int:
        """How many samples may be skipped."""
        return math.ceil(self.total * self.budget)

    def add(self, skipped: Iterable[Skipped]) -> None:
        """Notes skipped samples.

        Raises:
            DataError: When there are more than the budget allows.
        """
        skipped = list(skipped)
        if not skipped:
            return
        if any((one.source, one.sample) not in self.entries for one in skipped):
            self.refresh()
        for one in skipped:
            if (one.source, one.sample) not in self.entries:
                self.entries[one.source, one.sample] = one
                self._write(one)
        if len(self.entries) > self.allowed:
            worst = ", ".join(f"{shard} {count}" for shard, count in list(self.by_shard().items())[:3])
            raise DataError(
                f"{len(self.entries)} bad samples were skipped, more than the budget of {self.allowed} "
                f"({self.budget:.2%} of {self.total}); most in {worst}; the last one: {skipped[-1].reason}"
            )

    def by_shard(self) -> dict[str, int]:
        """Returns how many samples of each shard were skipped, the worst shard first."""
        return dict(Counter(one.shard for one in self.entries.values()).most_common())

    def summary(self) -> str:
        """Returns the counts per shard as lines to print, "" if nothing was skipped."""
        if not self.entries:
            return ""
        head = f"{len(self.entries)} bad samples were skipped (the budget is {self.allowed})" + (
            f", listed in {self.path}" if self.path else ""
        )
        return "\n".join([head, *(f"  {shard}: {count}" for shard, count in self.by_shard().items())])

    def refresh(self) -> None:
        """Takes in what the files say by now, of all ranks."""
        if self.path is None:
            return
        for file in sorted(self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}")):
            with open(file, "rb") as stream:
                stream.seek(self._read.get(file, 0))
                data = stream.read()
            lines = data[: data.rfind(b"\n") + 1]  # what comes after was cut off, or is being written
            self._read[file] = self._read.get(file, 0) + len(lines)
            for line in lines.splitlines():
                one = self._entry(file, line)
                if one is not None:
                    self.entries.setdefault((one.source, one.sample), one)

    def _entry(self, file: Path, line: bytes) -> Skipped | None:
        try:
            content: Any = json.loads(line)
            values = {name: content[name] for name in _FIELDS}
            if not all(isinstance(value, kind) for value, kind in zip(values.values(), _FIELDS.values(), strict=True)):
                raise TypeError("a value has the wrong type")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{file}: a line is not an entry of a quarantine list ({line[:80]!r}); move the file away") from error
        return Skipped(**values) if content.get("data", "") == self.data else None

    def _write(self, one: Skipped) -> None:
        if self.path is None:
            return
        path = self.path if self.rank == 0 else self.path.with_name(f"{self.path.stem}-rank{self.rank}{self.path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as stream:
            torn = stream.tell() > self._read.get(
                path, 0
            )  # a line that a killed process did not finish: end it, it counts for nothing
            line = json.dumps({**asdict(one), "data": self.data}, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
            if torn:
                stream.truncate(self._read.get(path, 0))
            stream.write(line)
            stream.flush()
            self._read[path] = stream.tell()


def skipped_of(source: int, sample: int, error: DataError, shard: str, key: str) -> Skipped:
    """Describes a skipped sample by the error it caused; shard and key are used where the error does not say them."""
    return Skipped(
        source, sample, getattr(error, "shard", shard), getattr(error, "key", key), getattr(error, "field", ""), str(error)
    )
