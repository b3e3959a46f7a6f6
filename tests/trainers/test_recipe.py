"""Recipes: keys and types are checked, overrides reach any depth, nothing in one can run code."""

import pytest
import yaml

from modalign.trainers.recipe import load_recipe, parse_override, shipped_recipes
from modalign.zoo.errors import RecipeError


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
        ("stages/tune/epochs", 0, r"stages.tune: epochs or steps must be above 0"),
        ("trainer/checkpoint_every", 0, r"checkpoint_every and keep_checkpoints must be at least 1"),
        ("release", "tun", r"there is no stage 'tun'; did you mean 'tune'"),
        ("stages", {}, r"stages is empty"),
        ("model", None, r"stages.inherit: there is no model"),
        ("stages/tune/losses", {}, r"neither may be empty"),
    ],
)
def test_what_is_wrong_is_named(tiny_recipe, path, value, message):
    change(tiny_recipe, path, value)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny_recipe)


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


def test_a_recipe_cannot_run_code(tmp_path, tiny_recipe):
    marker = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(f"stages: !!python/object/apply:os.system ['touch {marker}']")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(tmp_path / "evil.yaml")
    tiny_recipe["stages"]["tune"]["losses"] = {"x": {"class_path": "subprocess.Popen", "init_args": {"args": f"touch {marker}"}}}
    from modalign.trainers.objective import Objective
    from modalign.zoo.errors import ModalignError

    with pytest.raises(ModalignError, match="no loss named 'x'"):
        Objective(load_recipe(tiny_recipe).stages["tune"].losses)
    assert not marker.exists()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_parse(name):
    recipe = load_recipe(name, {"init_from": "runs/any"} if "finetune" in name else None)
    assert recipe.title and recipe.run_dir == f"runs/{name.split('/')[1]}"
