"""Faults of order: other worlds, other numbers of workers, resumes upon resumes, few shards, uneven shards, empty batches.

What a rank reads is a pure function of (plan, rank, world, step), so up to 64 ranks are simulated without starting one.
"""

import json
import math
import random
from collections import Counter

import pytest

from modalign.datasets.loading.base import PlannedTasks
from modalign.datasets.loading.loader import EvalLoader, Loader
from modalign.datasets.loading.plan import BatchPlan, rank_slice
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def example(sample, rng):
    return {"key": sample.key, "noise": rng.random()}


def collate(rows):
    return {"noise": [row["noise"] for row in rows]}


def tasks_of(plan, rank, world, epoch, first):
    """The tasks a rank's loader hands to its workers, from a position on."""
    sampler = PlannedTasks(plan, rank, world)
    sampler.epoch, sampler.batch = epoch, first
    return list(sampler)


def through_workers(tasks, workers):
    """torch's DataLoader: batch i is made by worker i mod W, and handed out in order."""
    if workers == 0:
        return tasks
    shares = [tasks[worker::workers] for worker in range(workers)]
    return [shares[number % workers][number // workers] for number in range(len(tasks))]


def global_batches(plan, world, epoch, first, workers):
    """Every step's samples over all ranks, in the order of the ranks."""
    ranks = [through_workers(tasks_of(plan, rank, world, epoch, first), workers) for rank in range(world)]
    assert len({len(tasks) for tasks in ranks}) == 1, "no rank has more steps than another"
    assert all(task.epoch == epoch for tasks in ranks for task in tasks)
    return [[draw for tasks in ranks for draw in tasks[step].draws] for step in range(len(ranks[0]))]


@pytest.mark.parametrize("world", range(1, 65))
def test_any_world_continues_any_other(world):
    """Fault 6: the steps before a resume on one world and those after it on another are the steps of one process."""
    rng = random.Random(world)
    other = rng.randint(1, 64)
    batch = math.lcm(world, other)
    sizes = [rng.randint(1, 40) for _ in range(rng.randint(1, 9))]
    per_epoch = 3 * batch + rng.randrange(batch)  # three steps
    plan = BatchPlan([sizes, [17, 5]], [3, 1], batch, seed=world, samples_per_epoch=per_epoch)
    for epoch in (0, 2):
        alone = global_batches(plan, 1, epoch, 0, 0)
        for stop in (0, 1, 2):
            before = global_batches(plan, world, epoch, 0, rng.randint(0, 8))[:stop]
            after = global_batches(plan, other, epoch, stop, rng.randint(0, 8))
            assert before + after == alone
    whole = BatchPlan([sizes], None, 1, seed=world)
    seen = Counter(draw.sample for step in global_batches(whole, 1, 1, 0, 3) for draw in step)
    assert seen == Counter(range(sum(sizes))), "an epoch is every sample once"


def test_resume_upon_resume_does_not_drift(shards):
    """Fault 7: many resumes in one epoch, each with another world and other workers, give the epoch of one run."""
    source = ShardSet(shards)
    rng = random.Random(0)

    def loaders(world, workers, state):
        plan = BatchPlan([source.shard_sizes], None, 12, 3)
        made = [
            Loader([source], plan, example, collate, rank=rank, world_size=world, num_workers=workers) for rank in range(world)
        ]
        for one in made:
            one.load_state_dict(state)
        return made

    one = loaders(1, 0, Loader([source], BatchPlan([source.shard_sizes], None, 12, 3), example, collate).state_dict())[0]
    expected = [(batch["keys"], batch["noise"]) for _ in range(2) for batch in one]
    state, found = loaders(1, 0, {**one.state_dict(), "epoch": 0, "batch": 0})[0].state_dict(), []
    while len(found) < len(expected):
        world, workers, steps = rng.choice([1, 2, 3, 4, 6]), rng.choice([0, 0, 1]), rng.randint(1, 2)
        parts = [[] for _ in range(world)]
        running = loaders(world, workers, json.loads(json.dumps(state)))
        for one, part in zip(running, parts, strict=True):
            for batch in one:
                part.append(batch)
                if len(part) == steps:
                    break
        found += [
            ([key for part in parts for key in part[n]["keys"]], [value for part in parts for value in part[n]["noise"]])
            for n in range(min(map(len, parts)))
        ]
        assert len({json.dumps(one.state_dict()) for one in running}) == 1, "every rank saves the same position"
        state = running[0].state_dict()
    assert found[: len(expected)] == expected


@pytest.mark.parametrize(("shards_", "world", "workers"), [(1, 4, 2), (2, 4, 3), (1, 12, 0)])
def test_fewer_shards_than_ranks_times_workers(tmp_path, samples, shards_, world, workers):
    """Fault 14: samples are dealt out, not shards, so no rank and no worker is empty."""
    write_shards(samples(36), tmp_path / "s", samples_per_shard=36 // shards_)
    source = ShardSet(tmp_path / "s")
    plan = BatchPlan([source.shard_sizes], None, 12, 0)
    seen = []
    for rank in range(world):
        one = Loader([source], plan, example, collate, rank=rank, world_size=world, num_workers=workers if rank == 0 else 0)
        batches = list(one)
        assert [len(batch["keys"]) for batch in batches] == [12 // world] * 3
        seen += [key for batch in batches for key in batch["keys"]]
    assert sorted(seen) == source.keys


def test_uneven_shards_give_equal_steps(tmp_path, samples):
    """Fault 15: three ranks, shards of 1, 2 and 40 samples: the same number of steps, the same epoch at every step."""
    sizes = iter((40, 1, 2))
    plan = BatchPlan([list(sizes)], None, 9, 5)
    for epoch in range(4):
        ranks = [tasks_of(plan, rank, 3, epoch, 0) for rank in range(3)]
        assert [len(tasks) for tasks in ranks] == [4, 4, 4]
        assert {(task.epoch, len(task.draws)) for tasks in ranks for task in tasks} == {(epoch, 3)}


def test_no_rank_gets_an_empty_batch(shards):
    """Fault 23: an incomplete last batch that does not reach every rank is refused when the loader is made."""
    source = ShardSet(shards)
    plan = BatchPlan([source.shard_sizes], None, 12, 0, drop_last=False)  # 50 = 4 x 12 + 2
    with pytest.raises(DataError, match="last batch of an epoch has 2 samples, so some of the 3 ranks would get none"):
        Loader([source], plan, example, collate, world_size=3)
    parts = [list(Loader([source], plan, example, collate, rank=rank, world_size=2)) for rank in range(2)]
    assert [[len(batch["keys"]) for batch in part] for part in parts] == [[6, 6, 6, 6, 1]] * 2
    with pytest.raises(DataError, match="sources with samples"):
        BatchPlan([[0]], None, 1, 0)
    assert rank_slice([], 0, 3) == []


def test_a_rank_without_evaluation_data_has_no_batch(tmp_path, samples):
    """Fault 23: fewer samples than ranks: the others get no batch, not an empty one."""
    write_shards(samples(2), tmp_path / "few")
    made = [EvalLoader(ShardSet(tmp_path / "few"), example, collate, rank=rank, world_size=3) for rank in range(3)]
    assert [(len(one), [len(batch["keys"]) for batch in one]) for one in made] == [(1, [1]), (1, [1]), (0, [])]
