"""Loaders of windows: the planned order for any ranks and workers, resumed at the very next window; evaluation drops none."""

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.series.loader import Keys, WindowEvalLoader, WindowLoader, WindowReader
from modalign.datasets.series.windows import Columns
from modalign.zoo.errors import DataError


@pytest.fixture
def two(made, windows):
    """Two sources with the same columns; only the second has missing values."""
    first = windows(made((60, 35, 90)), "train", split="none")
    second = windows(made((50,), missing=0.1, name="other"), "train", split="none")
    return [first, second]


def plan_of(sources, batch_size=8, seed=3, **settings):
    return BatchPlan([source.shard_sizes for source in sources], settings.pop("weights", None), batch_size, seed, **settings)


def loader_of(sources, *, rank=0, world_size=1, num_workers=0, prepare=None, **settings):
    return WindowLoader(sources, plan_of(sources, **settings), prepare, rank=rank, world_size=world_size, num_workers=num_workers)


def keys(batches):
    return [list(batch["keys"]) for batch in batches]


def equal(one, other):
    assert one.keys() == other.keys() and list(one["keys"]) == list(other["keys"])
    for name in one:
        if isinstance(one[name], torch.Tensor):
            assert torch.equal(one[name], other[name]), name
        elif name != "keys":
            assert one[name].tolist() == other[name].tolist(), name


def test_an_epoch_is_the_plan_and_every_window_once(two):
    source = two[0]
    loader = loader_of([source], batch_size=7)
    for epoch in range(3):
        batches = list(loader)
        seen = [number for batch in batches for number in batch["sample_numbers"]]
        count = len(source) // 7 * 7
        assert len(batches) == len(loader) == len(source) // 7 and len(set(seen)) == count
        assert seen == plan_of([source], 7).epoch(epoch)[1][:count].tolist(), "the same order function as for shards"
        for batch in batches:
            assert list(batch["keys"]) == [source.key(number) for number in batch["sample_numbers"]]
            for name, value in source.batch(batch["sample_numbers"]).items():
                assert torch.equal(batch[name], value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_and_workers_change_nothing(two, workers, world_size):
    wanted = list(loader_of(two))
    parts = [list(loader_of(two, rank=rank, world_size=world_size, num_workers=workers)) for rank in range(world_size)]
    for number, whole in enumerate(wanted):
        mine = [part[number] for part in parts]
        assert [key for batch in mine for key in batch["keys"]] == list(whole["keys"])
        for name, value in whole.items():
            if isinstance(value, torch.Tensor) and all(name in batch for batch in mine):
                assert torch.equal(torch.cat([batch[name] for batch in mine]), value)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 1), (2, 4)])
def test_another_number_of_ranks_goes_on_with_the_very_next_window(two, before, after):
    whole = keys(loader_of(two, samples_per_epoch=100))
    first = [loader_of(two, rank=rank, world_size=before, samples_per_epoch=100) for rank in range(before)]
    running = [iter(loader) for loader in first]
    for _ in range(5):
        for one in running:
            next(one)
    states = [loader.state_dict() for loader in first]
    assert all(state == states[0] for state in states) and states[0]["batch"] == 5 and states[0]["samples_seen"] == 40
    found = []
    for rank in range(after):
        loader = loader_of(two, rank=rank, world_size=after, samples_per_epoch=100)
        loader.load_state_dict(states[0])
        found.append(keys(loader) + keys(loader))
    second = loader_of(two, samples_per_epoch=100)
    second.seek(1)
    assert [[key for part in parts for key in part] for parts in zip(*found, strict=True)] == whole[5:] + keys(second)


def test_other_windows_are_not_gone_on_with(two, made, windows):
    state = loader_of(two).state_dict()
    loader_of(two).load_state_dict(state)
    changed = [windows(made((60, 35, 90)), "train", split="none", scale={key: [0.0, 2.0] for key in "abcd"}), two[1]]
    for sources, settings, name in ((changed, {}, "data"), (two, {"seed": 4}, "seed"), (two, {"batch_size": 4}, "batch_size")):
        with pytest.raises(DataError, match=f"the saved data position was made with {name} = "):
            loader_of(sources, **settings).load_state_dict(state)


def test_a_mixture_of_two_sources(two):
    """Shares by weight, every window from its own source, and a mask of ones for the source that has nothing missing."""
    loader = loader_of(two, weights=[3.0, 1.0], samples_per_epoch=80)
    drawn = []
    for batch in loader:
        drawn += batch["sources"].tolist()
        for row, (place, number) in enumerate(zip(batch["sources"], batch["sample_numbers"], strict=True)):
            alone = two[place].batch([number])
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    wanted = alone[name][0] if name in alone else torch.ones_like(value[row])
                    assert name in alone or (name in ("observed", "target_observed") and place == 0)
                    assert torch.equal(value[row], wanted)
            assert batch["keys"][row] == two[place].key(number)
    assert drawn.count(0) == 60 and drawn.count(1) == 20


def test_what_is_drawn_at_random_depends_on_seed_epoch_and_place_alone(two):
    def noted(batch, draws):
        return batch | {"draws": torch.tensor(draws)}

    whole = list(loader_of(two, prepare=noted, batch_size=4))
    halves = [list(loader_of(two, prepare=noted, batch_size=4, rank=rank, world_size=2, num_workers=2 * rank)) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        assert batch["draws"].tolist() == [[3, 0, 4 * number + place] for place in range(4)]
        assert torch.equal(torch.cat([half[number]["draws"] for half in halves]), batch["draws"])
    again = loader_of(two, prepare=noted, batch_size=4)
    again.seek(6, 1)
    assert next(iter(again))["draws"].tolist() == [[3, 6, 4 + place] for place in range(4)]


@pytest.mark.parametrize("batch_size", [1, 32, 257])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_window_once_in_order(made, windows, batch_size, world_size):
    test = windows(made((300, 120), missing=0.05), "test", split={"train": 0.2, "val": 0.1, "test": 0.7})
    found = {}
    for rank in range(world_size):
        loader = WindowEvalLoader(test, batch_size=batch_size, rank=rank, world_size=world_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            for row, number in enumerate(batch["sample_numbers"]):
                assert number not in found
                found[number] = {name: value[row] for name, value in batch.items() if isinstance(value, torch.Tensor)}
    assert sorted(found) == list(range(len(test))), "none twice, none dropped"
    whole = test.batch(range(len(test)))
    assert all(torch.equal(found[number][name], value[number]) for name, value in whole.items() for number in found)


def test_ett_in_evaluation(ett, windows):
    test = windows(ett, "test", 96, 720, split="ett_hour")
    for batch_size in (32, 256, 257):
        assert sum(len(batch["values"]) for batch in WindowEvalLoader(test, batch_size=batch_size)) == 2161


@pytest.mark.parametrize(("batch_size", "rank", "world_size"), [(0, 0, 1), (8, 1, 1), (8, -1, 2)])
def test_evaluation_without_windows_is_refused(two, batch_size, rank, world_size):
    with pytest.raises(DataError, match=r"batch_size is .* rank "):
        WindowEvalLoader(two[0], batch_size=batch_size, rank=rank, world_size=world_size)


def test_an_epoch_without_a_batch_is_an_error(ett, windows):
    """5 % of ETTh1 at horizon 192 leaves 236 windows, which the official script trains on in batches of 256: in none at all."""
    few = windows(ett, "train", 96, 192, split="ett_hour", few_shot=5)
    with pytest.raises(
        DataError, match=r"batch_size 256 is more than the 236 samples of an epoch.*data.batch_size to 236 or less"
    ):
        loader_of([few], batch_size=256)
    assert len(loader_of([few], batch_size=236)) == 1


def test_without_the_file_an_epoch_without_a_batch_is_an_error_too(two):
    with pytest.raises(DataError, match=rf"batch_size 999 is more than the {len(two[0])} samples of an epoch"):
        loader_of(two[:1], batch_size=999)


def test_sources_that_are_not_the_plans_are_refused(two):
    with pytest.raises(DataError, match="the plan was made for other sources"):
        WindowLoader(two, plan_of(two[:1]))
    with pytest.raises(DataError, match="batch_size 8 is global and must be divisible by the world size, which is 3"):
        loader_of(two, world_size=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_task_ends_iteration_with_its_sentence(two, workers):
    def refuse(batch, draws):
        raise DataError("this window cannot be used")

    with pytest.raises(DataError, match=r"^this window cannot be used$"):
        list(loader_of(two, prepare=refuse, num_workers=workers))


def test_a_last_incomplete_batch_is_shared_out_too(made, windows):
    """Small batches are gathered several at a time, the order of many is looked up at once: neither shows."""
    source = windows(made((60, 35, 94)), "train", split="none")
    assert len(source) % 8 == 4
    plan = plan_of([source], drop_last=False)
    drawn = [[draw.sample for draw in plan.batch(1, batch)] for batch in range(len(plan))]
    for start in (0, 5, len(plan) - 1):
        parts = []
        for rank in range(4):
            loader = WindowLoader([source], plan, rank=rank, world_size=4)
            loader.seek(1, start)
            parts.append([batch["sample_numbers"] for batch in loader])
            for numbers, batch in zip(parts[-1], loader_of_position(loader, 1, start), strict=True):
                for name, value in source.batch(numbers).items():
                    assert torch.equal(batch[name], value)
        assert [[number for numbers in batch for number in numbers] for batch in zip(*parts, strict=True)] == drawn[start:]


def loader_of_position(loader, epoch, batch):
    loader.seek(epoch, batch)
    return loader


def test_batches_can_be_changed_in_place(two):
    """Though several may come from one gather, none is seen by another, and none by the set."""
    source = two[0]
    wanted = [batch["values"].clone() for batch in loader_of([source], batch_size=4)]
    for number, batch in enumerate(loader_of([source], batch_size=4)):
        assert torch.equal(batch["values"], wanted[number])
        batch["values"].fill_(-1)
        batch["target"].fill_(-1)


def test_a_wait_that_is_too_long_is_an_error(two):
    import time

    def wait(batch, draws):
        time.sleep(2)
        return batch

    loader = WindowLoader(two, plan_of(two), wait, num_workers=1, timeout=0.3)
    with pytest.raises(DataError, match=r"rank 0: the WindowLoader of made, other \(1 workers\): no batch within 0.3 s"):
        next(iter(loader))


def test_a_loader_goes_through_pickle(two):
    """As spawned worker processes and launchers need it, in the middle of an epoch too."""
    loader = loader_of(two)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    other = pickle.loads(pickle.dumps(loader))
    assert other.position == (0, 3)
    equal(next(iter(other)), next(batches))


def test_keys_are_written_when_they_are_read(two, monkeypatch):
    written = []
    original = type(two[0]).key
    monkeypatch.setattr(type(two[0]), "key", lambda self, number: written.append(number) or original(self, number))
    found = WindowReader([two[0]])[next(iter(loader_of(two[:1])._tasks))].batch["keys"]
    assert isinstance(found, Keys) and len(found) == 8 and not written
    assert found[1:3] == [found[1], found[2]] and found[-1] == list(found)[-1]
    with pytest.raises(IndexError):
        found[8]
    copy = pickle.loads(pickle.dumps(found))
    assert type(copy) is list and copy == list(found) and len(pickle.dumps(found)) < 400, "without the rows of its set"


def test_workers_end_with_their_loader(two):
    loader = loader_of(two, num_workers=2)
    batches = iter(loader)
    next(batches)
    workers = [worker.pid for worker in loader._engine._iterator._workers]
    loader.close()
    del batches, loader
    gc.collect()
    states = [Path(f"/proc/{pid}/status") for pid in workers]
    assert all(not state.exists() or "zombie" in state.read_text() for state in states)


def test_the_loader_adds_no_draws_to_the_programs_random_numbers(two):
    torch.manual_seed(0), np.random.seed(0)
    wanted = torch.rand(1), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)
    list(loader_of(two)), list(WindowEvalLoader(two[0]))
    assert (torch.rand(1), np.random.rand()) == wanted


def test_columns_of_all_roles_come_through_a_mixture(made, windows):
    columns = Columns(("c",), ("a",), ("d",), ("size",))
    sources = [windows(made((40,), static=("size",), name=name), columns=columns, split="none") for name in ("x", "y")]
    batch = next(iter(loader_of(sources)))
    assert {name: tuple(value.shape) for name, value in batch.items() if isinstance(value, torch.Tensor)} == {
        "values": (8, 8, 2),
        "target": (8, 4, 1),
        "known": (8, 12, 1),
        "static": (8, 1),
    }
