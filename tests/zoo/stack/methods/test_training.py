"""The shipped recipes of both families through the real trainer: two steps of each stage, with tiny parts and toy data."""

import csv
import io
import json
import math

import pytest
import torch

from modalign import zoo
from modalign.datasets.shards.writer import write_shards
from modalign.trainers import load_recipe, train
from modalign.zoo.errors import DataError
from modalign.zoo.stack.methods.alignment_levels import AlignmentLevels

from .. import written

RECIPES = ["vpp_llava/grounding", "vpp_llava/grounding_off", "aligngpt/flickr8k", "aligngpt/flickr8k_off"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Shards whose pictures have a caption and two phrases; one sample has no phrase."""

    def samples():
        for number in range(9):
            stream = io.BytesIO()
            written.photo(48, 32 + number, number).save(stream, "PNG")
            regions = [{"phrase": f"the {word}", "box": [2, 3, 20, 10 + number]} for word in ("apple", "bird")] if number else []
            yield {
                "key": f"k{number}",
                "image": stream.getvalue(),
                "image_ext": "png",
                "captions": {"en": [f"A red apple on table {number}."]},
                "regions": regions,
            }

    folder = tmp_path_factory.mktemp("toy") / "shards"
    write_shards(samples(), folder)
    return folder


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """A language model whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    return written.write_language(folder, words=written.tokenizer(chat_template=written.CHATML))


@pytest.fixture
def tiny(toy, chat_folder, clip_folder, local_settings, own_home, tmp_path):
    """Name of a shipped recipe -> the recipe, tiny."""

    def make(name, **more):
        overrides = {
            "model.image": {"name": f"local-dir:{clip_folder}"},
            "model.language": {"name": f"local-dir:{chat_folder}"},
            "model.lora.rank": 2,
            "data.train": str(toy),
            "data.val": str(toy),
            "data.test": str(toy),
            "data.batch_size": 3,
            "data.error_budget": 1.0,
            "data.on_error": "skip" if name.startswith("vpp") else "raise",
            "stages.align.steps": 2,
            "stages.tune.steps": 2,
            "stages.tune.validate": None,
            "trainer": {"accelerator": "cpu", "progress": False, "log_every": 1},
            "run_dir": str(tmp_path / "run"),
        }
        if "evaluate" not in more:
            overrides["evaluate.options"] = {load_recipe(name).evaluate.task: {"max_new_tokens": 4}}
        if name == "vpp_llava/grounding":
            overrides["model.hooks.vpp_local"] = local_settings
        if name == "aligngpt/flickr8k":
            overrides["stages.align.data.dialogue.levels"] = str(levels_file(tmp_path))
        return load_recipe(name, {**overrides, **more})

    return make


def levels_file(folder, without=()):
    """A file of levels of the toy's samples."""
    path = folder / "levels.json"
    path.write_text(json.dumps({"levels": {f"k{number}": number % 8 for number in range(9) if number not in without}}))
    return path


def weights(folder, stage):
    """Weights of a stage's release."""
    return zoo.load(folder / "stages" / stage / "release").state_dict()


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_of_every_stage(name, tiny):
    recipe = tiny(name)
    run = train(recipe)
    with (run / "metrics.csv").open() as stream:
        rows = [(row["stage"], float(row["loss"])) for row in csv.DictReader(stream)]
    assert [stage for stage, _ in rows] == ["align", "align", "tune", "tune"]
    assert all(math.isfinite(loss) and loss > 0 for _, loss in rows)
    results = json.loads((run / "results.json").read_text())
    assert recipe.evaluate.task in json.dumps(results["stages"]["tune"])
    model = zoo.load(run)
    assert model.config.asked["ask"] == recipe.data.dialogue.ask and model.config.asked["levels"] is None
    assert list(model.hooks) == list(recipe.model["hooks"])


def test_the_prompts_train_and_the_detectors_backbone_does_not(tiny):
    run = train(tiny("vpp_llava/grounding"))
    before, after = weights(run, "align"), weights(run, "tune")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    hooks = {name.removeprefix("hooks.") for name in changed if name.startswith("hooks.")}
    assert "vpp_global.overlay" in hooks and "vpp_local.projector.layers.0.weight" in hooks
    assert any(name.startswith("vpp_local.detector.detr.decoder") for name in hooks)
    assert not any("backbone" in name for name in hooks)
    assert not any(name.startswith(("image.", "language_base.")) for name in changed)
    assert any(".lora_" in name for name in changed)


def test_levels_train_first_and_the_gate_second(tiny, monkeypatch):
    used = []
    for name in ("_known", "weights"):
        monkeypatch.setattr(AlignmentLevels, name, noted(used, name, getattr(AlignmentLevels, name)))
    run = train(tiny("aligngpt/flickr8k", evaluate=None))
    assert used == ["_known", "_known", "weights", "weights"]
    before, after = weights(run, "align"), weights(run, "tune")
    table, gate = "hooks.alignment_levels.table", "hooks.alignment_levels.gate.layers.0.weight"
    assert torch.equal(before[table], after[table])
    assert not torch.equal(before[gate], after[gate])


def noted(used, name, call):
    """A method that notes that it was called."""

    def wrapped(*args):
        used.append(name)
        return call(*args)

    return wrapped


def test_a_sample_without_a_level_is_named(tiny, tmp_path):
    recipe = tiny("aligngpt/flickr8k")
    levels_file(tmp_path, without=range(9))
    with pytest.raises(DataError, match="the file has no level of this sample"):
        train(recipe)
