"""Recipes: keys and types are checked, overrides reach any depth, nothing in one can run code."""

import contextlib
import copy
import re
import sys

import pytest
import yaml

from modalign.trainers.recipe import load_recipe, parse_override, shipped_recipes
from modalign.zoo.errors import ModalignError, RecipeError


def change(recipe, path, value):
    *parents, last = path.split("/")
    for key in parents:
        recipe = recipe[key]
    recipe[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("dat", {}, r"unknown key 'dat'; did you mean 'data'"),
        ("data/batchsize", 4, r"data: unknown key 'batchsize'; did you mean 'batch_size'"),
        ("data/augment", {"flipp": 0.5}, r"data.augment: unknown key 'flipp'; did you mean 'flip'"),
        ("stages/tune/epoch", 4, r"stages.tune: unknown key 'epoch'; did you mean 'epochs'"),
        ("stages/tune/data", {"batch": 4}, r"stages.tune.data: unknown key 'batch'; did you mean 'batch_size'"),
        ("data/batch_size", "many", r"batch_size.*many"),
        ("stages/tune/schedule", "linear", r"schedule.*linear"),
        ("stages/tune/steps", 4, r"stages.tune: give one of epochs and steps"),
        ("stages/inherit/teacher", "tune", r"stages.inherit.teacher: stage 'tune' does not come before 'inherit'"),
        ("stages/inherit/teacher_decay", 0.9, r"only a teacher that is a copy of the model"),
        ("stages/tune/cache", {"image": "output"}, r"stages.tune.cache.image: .*random views"),
        ("data/languages", ["en", False], r"data.languages: YAML reads no as a boolean; write the language code in quotes"),
        ("stages/tune/epochs", 0, r"stages.tune.epochs: 0.* must be a finite number above 0"),
        ("trainer/checkpoint_every", 0, r"trainer.checkpoint_every: 0 must be a finite number at least 1"),
        ("data/test", None, r"evaluate: stage 'teacher' has nothing to measure on; give data.test"),
        ("stages/tune/data", {"test": None}, r"evaluate: stage 'tune' has nothing to measure on"),
        ("run_dir", "", r"run_dir is empty"),
        ("init_from", " ", r"init_from is empty"),
        ("stages/inherit/teacher", [], r"stages.inherit.teacher: it is empty; name something, or leave it out"),
        ("stages/inherit/take", [], r"stages.inherit.take: it is empty"),
        ("stages/inherit/init_from", "", r"stages.inherit.init_from: it is empty"),
        ("release", "tun", r"there is no stage 'tun'; did you mean 'tune'"),
        ("stages", {}, r"stages is empty"),
        ("model", None, r"stages.inherit.take: there is no model to put the parts into"),
        ("stages/tune/losses", {}, r"neither may be empty"),
    ],
)
def test_what_is_wrong_is_named(tiny_recipe, path, value, message):
    change(tiny_recipe, path, value)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny_recipe)


def test_a_stage_may_bring_its_own_release(tiny_recipe):
    stage = {**tiny_recipe["stages"]["tune"], "init_from": "local-dir:release"}
    alone = {**tiny_recipe, "model": None, "stages": {"tune": stage}}
    assert load_recipe(alone).model is None
    assert load_recipe({**alone, "stages": {"tune": stage, "again": {**stage, "init_from": None}}}).model is None
    with pytest.raises(RecipeError, match=r"stages.again: there is no model: give model, or init_from"):
        load_recipe({**alone, "stages": {"again": {**stage, "init_from": None}}})


def test_what_is_held_back_is_measured(tiny_recipe):
    """data.test alone is enough; null says that nothing is."""
    given = {key: value for key, value in tiny_recipe.items() if key != "evaluate"}
    measured = load_recipe(given).evaluate
    assert measured is not None and measured.task == "retrieval"
    assert load_recipe({**given, "evaluate": None}).evaluate is None
    given["data"] = {key: value for key, value in given["data"].items() if key != "test"}
    assert load_recipe(given).evaluate is None
    assert load_recipe(given, {"data.test": "shards"}).evaluate == measured


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        *(("stages/tune/train", {"head": rate}, r"stages.tune.train.head: .* above 0") for rate in (0.0, -1e-3, NAN, INF)),
        *(("stages/tune/epochs", value, r"stages.tune.epochs: .* above 0") for value in (-1.0, NAN, INF)),
        *(("stages/tune/clip_norm", value, r"stages.tune.clip_norm: .* above 0") for value in (0.0, -1.0, NAN)),
        *(("stages/tune/weight_decay", value, r"stages.tune.weight_decay: .* at least 0") for value in (-0.1, INF)),
        *(("stages/tune/warmup", value, r"stages.tune.warmup: .* at least 0 and at most 1") for value in (-0.1, 1.1, NAN)),
        *(
            ("stages/tune/betas", value, r"stages.tune.betas: .*two numbers")
            for value in ([0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, NAN])
        ),
        *(("stages/tune/ema", value, r"stages.tune.ema: .*between 0 and 1") for value in (0.0, 1.0, NAN)),
        *(("stages/tune/accumulate", value, r"stages.tune.accumulate: .* at least 1") for value in (0, -2)),
        ("stages/tune/teacher_decay", 1.1, r"stages.tune.teacher_decay: .* at most 1"),
        ("stages/tune/eps", 0.0, r"stages.tune.eps: .* above 0"),
        ("stages/tune/layer_decay", {"encoder": NAN}, r"stages.tune.layer_decay.encoder: .* above 0 and at most 1"),
        ("stages/tune/dropout", {"head": -0.5}, r"stages.tune.dropout.head: .* at least 0"),
        ("stages/tune/validate", {"every_epochs": 0.0}, r"stages.tune.validate.every_epochs: .* above 0"),
        ("stages/tune/validate", {"patience": 0}, r"stages.tune.validate.patience: .* at least 1"),
        *(
            ("stages/tune/losses/clip", {"weight": w}, r"stages.tune.losses.clip.weight: .*finite number")
            for w in (NAN, INF, "a", True)
        ),
        ("stages/tune/losses/clip", {"label_smoothing": 1.5}, r"stages.tune.losses.clip.label_smoothing: 1.5 is not .*at most 1"),
        (
            "stages/tune/losses/x",
            {"loss": "logit_distillation", "teacher_scale": 0.0},
            r"losses.x.teacher_scale: 0.0 is not .*above 0",
        ),
        (
            "stages/tune/losses/x",
            {"loss": "logit_distillation", "student_scale": INF},
            r"losses.x.student_scale: inf is not a finite",
        ),
        (
            "stages/tune/losses/x",
            {"loss": "ensemble_distillation", "teacher_scales": [1.0, -1.0]},
            r"teacher_scales: -1.0 is not",
        ),
        ("stages/tune/losses/x", {"loss": "explicit_negatives", "scale": -50.0}, r"losses.x.scale: -50.0 is not .*above 0"),
        ("stages/tune/losses/x", {"loss": "reweighted_negatives", "beta": NAN}, r"losses.x.beta: nan is not a finite number"),
        (
            "stages/tune/losses/x",
            {"loss": "clip", "chunks": 2},
            r"stages.tune.losses.x: unknown key 'chunks'; did you mean 'chunk'",
        ),
        *(("data/batch_size", value, r"data.batch_size: .* at least 1") for value in (0, -4)),
        ("stages/tune/data", {"batch_size": 0}, r"stages.tune.data.batch_size: 0 must be .* at least 1"),
        ("data/num_workers", -1, r"data.num_workers: -1 must be"),
        ("data/timeout", INF, r"data.timeout: inf must be a finite number at least 0"),
        ("data/error_budget", 1.5, r"data.error_budget: .* at most 1"),
        ("data/samples_per_epoch", 0, r"data.samples_per_epoch: 0 must be"),
        ("data/train", {"a": -1.0}, r"data.train.a: -1.0 must be a finite number above 0"),
        ("data/augment", {"scale": 0.0}, r"data.augment.scale: .* above 0 and at most 1"),
        ("data/augment", {"flip": 2.0}, r"data.augment.flip: .* at most 1"),
        *(("trainer/devices", value, r"trainer.devices: .* 1 or more, or auto") for value in (0, -2, "many", "0")),
        ("trainer/num_nodes", 0, r"trainer.num_nodes: 0 must be"),
        ("trainer/timeout_s", 0, r"trainer.timeout_s: 0 must be"),
        ("trainer/skip_nonfinite", -1, r"trainer.skip_nonfinite: -1 must be"),
        ("trainer/strategy", "fsdpp", r"trainer.strategy: there is no 'fsdpp'; did you mean 'fsdp'"),
        ("trainer/accelerator", "cudaa", r"trainer.accelerator: there is no 'cudaa'; did you mean 'cuda'"),
        ("seed", -1, r"seed: -1 must be"),
    ],
)
def test_numbers_and_names_that_make_no_sense_are_refused_when_the_recipe_is_read(tiny_recipe, path, value, message):
    change(tiny_recipe, path, value)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny_recipe)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("trainer/devices", value) for value in (2, "2", "auto", -1, "-1")),
        *(("trainer/strategy", value) for value in ("auto", "ddp", "fsdp", "deepspeed_stage_2", "ddp_spawn")),
        *(("trainer/accelerator", value) for value in ("auto", "gpu", "cuda", "mps")),
        ("stages/tune/clip_norm", None),
        ("stages/tune/teacher_decay", 0.0),
        ("stages/tune/losses/clip", {"weight": 0}),
        ("data/timeout", 0.0),
    ],
)
def test_values_at_the_edge_are_fine(tiny_recipe, path, value):
    change(tiny_recipe, path, value)
    assert list(load_recipe(tiny_recipe).stages) == list(tiny_recipe["stages"])


def test_overrides_reach_any_depth_and_the_recipe_survives_a_round_trip(tiny_recipe):
    recipe = load_recipe(
        tiny_recipe, {"stages.tune.losses.clip.label_smoothing": 0.2, "data.batch_size": 5, "model.embed_dim": 8}
    )
    assert recipe.stages["tune"].losses["clip"]["label_smoothing"] == 0.2
    assert (recipe.data.batch_size, recipe.model["embed_dim"]) == (5, 8)
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_an_override_replaces_what_was_there(tiny_recipe):
    recipe = load_recipe(tiny_recipe, {"stages.tune.losses": {"clip": {}}, "stages.tune.train": {"head": 1e-3}})
    assert list(recipe.stages["tune"].losses) == ["clip"] and list(recipe.stages["tune"].train) == ["head"]
    tiny_recipe["data"]["train"] = {"a": 1.0, "b": 2.0}
    tiny_recipe["stages"]["tune"]["data"]["train"] = {"c": 1.0}
    recipe = load_recipe(tiny_recipe, {"data.train": {"b": 3.0}})
    assert recipe.data.train == {"b": 3.0} and recipe.stage_data("tune").train == {"c": 1.0}


def test_stage_data_overrides_the_recipe(tiny_recipe):
    recipe = load_recipe(tiny_recipe)
    assert recipe.stage_data("tune").augment.flip == 0.5 and recipe.stage_data("inherit").augment.flip == 0.0
    assert recipe.stage_data("tune").batch_size == 10


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3", 3),
        ("true", True),
        ("null", None),
        ("[en, de]", ["en", "de"]),
        ("asset:x/y", "asset:x/y"),
        ("nan", "nan"),
        ("-2", -2),
    ],
)
def test_values_of_overrides(text, value):
    assert parse_override(text) == value and type(parse_override(text)) is type(value)


def test_recipe_files(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no recipe .*did you mean 'proclip/openmoji'"):
        load_recipe("proclip/openmojii")
    (tmp_path / "bad.yaml").write_text("stages: [unclosed")
    with pytest.raises(RecipeError, match=r"bad.yaml: not valid YAML"):
        load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load_recipe(tmp_path / "list.yaml")


PAYLOADS = (
    "telltale.Thing",
    {"class_path": "telltale.Thing"},
    {"class_path": "telltale.Thing", "init_args": {"a": 1}},
    [{"class_path": "telltale.Thing"}],
    {"loss": "telltale.Thing", "name": "telltale.Thing", "family": "telltale.Thing"},
    "!!python/object/apply:telltale.Thing []",
    "$(touch {marker})",
)


def words(values, path=()):
    """The place of every setting of a resolved recipe that holds words, or could: nothing, or a list or table of them."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield (*path, key)  # a table too may be given as something else
            yield from words(value, (*path, key))
    elif values is None or isinstance(values, str | list):
        yield path


def make_all_of(recipe):
    """Everything a run builds from words of its recipe, before it reads any data."""
    from modalign.trainers.build import build_family
    from modalign.trainers.objective import Objective

    loaded = load_recipe(recipe)
    for name, stage in loaded.stages.items():
        Objective(stage.losses, name)
        loaded.stage_data(name)
        for model in (loaded.model, stage.model):
            if model is not None:
                build_family(model, "model")


def test_a_recipe_cannot_run_code(tmp_path, tiny_recipe, monkeypatch):
    """At no place that holds words do words, or tables, name code that runs."""
    marker = tmp_path / "ran"
    (tmp_path / "telltale.py").write_text(f"open({str(marker)!r}, 'w')\nclass Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    tiny_recipe["stages"]["teacher"]["validate"] = {"metric": "text_to_image/R@10"}
    resolved = yaml.safe_load(load_recipe(tiny_recipe).to_yaml())
    places = list(dict.fromkeys(words(resolved)))
    assert {("run_dir",), ("trainer", "strategy"), ("stages", "teacher", "losses"), ("model", "image", "name")} <= set(places)
    for place in places:
        for payload in PAYLOADS:
            recipe = copy.deepcopy(resolved)
            payload = payload.format(marker=marker) if isinstance(payload, str) else payload
            change(recipe, "/".join(place), copy.deepcopy(payload))
            with contextlib.suppress(ModalignError):
                make_all_of(recipe)
            assert not marker.exists() and "telltale" not in sys.modules, (place, payload)


def test_a_recipe_file_cannot_run_code(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(f"stages: !!python/object/apply:os.system ['touch {marker}']")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(tmp_path / "evil.yaml")
    assert not marker.exists()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_parse(name):
    recipe = load_recipe(name, {"init_from": "runs/any"} if "finetune" in name else None)
    assert recipe.title
    demo = name == "proclip/openmoji"  # `make demo` and the README name its folder
    assert recipe.run_dir == ("runs/openmoji" if demo else f"runs/{name.replace('/', '-')}")


def test_every_recipe_has_a_run_folder_of_its_own(tmp_path):
    folders = [load_recipe(name, {"init_from": "runs/any"}).run_dir for name in shipped_recipes()]
    assert len(set(folders)) == len(folders)
    own = tmp_path / "mine" / "my_recipe.yaml"
    own.parent.mkdir()
    own.write_text(shipped_recipes()["clip/flickr8k"].read_text())
    assert load_recipe(own).run_dir == "runs/my_recipe"
    own = tmp_path / "configs" / "lit" / "flickr8k.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(shipped_recipes()["lit/flickr8k"].read_text())
    assert load_recipe(own).run_dir == "runs/lit-flickr8k"
    assert load_recipe(own, {"run_dir": "runs/here"}).run_dir == "runs/here"


def test_headers_and_docs_name_the_folders_that_recipes_write_to():
    """`modalign eval runs/X` in the header of a recipe is about that recipe's run."""
    for name, file in shipped_recipes().items():
        recipe = load_recipe(name, {"init_from": "runs/any"})
        for line in file.read_text().splitlines():
            if found := re.match(r"#\s+modalign (?:eval|search|embed|export) (runs/[\w/-]+)", line):
                assert found.group(1) == recipe.run_dir, name
