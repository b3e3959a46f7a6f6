"""Damaged shards: refused before a sample of them is used, or skipped and counted; never half a sample."""

import json
import os

import pytest

from modalign.datasets.commands.check import check
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.tarwalk import walk
from modalign.datasets.shards.verify import sha256_of
from modalign.zoo.errors import DataError

BAD = "000002.tar"  # samples 18 to 26 of 50


def damage(path, kind):
    """Damages a tar as its second sample; returns the offset of what is wrong, None where there is none to tell."""
    data = bytearray(path.read_bytes())
    member = list(walk(path))[4]
    boundary = member.offset + -(-member.size // 512) * 512
    if kind == "missing":
        path.unlink()
        return None
    if kind == "empty":
        data, offset = b"", 0
    elif kind == "cut in data":
        data, offset = data[: member.offset + member.size // 2], member.offset
    elif kind == "cut at a member":
        data, offset = data[:boundary], boundary
    elif kind == "cut in a header":
        data, offset = data[: member.start + 200], member.start
    elif kind == "header checksum":
        data[member.start + 150] ^= 1
        offset = member.start
    elif kind == "garbage":
        data[:2048], offset = os.urandom(2048), 0
    elif kind == "wrong sha":
        data[member.offset] ^= 1
        offset = None
    path.write_bytes(data)
    return offset


KINDS = ["cut in data", "cut at a member", "cut in a header", "header checksum", "garbage", "empty", "missing", "wrong sha"]


def example(sample, rng):
    return {"members": sample.members, "key": sample.key}


def loader(source, **settings):
    plan = BatchPlan([source.shard_sizes], None, 10, 3)
    return Loader([source], plan, example, lambda rows: {"rows": rows}, raw=True, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_that_names_shard_and_offset(shards, kind):
    """Fault 8. What changes a tar's size is found before training starts, the rest when the shard is first opened."""
    offset = damage(shards / BAD, kind)
    with pytest.raises(DataError, match=BAD) as caught:
        source = ShardSet(shards)
        assert kind in ("header checksum", "garbage", "wrong sha"), "the size gives it away"
        source.read(20)
    if offset is not None:
        assert f"offset {offset}" in str(caught.value)
    with pytest.raises(DataError, match=BAD):
        check(str(shards))


@pytest.mark.parametrize(("kind", "workers"), [*((kind, 0) for kind in KINDS), ("cut at a member", 2), ("wrong sha", 2)])
def test_damage_is_skipped_and_counted(shards, kind, workers, tmp_path):
    """Fault 8 with on_error: skip: no sample of the shard comes through, every other one whole, and each is counted once."""
    whole = {raw.key: raw.members for raw in ShardSet(shards).samples()}
    damage(shards / BAD, kind)
    source = ShardSet(shards, on_error="skip")
    one = loader(source, on_error="skip", error_budget=0.2, quarantine_file=tmp_path / "bad.jsonl", num_workers=workers)
    seen = [row for _ in range(2) for batch in one for row in batch["rows"]]
    assert len(seen) == 100
    assert all(row["members"] == whole[row["key"]] for row in seen), "no half sample, no changed one"
    assert not {row["key"] for row in seen} & {f"k{n:04d}" for n in range(18, 27)}
    assert one.quarantine.by_shard() == {str(shards / BAD): 9}
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(line["sample"] for line in lines) == list(range(18, 27)) and {line["key"] for line in lines} <= {
        f"k{n:04d}" for n in range(18, 27)
    }
    assert f"{shards / BAD}: 9" in one.quarantine.summary()


def test_the_budget_ends_it(shards):
    """Fault 8: the default budget is a thousandth of the samples."""
    damage(shards / BAD, "wrong sha")
    with pytest.raises(DataError, match=rf"\d bad samples were skipped, more than the budget of 1 .*{BAD}"):
        for _ in range(3):
            list(loader(ShardSet(shards, on_error="skip"), on_error="skip"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("missing", "wrong sha")])
def test_without_a_manifest_the_walk_finds_it(shards, kind):
    """Fault 8 for shards of others: indexing walks every header."""
    for path in [*shards.glob("*.json")]:
        path.unlink()
    offset = damage(shards / BAD, kind)
    with pytest.raises(DataError, match=rf"{BAD}: offset {offset}"):
        ShardSet(shards)
    assert not (shards / "shards.json").exists()


def test_a_shard_swapped_for_another_good_one(shards):
    """Fault 8, wrong sha: same size, intact, but not the one the manifest names."""
    whole = (shards / BAD).read_bytes()
    other = whole.replace(b"caption 20", b"caption 02")
    (shards / BAD).write_bytes(other)
    assert len(other) == len(whole) and sha256_of(shards / BAD)
    with pytest.raises(DataError, match="the tar's structure is intact, so bytes inside members"):
        ShardSet(shards).read(18)
