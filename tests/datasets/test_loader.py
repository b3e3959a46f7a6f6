import json
import math
import multiprocessing
import pickle
import random
from itertools import chain

import pytest
import torch

from modalign.datasets.loading.loader import EvalLoader, Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def example(sample, rng):
    return {"pixel": sample.images[0].getpixel((0, 0))[0], "caption": sample.captions["en"][0], "noise": rng.random()}


def collate(examples):
    return {"pixel": torch.tensor([e["pixel"] for e in examples]), **{n: [e[n] for e in examples] for n in ("caption", "noise")}}


def loader(shards, workers=0, world=1, rank=0, batch=12, seed=3, **more):
    source = ShardSet(shards)
    plan = BatchPlan([source.shard_sizes], None, batch, seed)
    return Loader([source], plan, example, collate, num_workers=workers, world_size=world, rank=rank, **more)


def plain(batches):
    return [{**batch, "pixel": batch["pixel"].tolist()} for batch in batches]


def test_batches_hold_what_the_plan_says(shards):
    one = loader(shards)
    batches = plain(one)
    assert len(batches) == len(one) == 4
    for number, batch in enumerate(batches):
        assert batch["sample_numbers"] == [draw.sample for draw in one.plan.batch(0, number)]
        assert batch["keys"] == [f"k{n:04d}" for n in batch["sample_numbers"]]
        assert batch["pixel"] == batch["sample_numbers"]
        assert batch["caption"] == [f"caption {n}" for n in batch["sample_numbers"]]


@pytest.mark.parametrize(("workers", "world"), [(0, 2), (0, 3), (2, 1), (2, 2)])
def test_workers_and_ranks_change_nothing(shards, workers, world):
    whole = loader(shards)
    expected = [plain(whole), plain(whole)]
    parts = [loader(shards, workers, world, rank) for rank in range(world)]
    for epoch in range(2):  # the second epoch runs in the same worker processes
        rows = [plain(part) for part in parts]
        joined = [
            {name: list(chain.from_iterable(rank[number][name] for rank in rows)) for name in rows[0][0]}
            for number in range(len(whole))
        ]
        assert joined == expected[epoch]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_any_batch_with_another_world(shards, workers):
    whole = loader(shards)
    expected = [batch for _ in range(3) for batch in plain(whole)]
    for stop in range(len(expected)):
        first, seen = loader(shards), []
        while len(seen) < stop:
            for batch in first:
                seen.append(batch["keys"])
                if len(seen) == stop:
                    break
        state = json.loads(json.dumps(first.state_dict()))
        assert state["samples_seen"] == 12 * stop
        if workers and stop not in (3, 6):
            continue
        again = [loader(shards, workers, 2, rank) for rank in range(2)]
        for part in again:
            part.load_state_dict(state)
        left, right = (plain(part) for part in again)
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert {name: a[name] + b[name] for name in a} == expected[stop + number]
        assert len(left) == len(whole) - stop % len(whole)


def test_prefetched_batches_do_not_count(shards):
    two = loader(shards, workers=2, prefetch=4)
    stream = iter(two)
    next(stream)
    assert two.position == (0, 1)  # the workers are far ahead by now
    next(stream)
    stream.close()
    assert two.position == (0, 2)
    assert plain(two) == plain(loader(shards))[2:]
    assert two.position == (1, 0)


def test_many_stops_in_one_epoch_do_not_drift(shards):
    expected, keys = [batch["keys"] for batch in loader(shards)], []
    state = loader(shards).state_dict()
    for _ in range(4):
        part = loader(shards, workers=1)
        part.load_state_dict(state)
        keys.append(next(iter(part))["keys"])
        state = part.state_dict()
    assert keys == expected and state["epoch"] == 1 and state["batch"] == 0


def test_global_random_numbers_are_left_alone(shards):
    torch.manual_seed(0)
    random.seed(0)
    before = torch.get_rng_state(), random.getstate()
    list(loader(shards))
    list(loader(shards, workers=1))
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_augmentation_differs_between_epochs(shards):
    one = loader(shards)
    by_epoch = [{key: noise for b in one for key, noise in zip(b["keys"], b["noise"], strict=True)} for _ in range(2)]
    shared = set(by_epoch[0]) & set(by_epoch[1])
    assert shared and all(by_epoch[0][key] != by_epoch[1][key] for key in shared)


def test_length_is_always_a_whole_epoch(shards):
    one = loader(shards)
    one.seek(2, 3)
    assert len(one) == 4 and len(list(one)) == 1 and one.position == (3, 0)
    one.seek(0, 4)
    assert one.position == (1, 0)
    for wrong in ((0, 5), (-1, 0), (0, -1)):
        with pytest.raises(DataError, match="cannot start"):
            one.seek(*wrong)


@pytest.mark.parametrize(("change", "name"), [({"seed": 4}, "seed"), ({"batch": 6}, "batch_size")])
def test_state_of_other_settings_is_refused(shards, change, name):
    with pytest.raises(DataError, match=rf"made with {name} ="):
        loader(shards, **change).load_state_dict(loader(shards).state_dict())


def test_state_of_other_data_is_refused(shards, tmp_path, samples):
    write_shards(samples(50, start=1), tmp_path / "other", samples_per_shard=9)
    with pytest.raises(DataError, match="data ="):
        loader(tmp_path / "other").load_state_dict(loader(shards).state_dict())
    state = loader(shards).state_dict()
    del state["data"]
    with pytest.raises(DataError, match="data = None"):
        loader(shards).load_state_dict(state)


def test_wrong_plan_and_world(shards):
    source = ShardSet(shards)
    with pytest.raises(DataError, match="other sources"):
        Loader([source], BatchPlan([[5]], None, 1, 0), example, collate)
    with pytest.raises(DataError, match="world size"):
        loader(shards, world=5)
    with pytest.raises(DataError, match="rank 2 does not exist"):
        loader(shards, world=2, rank=2)


def test_keys_only_opens_nothing(shards):
    source = ShardSet(shards)
    plan = BatchPlan([source.shard_sizes], None, 12, 3)
    bare = Loader([source], plan, lambda s, rng: {"empty": not (s.images or s.captions)}, lambda e: {"e": e}, fields=[])
    for tar in shards.glob("*.tar"):
        tar.write_bytes(b"")  # after the size check
    batches = list(bare)
    assert sum(len(batch["keys"]) for batch in batches) == 48
    assert all(item["empty"] for batch in batches for item in batch["e"])


def test_raw_samples(shards):
    source = ShardSet(shards)
    plan = BatchPlan([source.shard_sizes], None, 50, 3)
    raw = Loader([source], plan, lambda s, rng: {"txt": s.members["txt"].decode()}, lambda e: {"e": e}, fields=["txt"], raw=True)
    (batch,) = raw
    assert [e["txt"] for e in batch["e"]] == [f"caption {n}" for n in batch["sample_numbers"]]


def broken(tmp_path, samples, bad, count=60):
    """A set with undecodable pictures in some samples."""
    made = [{**s, "image": b"not a picture"} if n in bad else s for n, s in enumerate(samples(count))]
    write_shards(made, tmp_path / "broken", samples_per_shard=20)
    return tmp_path / "broken"


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_sample_is_one_sentence(tmp_path, samples, workers):
    with pytest.raises(DataError) as caught:
        list(loader(broken(tmp_path, samples, {7}), workers))
    text = str(caught.value)
    assert "000000.tar: sample 'k0007', field 'png'" in text and "not a JPEG, PNG or WebP" in text and "\n" not in text


def test_skipped_samples_are_replaced_alike_everywhere(tmp_path, samples):
    folder = broken(tmp_path, samples, {7, 33})
    whole = loader(folder, on_error="skip", error_budget=0.05, quarantine_file=tmp_path / "bad.jsonl")
    batches = plain(whole)
    assert set(whole.quarantine.entries) == {(0, 7), (0, 33)}
    listed = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(entry["sample"] for entry in listed) == [7, 33] and "'k0007'" in str(listed)
    planned = [[draw.sample for draw in whole.plan.batch(0, number)] for number in range(5)]
    flat = list(chain.from_iterable(planned))
    for number, batch in enumerate(batches):
        for slot, sample in enumerate(batch["sample_numbers"]):
            place = number * 12 + slot
            while flat[place] in (7, 33):
                place = (place + 12) % 60
            assert sample == flat[place] == batch["pixel"][slot]
    parts = [plain(loader(folder, 2, 2, rank, on_error="skip", error_budget=0.05)) for rank in range(2)]
    assert [{name: a[name] + b[name] for name in a} for a, b in zip(*parts, strict=True)] == batches


def test_skip_budget_ends_the_run(tmp_path, samples):
    folder = broken(tmp_path, samples, {1, 2})
    one = loader(folder, on_error="skip")
    assert one.quarantine.allowed == math.ceil(0.06) == 1
    with pytest.raises(DataError, match="2 bad samples were skipped, more than the budget of 1"):
        for _ in range(2):
            list(one)


def test_damaged_shard_is_skipped_whole(shards):
    tar = shards / "000002.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"000002\.tar: shards\.json says"):
        ShardSet(shards)
    source = ShardSet(shards, on_error="skip")
    one = Loader([source], BatchPlan([source.shard_sizes], None, 10, 3), example, collate, on_error="skip", error_budget=0.2)
    keys = [key for batch in one for key in batch["keys"]]
    assert len(keys) == 50 and not {f"k{n:04d}" for n in range(18, 27)} & set(keys)
    assert len(one.quarantine.entries) == 9


def test_error_in_the_users_code_keeps_its_type(shards):
    source = ShardSet(shards)

    def wrong(sample, rng):
        raise DataError("caption is too long")

    def bug(sample, rng):
        raise ZeroDivisionError

    plan = BatchPlan([source.shard_sizes], None, 10, 3)
    with pytest.raises(DataError, match=r"sample 'k\d{4}': caption is too long"):
        list(Loader([source], plan, wrong, collate))
    with pytest.raises(ZeroDivisionError):
        list(Loader([source], plan, bug, collate))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_sees_everything_once_in_order(shards, workers, world):
    parts = [
        EvalLoader(ShardSet(shards), example, collate, batch_size=7, rank=rank, world_size=world, num_workers=workers)
        for rank in range(world)
    ]
    for _ in range(2):
        numbers = []
        for part in parts:
            batches = list(part)
            assert len(batches) == len(part)
            numbers.append([n for batch in batches for n in batch["sample_numbers"]])
            assert [p for batch in batches for p in batch["pixel"].tolist()] == numbers[-1]
        assert numbers == [list(range(rank, 50, world)) for rank in range(world)]


def test_evaluation_does_not_skip(tmp_path, samples):
    with pytest.raises(DataError, match="'k0003'"):
        list(EvalLoader(ShardSet(broken(tmp_path, samples, {3}, 6)), example, collate))


def test_fewer_samples_than_ranks(tmp_path, samples):
    write_shards(samples(3), tmp_path / "few")
    sets = [EvalLoader(ShardSet(tmp_path / "few"), example, collate, rank=rank, world_size=4) for rank in range(4)]
    assert [[batch["sample_numbers"] for batch in part] for part in sets] == [[[0]], [[1]], [[2]], []]
    assert [len(part) for part in sets] == [1, 1, 1, 0]


def test_workers_end_with_their_loader(shards):
    """No cycle of references: the workers end at once, not when some garbage collector runs in some process."""
    before = set(multiprocessing.active_children())
    one = loader(shards, workers=1)
    next(iter(one))
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 1
    del one
    assert not started & set(multiprocessing.active_children())


def test_shard_sets_travel_to_other_processes(shards):
    source = ShardSet(shards)
    source.read(0)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(49).members == source.read(49).members
