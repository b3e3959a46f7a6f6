"""Fault 17: a loader that is stuck or loses a worker is an error that names rank and loader, not a silent hang."""

import os
import threading
import time

import pytest

from modalign.datasets.loading.loader import EvalLoader, Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import DataError


class Trouble:
    """An example that does something at one sample; sleeping stands for a disk that does not answer."""

    def __init__(self, action, key="k0007"):
        self.action, self.key = action, key

    def __call__(self, sample, rng):
        if sample.key == self.key:
            self.action()
        return {"key": sample.key}


def hang():
    time.sleep(3)


def loader(shards, action, rank=1, **settings):
    source = ShardSet(shards)
    plan = BatchPlan([source.shard_sizes], None, 10, 3)
    return Loader([source], plan, Trouble(action), lambda rows: {}, rank=rank, world_size=2, **settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stuck_loader_says_who_it_is(shards, workers):
    source = ShardSet(shards)
    plan = BatchPlan([source.shard_sizes], None, 10, 3)
    place = plan.epoch(0)[1].tolist().index(7)
    rank = place % 10 // 5
    one = loader(shards, hang, rank=rank, num_workers=workers, timeout=1.0)
    with pytest.raises(DataError) as caught:
        list(one)
    text = str(caught.value)
    assert (
        text.startswith(f"rank {rank}: the Loader of {shards} ({workers} workers): no batch within 1 s")
        and "data.timeout" in text
    )
    assert one.position[1] == place // 10, "what was handed out before counts"


def test_a_stuck_evaluation_says_so_too(shards):
    one = EvalLoader(ShardSet(shards), Trouble(hang), lambda rows: {}, batch_size=8, timeout=0.2)
    with pytest.raises(DataError, match=r"rank 0: the EvalLoader of .* no batch within 0\.2 s"):
        list(one)


def test_slow_is_not_stuck(shards):
    """The limit is for each wait, not for all of them together."""
    for workers in (0, 1):
        one = loader(shards, lambda: time.sleep(0.3), timeout=5.0, num_workers=workers)
        assert len(list(one)) == 5


def test_errors_and_bugs_pass_through_the_watch(shards):
    def broken():
        raise ZeroDivisionError("a bug")

    def bad():
        raise DataError("a bad sample")

    for rank in (0, 1):
        source = ShardSet(shards)
        for action, kind in ((broken, ZeroDivisionError), (bad, DataError)):
            one = EvalLoader(source, Trouble(action, f"k{rank:04d}"), lambda rows: {}, timeout=5.0)
            with pytest.raises(kind, match="a b"):
                list(one)


def test_nothing_is_left_in_the_way(shards):
    """The thread that waits for a stuck disk does not keep the program alive."""
    one = EvalLoader(ShardSet(shards), Trouble(hang), lambda rows: {}, timeout=0.1)
    with pytest.raises(DataError, match="no batch within"):
        list(one)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "modalign-data")


def test_a_worker_that_dies(shards):
    """What the kernel does when the memory is full."""
    one = EvalLoader(ShardSet(shards), Trouble(lambda: os._exit(9)), lambda rows: {}, batch_size=4, num_workers=1, timeout=20.0)
    with pytest.raises(DataError, match=r"rank 0: the EvalLoader of .*: a data worker died .*ran out of memory"):
        list(one)


def test_a_negative_limit(shards):
    with pytest.raises(DataError, match=r"timeout -1"):
        loader(shards, hang, timeout=-1)
