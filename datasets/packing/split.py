"""`modalign data split`: one folder of shards -> several, with related samples kept together."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.sample import decode_sample
from ..home import local_path
from ..remote.access import remote_of
from ..shards.shard_set import ShardSet
from ..shards.writer import write_shards
from .pack import describe


def split(
    shards: str,
    out: str,
    *,
    fractions: dict[str, float] | None = None,
    by: str = "group",
    seed: int = 0,
    samples_per_shard: int = 1000,
    allow_remote: list[str] | None = None,
) -> None:
    """Splits a folder of shards into ``out/NAME`` for each named fraction.

    A sample goes where the hash of its group says: groups (near-duplicates, one scene, one speaker ...) stay together,
    and adding samples later moves none of the others. So the sizes are the fractions on average, not exactly.

    Args:
        shards: The folder to split.
        out: Folder to make the parts in.
        fractions: Share of each part, e.g. ``{"train": 0.9, "test": 0.1}`` (the default); they add up to 1.
        by: The field that groups samples ("group"); "key" = every sample by itself. A sample without it is an error.
        seed: Another seed gives another split.
        samples_per_shard: Samples in a tar.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.

    Raises:
        DataError: If the fractions are wrong, a sample has no such field, or a part would be empty.
    """
    parts = fractions or {"train": 0.9, "test": 0.1}
    _check_fractions(parts)
    source = ShardSet(shards, remote=remote_of(allow_remote))
    chosen: dict[str, list[int]] = {name: [] for name in parts}
    for number in range(len(source)):
        chosen[part_of(_group(source, number, by), parts, seed)].append(number)
    for name, numbers in chosen.items():
        if not numbers:
            raise DataError(
                f"{source.folder}: no sample falls into {name!r} ({parts[name]:.1%}); there are too few groups by {by!r}"
            )
    for name, numbers in chosen.items():
        target = local_path(out) / name
        origin = f"{source.folder.name}, {name} by {by}, seed {seed}"
        manifest = write_shards(
            _samples(source, numbers), target, task=source.manifest.task, samples_per_shard=samples_per_shard, source=origin
        )
        print(describe(manifest, target))


def part_of(group: str, fractions: dict[str, float], seed: int) -> str:
    """Returns the part a group belongs to: a pure function of the group's name and the seed."""
    digest = hashlib.sha256(f"{seed}/{group}".encode()).digest()
    place, edge = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, fraction in fractions.items():
        edge += fraction
        if place < edge:
            return name
    return next(reversed(fractions))


def _check_fractions(fractions: dict[str, float]) -> None:
    wrong = [name for name in fractions if not name or set(name) & set("/\\\0") or name.startswith(".")]
    if wrong:
        raise DataError(f"{wrong[0]!r} cannot be the name of a part (a plain folder name)")
    if any(not 0 < value <= 1 for value in fractions.values()) or not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
        raise DataError(f"fractions {fractions} must be positive and add up to 1")


def _group(source: ShardSet, number: int, by: str) -> str:
    raw = source.read(number, ["json"] if by != "key" else [])
    if by == "key":
        return raw.key
    value = decode_sample(raw).meta.get(by)
    if value is None:
        raise DataError(f"{raw.shard}: sample {raw.key!r} has no field {by!r} to split by; name another one, or `--by key`")
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _samples(source: ShardSet, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yields samples as `write_shards` takes them, media untouched."""
    for number in numbers:
        raw = source.read(number)
        texts = decode_sample(raw, [ext for ext in ("txt", "json") if ext in raw.members])
        media = {ext: data for ext, data in raw.members.items() if ext not in ("txt", "json")}
        yield {"key": raw.key, "members": media, "captions": texts.captions, **texts.meta}
