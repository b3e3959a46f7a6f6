from collections import Counter

import pytest

from modalign.datasets.loading.order import epoch_order
from modalign.datasets.loading.plan import BatchPlan, apportion, check_world, rank_slice
from modalign.zoo.errors import DataError

SIZES = [10, 7, 3]


def test_one_source_is_its_epoch_order():
    plan = BatchPlan([SIZES], None, 6, seed=4)
    assert len(plan) == 3
    for epoch in (0, 1, 5):
        samples = [draw.sample for batch in range(3) for draw in plan.batch(epoch, batch)]
        assert samples == epoch_order(SIZES, 4, epoch)[:18].tolist()
        assert [draw.draw for draw in plan.batch(epoch, 1)] == list(range(6, 12))


def test_only_the_last_incomplete_batch_is_dropped():
    kept = BatchPlan([SIZES], None, 6, seed=4, drop_last=False)
    assert len(kept) == 4
    assert len(kept.batch(0, 3)) == 2
    assert kept.batch(0, 2) == BatchPlan([SIZES], None, 6, seed=4).batch(0, 2)


@pytest.mark.parametrize("world", [w for w in range(1, 65) if 64 % w == 0])
def test_ranks_make_up_the_global_batch(world):
    plan = BatchPlan([[50, 50], [33]], [1, 1], 64, seed=0)
    for batch in range(len(plan)):
        whole = plan.batch(1, batch)
        parts = [rank_slice(whole, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {64 // world}
        assert [draw for part in parts for draw in part] == whole


@pytest.mark.parametrize("world", [w for w in range(2, 65) if 64 % w])
def test_world_must_divide_the_batch(world):
    with pytest.raises(DataError, match=rf"batch_size 64 .* world size, which is {world}"):
        check_world(64, world)


def test_mixture_against_a_slow_walk():
    """Sources are followed draw by draw with plain queues that are refilled pass by pass."""
    sources, weights, per_epoch = [[5, 4], [3], [20, 10]], [2, 1, 1], 16
    plan = BatchPlan(sources, weights, 4, seed=11, samples_per_epoch=per_epoch)
    assert plan.draws == [8, 4, 4]
    queues, passes = [[], [], []], [0, 0, 0]
    for epoch in range(9):
        draws = [draw for batch in range(len(plan)) for draw in plan.batch(epoch, batch)]
        assert Counter(draw.source for draw in draws) == {0: 8, 1: 4, 2: 4}
        for source, sample, _ in draws:
            if not queues[source]:
                queues[source] = epoch_order(sources[source], 11, passes[source], stream=source).tolist()
                passes[source] += 1
            assert sample == queues[source].pop(0)
    assert passes == [8, 12, 2]


def test_sources_are_mixed_within_an_epoch():
    plan = BatchPlan([[500], [500]], None, 50, seed=0)
    shares = [sum(draw.source for draw in plan.batch(0, batch)) / 50 for batch in range(20)]
    assert max(shares) < 0.85 and min(shares) > 0.15 and len(set(shares)) > 3


def test_any_batch_in_any_order():
    plan, other = (BatchPlan([[9, 9], [4]], [3, 1], 5, seed=2) for _ in range(2))
    forward = {(epoch, batch): plan.batch(epoch, batch) for epoch in range(3) for batch in range(len(plan))}
    for place in reversed(list(forward)):
        assert other.batch(*place) == forward[place]


def test_apportion():
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert apportion(7, [0.2, 0.5, 0.3]) == [1, 4, 2]
    assert sum(apportion(1_000_003, [0.1] * 7)) == 1_000_003


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([SIZES], None, 21, 0), "batch_size 21 is more than the 20 samples"),
        (([SIZES], [1, 2], 4, 0), "one positive number"),
        (([SIZES, [4]], [1, 0], 4, 0), "one positive number"),
        (([SIZES, [4]], [1, 0.001], 4, 0), "source 1 gets no sample"),
        (([[0]], None, 4, 0), "sources with samples"),
    ],
)
def test_impossible_plans(arguments, message):
    with pytest.raises(DataError, match=message):
        BatchPlan(*arguments)
    with pytest.raises(DataError, match="no batch 3"):
        BatchPlan([SIZES], None, 6, 0).batch(0, 3)
