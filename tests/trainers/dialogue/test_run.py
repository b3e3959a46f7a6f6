"""A run from shards to report: stages, validation, every task, kept features, batches of three kinds, resuming."""

import csv
import json
import math

import pytest
import torch

from modalign import zoo
from modalign.trainers import train
from modalign.zoo.errors import RecipeError


def steps(run):
    """Step -> loss of every stage."""
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return {(row["stage"], int(row["step"])): float(row["loss"]) for row in rows if row["loss"]}


def test_a_run_trains_validates_measures_and_reports(run):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    validated = [row for row in rows if row["val/loss"]]
    assert validated
    for row in validated:
        assert float(row["val/perplexity"]) == pytest.approx(math.exp(float(row["val/loss"])), rel=1e-4)
    found = json.loads((run / "stages" / "tune" / "eval.json").read_text())
    assert found["task"] == "caption" and set(found["also"]) == {"grounding", "vqa", "pope"}
    assert found["n"] == {"pictures": 4, "references": 12}
    assert set(found["baselines"]) == {"pictures shuffled", "caption of the nearest training picture"}
    assert found["also"]["grounding"]["n"] == {"pictures": 4, "phrases": 8}
    assert {"centre", "mean_box", "pictures shuffled"} == set(found["also"]["grounding"]["baselines"])
    assert found["also"]["vqa"]["n"] == {"pictures": 4, "questions": 8}
    assert found["also"]["pope"]["baselines"]["always yes"]["recall"] == 1.0
    page = (run / "report.html").read_text()
    assert "Answers: caption" in page and "Answers: grounding" in page and "pictures shuffled" in page


def test_only_what_a_stage_names_changes(run):
    first, second = (zoo.load(run / "stages" / name / "release").state_dict() for name in ("align", "tune"))
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"projector", "language"}
    assert all(".lora_" in name for name in first if name.startswith("language.") and not torch.equal(first[name], second[name]))


def test_an_adapter_release_leaves_both_bases_out(run):
    about = json.loads((run / "stages" / "tune" / "release" / "release.json").read_text())
    assert about["kind"] == "adapter" and {part: entry["included"] for part, entry in about["parts"].items()} == {
        "image": False,
        "language_base": False,
    }
    whole = json.loads((run / "release" / "release.json").read_text())
    assert whole["kind"] == "full" and all(entry["included"] for entry in whole["parts"].values())
    card = (run / "release" / "README.md").read_text()
    assert "image-text-to-text" in card and "modalign chat PATH" in card and "| this model |" in card


@pytest.mark.parametrize("batching", ["packed", "bucketed"])
def test_packed_rows_train_like_padded_ones(tmp_path, recipe_of, batching):
    plain = train(recipe_of(tmp_path / "plain"))
    other = train(recipe_of(tmp_path / "other", dialogue={"ask": "conversations", "batching": batching}))
    if batching == "packed":  # the same samples in every step
        assert steps(other) == pytest.approx(steps(plain), rel=1e-4)
    lines = (other / "stages" / "align" / "samples.csv").read_text().splitlines()
    assert len({key for line in lines for key in line.split(",")[1].split()}) == 12, "no sample is seen twice"


def test_kept_features_train_like_computed_ones(tmp_path, recipe_of):
    plain = train(recipe_of(tmp_path / "plain"))
    kept = train(recipe_of(tmp_path / "kept", cache={"image": "tokens"}))
    assert steps(kept) == pytest.approx(steps(plain), rel=1e-5)


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, recipe_of, monkeypatch):
    from modalign.trainers.task import TrainingTask

    whole = train(recipe_of(tmp_path / "whole", dialogue={"ask": "regions", "batching": "bucketed"}))
    recipe = recipe_of(tmp_path / "cut", dialogue={"ask": "regions", "batching": "bucketed"})
    recipe["trainer"]["checkpoint_every"] = 1
    plain = TrainingTask.training_step

    def stops(self, batch, index):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return plain(self, batch, index)

    monkeypatch.setattr(TrainingTask, "training_step", stops)
    with pytest.raises(BaseException):  # noqa: B017
        train(recipe)
    monkeypatch.setattr(TrainingTask, "training_step", plain)
    assert steps(train(recipe)) == steps(whole)


@pytest.mark.parametrize("ask", ["captions", "regions", "fields", None])
def test_everything_can_be_asked(tmp_path, recipe_of, ask):
    recipe = recipe_of(tmp_path / "run", dialogue={"ask": ask, "suffix": " Look."})
    del recipe["stages"]["tune"]
    run = train(recipe)
    assert zoo.load(run).config.asked["ask"] == ask and zoo.load(run).config.asked["suffix"] == " Look."


def test_a_text_of_samples_without_pictures_trains_the_language_model_alone(tmp_path, recipe_of):
    from modalign.datasets.shards.writer import write_shards

    talk = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}]
    write_shards(({"key": f"t{n}", "conversations": talk} for n in range(8)), tmp_path / "s", task="conversation")
    recipe = recipe_of(tmp_path / "run")
    recipe["data"]["train"] = str(tmp_path / "s")
    before = zoo.load(train(recipe) / "stages" / "align" / "release").state_dict()
    after = zoo.load(tmp_path / "run").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("projector."))
    assert any(not torch.equal(before[name], after[name]) for name in before if ".lora_B" in name)


MISTAKES = {
    "accumulate": ({"accumulate": 2}, {}, "stages.align.accumulate: not for conversations"),
    "text cache": ({"cache": {"text": True}}, {}, "stages.align.cache: of a stack only image features are kept"),
    "cut": ({"cache": {"image": "output"}}, {}, r"stages.align.cache.image: 'output': a stack keeps what enters the projector"),
    "augment": (
        {"data": {"augment": {"flip": 0.5}}},
        {},
        "stages.align.data.augment: pictures of conversations are shown as they are",
    ),
    "series": ({"data": {"series": {}}}, {}, "llava is no model of time series"),
    "question": ({}, {"ask": "regions", "question": ["Where?"]}, r"'Where\?' does not say where \{phrase\} stands"),
    "own question": ({}, {"ask": "conversations", "question": ["x"]}, "conversations bring their own questions"),
    "levels": ({}, {"levels": "nowhere.json"}, "data.dialogue.levels: nowhere.json cannot be read"),
    "validate": ({"validate": {}}, {}, "there is nothing to validate on"),
    "metric": ({"validate": {"metric": "losss"}}, {}, "there is no 'losss'; did you mean 'loss'"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_one_sentence(tmp_path, recipe_of, what):
    stage, dialogue, said = MISTAKES[what]
    with pytest.raises(Exception, match=said) as found:
        train(recipe_of(tmp_path / "run", dialogue=dialogue or None, **stage))
    assert isinstance(found.value, RecipeError) or what == "levels"


@pytest.mark.parametrize("role", ["language", "adapter"])
def test_recomputing_activations_changes_nothing(tmp_path, recipe_of, role):
    trains = {"train": {role: 1e-3, "projector": 1e-3}}
    plain, less = recipe_of(tmp_path / "plain"), recipe_of(tmp_path / "less", grad_checkpointing=[role])
    for recipe in (plain, less):
        del recipe["stages"]["align"]
        recipe["stages"]["tune"] |= trains
    assert steps(train(less)) == pytest.approx(steps(train(plain)), rel=1e-5)


def test_features_are_not_kept_of_what_trains(tmp_path, recipe_of):
    recipe = recipe_of(tmp_path / "run", cache={"image": "tokens"})
    recipe["stages"]["align"]["train"] = {"encoder": 1e-4}
    with pytest.raises(RecipeError, match=r"stages.align.cache.image: image\..* trains, but a cache fixes"):
        train(recipe)


def test_lora_is_for_stacks_alone(tmp_path, recipe_of):
    recipe = recipe_of(tmp_path / "run", lora={"rank": 2})
    recipe["model"] = {"family": "dlinear", "look_back": 8, "horizon": 4}
    with pytest.raises(Exception, match=r"lora|data"):
        train(recipe)
