"""Embedding and evaluating with two gloo processes: bit for bit what one process gives, for sets of 1, 7 and 50 samples."""

import io
import json
import runpy
from pathlib import Path

import pytest
import torch
from launching import CLI, start, write_recipe

from modalign import zoo
from modalign.datasets.shards import ShardSet
from modalign.trainers.evaluation import dealing, vectors
from modalign.trainers.evaluation.dealing import dealt, own_count, together
from modalign.trainers.evaluation.task import Subject
from modalign.trainers.evaluation.tasks import TASKS, build_task
from modalign.trainers.evaluation.vectors import set_vectors
from modalign.zoo.errors import DataError
from modalign.zoo.registry import FAMILIES

SIZES = (1, 7, 50)
OPTIONS = {
    "retrieval": {"detailed": True},
    "zeroshot": {"classes": "captions", "templates": "simple"},
    "alignment": {},
    "crosslingual": {"least_pairs": 3},
}


def small_batches():
    """Several batches per rank, and one too few for the last."""
    vectors.PICTURES_AT_ONCE, dealing.TEXTS_AT_ONCE = 8, 16


def embedded(model, folder, encoder_features=True):
    found = set_vectors(model, ShardSet(folder), over_ranks=True, encoder_features=encoder_features)
    recall = found.retrieval(over_ranks=True)
    tensors = [found.image, found.text, found.text_row] + ([found.image_features] if encoder_features else [])
    return (found.keys, found.texts, found.text_lang), [tensor.numpy() for tensor in tensors], recall


def measured(model, folder):
    subject = Subject(model, "m", ShardSet(folder), "d", over_ranks=True)
    return {task: build_task(task, options, task).measure(subject) for task, options in OPTIONS.items()}


def embed_on_rank(rank, world, release, folder):
    small_batches()
    return embedded(zoo.load(release), folder)


def measure_on_rank(rank, world, release, folder):
    small_batches()
    return measured(zoo.load(release), folder)


def embed_sharded(rank, world, release, folders):
    from torch.distributed.device_mesh import init_device_mesh

    from modalign.trainers.parallel.sharded import shard_model, usable

    small_batches()
    model = zoo.load(release)
    shard_model(model, init_device_mesh("cpu", (world,)))
    found = []
    for folder in folders:
        with usable(model):
            found.append(embedded(model, folder, encoder_features=False))
    return found


def meet_an_error(rank, world, release, folder):
    small_batches()
    try:
        set_vectors(zoo.load(release), ShardSet(folder), over_ranks=True)
    except DataError as error:
        return str(error)


def raise_on_one(rank, world):
    def work():
        if rank == 1:
            raise DataError("sample k003 is bad")
        return "done"

    try:
        return together(work)
    except DataError as error:
        return f"error: {error}"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    module = runpy.run_path(str(Path(__file__).parents[1] / "zoo" / "losses" / "conftest.py"))
    ranks = module["Ranks"](2, tmp_path_factory.mktemp("evaluation_ranks") / "store")
    yield ranks
    ranks.stop()


@pytest.fixture(scope="module")
def release(tiny_model, tmp_path_factory):
    torch.manual_seed(3)
    settings = {key: value for key, value in tiny_model.items() if key != "family"}
    model = FAMILIES.get("proclip").from_settings(settings).eval()
    return str(zoo.save_release(model, tmp_path_factory.mktemp("evaluation_ranks") / "release"))


@pytest.fixture(scope="module")
def sets(picture_of, tmp_path_factory):
    """Size -> shards; pictures and captions come twice, so that scores tie."""
    from modalign.datasets.shards.writer import write_shards

    def samples(count, broken):
        for number in range(count):
            stream = io.BytesIO()
            picture_of(number // 2).save(stream, "PNG")
            captions = {"en": [f"thing number {number // 2}", f"item {number}"]} | (
                {"de": [f"Ding {number}"]} if number % 3 else {}
            )
            image = b"no picture" if number == broken else stream.getvalue()
            yield {"key": f"k{number:03d}", "image": image, "image_ext": "png", "captions": captions, "label": number % 3}

    folder = tmp_path_factory.mktemp("evaluation_ranks")
    made = {}
    for name, count, broken in (*((str(size), size, None) for size in SIZES), ("broken", 20, 9)):
        made[name] = str(folder / name)
        write_shards(samples(count, broken), folder / name, samples_per_shard=6)
    return made


@pytest.fixture
def patched(monkeypatch):
    monkeypatch.setattr(vectors, "PICTURES_AT_ONCE", 8)
    monkeypatch.setattr(dealing, "TEXTS_AT_ONCE", 16)


def assert_same(ours, theirs, exactly=True):
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    for one, two in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(two), **({"rtol": 0, "atol": 0} if exactly else {}))


@pytest.mark.parametrize("size", SIZES)
def test_two_ranks_embed_what_one_does(pool, patched, release, sets, size):
    alone = embedded(zoo.load(release), sets[str(size)])
    for found in pool.run(__file__, "embed_on_rank", release, sets[str(size)]):
        assert_same(found, alone)


def test_dealing_does_not_change_what_one_process_embeds(patched, release, sets):
    model, shards = zoo.load(release), ShardSet(sets["50"])
    dealt_out, plain = set_vectors(model, shards, over_ranks=True), set_vectors(model, shards)
    assert (
        torch.equal(dealt_out.image, plain.image)
        and dealt_out.texts == plain.texts
        and dealt_out.keys == plain.keys == shards.keys
    )
    torch.testing.assert_close(dealt_out.text, model.encode_text(plain.texts))


def test_sharded_ranks_make_the_same_number_of_calls(pool, patched, release, sets):
    """FSDP2: with 1 and 7 samples only one rank has a batch, with 50 one has one more; a rank too few calls would hang."""
    names = [sets[str(size)] for size in SIZES]
    model = zoo.load(release)
    for found in pool.run(__file__, "embed_sharded", release, names):
        for name, ours in zip(names, found, strict=True):
            assert_same(ours, embedded(model, name, encoder_features=False), exactly=False)


def test_every_task_over_two_ranks(pool, patched, release, sets):
    alone = measured(zoo.load(release), sets["50"])
    pairs = {name for name in TASKS.names() if TASKS.get(name).kind == "pairs"}
    assert set(alone) == pairs, "a new task is tested here too (of series: tests/trainers/series/test_tasks_over_ranks.py)"
    assert pool.run(__file__, "measure_on_rank", release, sets["50"]) == [alone, alone]


def test_a_bad_sample_of_one_rank_is_an_error_on_both(pool, release, sets):
    first, second = pool.run(__file__, "meet_an_error", release, sets["broken"])
    assert first == second and "k009" in first
    assert pool.run(__file__, "raise_on_one") == ["error: sample k003 is bad"] * 2


@pytest.mark.parametrize(("items", "ranks"), [(1, 2), (7, 2), (7, 3), (3, 8), (0, 2), (4, 1)])
def test_dealing(items, ranks):
    hands = [list(dealt(list(range(items)), number, ranks)) for number in range(ranks)]
    assert len({len(hand) for hand in hands}) == 1, "as many calls on every rank"
    own = [hand[: own_count(items, number, ranks)] for number, hand in enumerate(hands)]
    assert sorted(item for hand in own for item in hand) == list(range(items))
    assert all(item == 0 for number, hand in enumerate(hands) for item in hand[own_count(items, number, ranks) :])


@pytest.mark.timeout(280)
def test_a_run_on_two_sharded_ranks_measures_what_one_process_would(pair_recipe, tmp_path, tiny_shards, capsys):
    """Validation at its last step, and eval.json, against `modalign eval` of the weights that the run left, in one process."""
    from modalign.trainers.cli import main

    pair_recipe["stages"]["pair"] |= {"epochs": 2, "validate": {"every_epochs": 1, "select": "last"}}
    pair_recipe["evaluate"] = {"task": ["crosslingual", "retrieval"], "languages": ["en", "de"]}
    pair_recipe["data"]["val_languages"] = ["en", "de"]
    path, run = write_recipe(pair_recipe, tmp_path / "recipe.yaml"), tmp_path / "run"
    process = start([*CLI, "train", path, "--run_dir", run, "--trainer.devices", 2, "--trainer.strategy", "fsdp"])
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output[-3000:]
    found = json.loads((run / "stages" / "pair" / "eval.json").read_text())
    for task in ("retrieval", "crosslingual"):
        json_path, options = tmp_path / f"{task}.json", ["--task", task, "--languages", "[en,de]"]
        assert main(["eval", str(run), "--data", str(tiny_shards), "--json", str(json_path), *options]) == 0
        alone = json.loads(json_path.read_text())
        ours = found if task == "retrieval" else found["also"][task]
        assert ours["task"] == task and {**ours, "model": ""} == {**alone, "model": ""} | (
            {"also": found["also"]} if ours is found else {}
        )
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    values = {name: [row[i] for row in rows[1:] if row[i]] for i, name in enumerate(rows[0])}
    assert len(values["val/text_to_image/R@10"]) == 2
    for way in ("text_to_image", "image_to_text"):
        assert float(values[f"val/{way}/R@10"][-1]) == pytest.approx(found["metrics"][way]["R@10"], abs=1e-3)
    assert "MEXA" in (run / "report.html").read_text() and "MEXA" in (run / "results.md").read_text()
