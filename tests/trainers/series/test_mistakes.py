"""What a recipe of series can get wrong: each is one sentence, before anything is trained."""

import json

import pytest

from modalign.trainers import load_recipe, train
from modalign.zoo.errors import AssemblyError, DataError, RecipeError


@pytest.fixture
def recipe(recipe_of, table, tmp_path):
    return recipe_of("dlinear", table, tmp_path / "run")


def refused(recipe, error, reason, overrides=None):
    with pytest.raises(error, match=reason):
        train(load_recipe(recipe, overrides))


def test_more_channels_than_positions(recipe_of, make_table, tmp_path):
    wide = make_table(tmp_path / "wide.csv", columns=[f"c{number}" for number in range(9)])
    recipe = recipe_of("calf-gpt2", wide, tmp_path / "run")
    recipe["model"]["language"]["architecture"]["n_positions"] = 8
    refused(recipe, AssemblyError, "9 channels are more than the 8 positions of the language model; take fewer, or a model")


@pytest.mark.parametrize("family", ["dlinear", "patchtst", "fsca-gpt2"])
@pytest.mark.parametrize("role", ["past", "known"])
def test_covariates_a_family_cannot_use_are_refused_not_left_out(recipe_of, table, tmp_path, family, role):
    recipe = recipe_of(family, table, tmp_path / "run")
    recipe["data"]["series"] |= {"target": ["load"], role: ["wind"]}
    name = family.split("-")[0]
    refused(
        recipe,
        AssemblyError,
        rf"data.series.{role}: {name} makes no use of such columns \(wind\); take them out, or take a family",
    )


def test_static_numbers_too(recipe_of, make_table, tmp_path):
    shops = make_table(tmp_path / "shops.csv", rows=60, series=("north", "south"))
    lines = shops.read_text().splitlines()
    sized = [lines[0] + ",size", *(line + (",1" if line.startswith("north") else ",2") for line in lines[1:])]
    shops.write_text("\n".join(sized))
    for family in ("dlinear", "patchtst", "fsca-gpt2"):
        recipe = recipe_of(family, shops, tmp_path / "run")
        recipe["data"]["series"] |= {"id": "shop", "static": ["size"]}
        refused(recipe, AssemblyError, r"data.series.static: \w+ makes no use of such columns \(size\)")
    recipe = recipe_of("calf-gpt2", shops, tmp_path / "run")
    recipe["data"]["series"] |= {"id": "shop", "static": ["size"]}
    shops.write_text("\n".join([sized[0], *(line[:-1] + "7" for line in sized[1:])]))
    refused(
        recipe, AssemblyError, r"data.series.static: size is 7 in every training series, so there is nothing to learn from it"
    )


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"data.series.target": ["lod"]}, DataError, r"has no column 'lod'; did you mean 'load'\?"),
        ({"data.series.past": ["load"], "data.series.target": ["load"]}, DataError, "column 'load' is in .*target and in .*past"),
        ({"data.series.past": ["load", "wind", "price"]}, DataError, "no column is left to predict"),
        ({"data.series.split": {"train": 0.7, "val": 0.3}}, RecipeError, "neither fractions of train, val and test nor dates"),
        ({"data.series.split": {"train": 0.8, "val": 0.0, "test": 0.2}}, DataError, "the val part has no window"),
        ({"data.series.split": "ett_hour"}, DataError, "has 400 rows, and the borders ett_hour need 14400"),
        ({"data.series.few_shot": 1}, DataError, "the train part has no window: .* data.series.few_shot"),
        (
            {"data.batch_size": 128},
            DataError,
            "batch_size 128 is more than the 126 samples of an epoch, so there is no full batch",
        ),
        (
            {"model.look_back": 400},
            DataError,
            "the test part has no window: a window takes 400 rows of look-back and 6 of horizon",
        ),
        ({"data.series.frequency": "D"}, DataError, "town.csv"),
        (
            {"stages.forecast.cache.image": "output"},
            RecipeError,
            "stages.forecast.cache: a model of time series has no features to keep",
        ),
        (
            {"stages.forecast.cache.text": True},
            RecipeError,
            "stages.forecast.cache: a model of time series has no features to keep",
        ),
        ({"stages.forecast.validate.metric": "mee"}, RecipeError, r"validate.metric: .*'mee'"),
        ({"stages.forecast.validate.metric": "text_to_image/R@10"}, RecipeError, "validate.metric"),
        ({"model.task": "imputation"}, AssemblyError, "model.task: dlinear does forecast, short_term, not imputation"),
        ({"model.task": "forecst"}, RecipeError, "model.task"),
        (
            {"evaluate": {"task": "retrieval"}},
            RecipeError,
            "evaluate.task: retrieval is not for a model of time series; .* is .*forecast",
        ),
        ({"stages.forecast.train": {"language": 1e-3}}, RecipeError, "language"),
        (
            {"stages.forecast.losses": {"clip": {}}},
            AssemblyError,
            "loss ClipLoss needs 'image_embedding'; known: prediction, target, values",
        ),
        (
            {"stages.forecast.schedules": {"hed": "constant"}},
            RecipeError,
            r"schedules: 'hed' does not train here; did you mean 'head'\?",
        ),
        ({"data.train": None}, RecipeError, "stages.forecast.data.train: say what to train on: a table, a folder of shards"),
        ({"data.train": "nowhere.csv"}, DataError, "nowhere.csv"),
    ],
)
def test_settings_that_do_not_fit(recipe, change, error, reason):
    refused(recipe, error, reason, change)


def test_a_constant_column(recipe, make_table, tmp_path):
    flat = make_table(tmp_path / "flat.csv")
    lines = flat.read_text().splitlines()
    flat.write_text("\n".join([lines[0], *(",".join([*line.split(",")[:2], "7", line.split(",")[3]]) for line in lines[1:])]))
    reason = r"flat.csv: column 'wind' has the constant value 7 in the 280 training rows, so it cannot be scaled"
    refused(recipe, DataError, reason, {"data.train": str(flat), "data.val": None, "data.test": None})


def test_the_policy_for_missing_values(recipe, make_table, tmp_path):
    """Left out of loss and metric, or refused with the first one's place."""
    gaps = make_table(tmp_path / "gaps.csv", gaps=0.05)
    here = {"data.train": str(gaps), "data.series.missing": "error"}
    refused(recipe, DataError, r"gaps.csv: series 'gaps', column '\w+' has no value at row \d+ \(2023-.*missing: mask", here)
    run = train(load_recipe(recipe, {"data.train": str(gaps)}))
    report = json.loads((run / "stages/forecast/eval.json").read_text())
    seen = report["n"]["windows"] * 6 * 3
    assert 0.85 * seen < report["n"]["elements"] < seen, "what is missing is not measured"


def test_sources_of_different_steps_or_columns(recipe, table, make_table, tmp_path):
    days = make_table(tmp_path / "days.csv", hours=24)
    other = make_table(tmp_path / "other.csv", columns=("load", "sun", "price"))
    for second, reason in (
        (days, r"days.csv: its columns or its step \(D\) are not those of .*town.csv \(h\)"),
        (other, "other.csv"),
    ):
        change = {"data.train": {str(table): 1.0, str(second): 1.0}, "data.val": str(table), "data.test": str(table)}
        refused(recipe, DataError, reason, change)


def test_two_sources_are_mixed_and_scaled_together(recipe, table, make_table, tmp_path):
    other = make_table(tmp_path / "other.csv", seed=3)
    change = {
        "data.train": {str(table): 3.0, str(other): 1.0},
        "data.val": str(table),
        "data.test": str(table),
        "data.samples_per_epoch": 128,
    }
    run = train(load_recipe(recipe, change))
    lines = (run / "stages/forecast/samples.csv").read_text().splitlines()
    keys = [key for line in lines[:4] for key in line.split(",")[1].split()]
    assert len(keys) == 128 and sum(key.startswith("other@") for key in keys) == 32


def test_series_settings_in_a_recipe_of_pictures(tiny_recipe):
    """And a forecast asked of pictures and texts."""
    one = {"stages": {"teacher": tiny_recipe["stages"]["teacher"]}}
    refused(
        tiny_recipe | one,
        RecipeError,
        "data.series: clip is no model of time series; take it out",
        {"data.series": {"stride": 2}},
    )
    refused(
        tiny_recipe | one,
        RecipeError,
        "evaluate.task: forecast is not for a model of pictures and texts",
        {"evaluate": {"task": "forecast"}},
    )


def test_the_command_line_says_it_in_one_line(recipe, tmp_path, capsys):
    import yaml

    from modalign.trainers.cli import main as modalign

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert modalign(["train", str(tmp_path / "r.yaml"), "--data.series.target", "[lod]"]) == 2
    said = capsys.readouterr().err
    assert "has no column 'lod'; did you mean 'load'?" in said and "Traceback" not in said
