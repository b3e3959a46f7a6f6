import numpy as np
import pytest

from modalign.datasets.loading.order import epoch_order, permutation, stable_hash
from modalign.zoo.errors import DataError

MASK = 2**64 - 1


@pytest.mark.parametrize("sizes", [[7], [1, 1, 1], [5, 3, 9, 2, 8, 8, 1], [10] * 40])
def test_every_sample_exactly_once(sizes):
    for epoch in range(3):
        assert sorted(epoch_order(sizes, 3, epoch).tolist()) == list(range(sum(sizes)))


def test_depends_on_seed_epoch_and_stream_only():
    sizes = [10] * 40
    first = epoch_order(sizes, 1, 0)
    assert (first == epoch_order(list(sizes), 1, 0)).all()
    for other in (epoch_order(sizes, 2, 0), epoch_order(sizes, 1, 1), epoch_order(sizes, 1, 0, stream=1)):
        assert (first != other).mean() > 0.9


def test_numbers_are_pinned():
    """A run must resume in the same order after any upgrade: these numbers may never change."""
    assert epoch_order([3, 4, 5], 0, 0).tolist() == [9, 0, 11, 7, 8, 1, 3, 10, 2, 5, 6, 4]
    assert permutation(8, "x", 1).tolist() == [5, 4, 2, 1, 3, 0, 7, 6]


def test_window_keeps_shards_together():
    order = epoch_order([10] * 40, 5, 0, window=4)
    shards = order.reshape(10, 40) // 10
    for row in shards:
        assert len(set(row.tolist())) == 4  # a window visits its four shards and no other
        assert len(set(row[:10].tolist())) > 1  # and mixes them
    assert sorted({shard for row in shards for shard in set(row.tolist())}) == list(range(40))


def test_against_a_slow_hash():
    """The vectorised hash equals the same arithmetic in Python's unlimited integers."""
    import hashlib

    digest = hashlib.sha256(b"str:a/int:4").digest()
    start, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little") | 1
    for value in (0, 1, 17, 10**12):
        mixed = (value * step + start) & MASK
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = ((mixed ^ (mixed >> shift)) * factor) & MASK
        assert int(stable_hash(np.array([value]), "a", 4)[0]) == mixed ^ (mixed >> 31)


def test_positions_are_uniform():
    """Over many epochs every sample is as often in the first half as in the second."""
    halves = np.zeros(64)
    for epoch in range(400):
        halves[epoch_order([8] * 8, 9, epoch, window=2)[:32]] += 1
    assert abs(halves / 400 - 0.5).max() < 0.13


def test_bad_window():
    with pytest.raises(DataError, match="window"):
        epoch_order([1], 0, 0, window=0)
