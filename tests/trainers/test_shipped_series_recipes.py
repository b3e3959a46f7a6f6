"""Every shipped recipe of time series runs: two steps, with a tiny language model and toy series under the names of the real assets."""

import json

import numpy as np
import pytest

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.trainers.commands.export import export
from modalign.trainers.commands.forecast import forecast
from modalign.trainers.kinds import kind_of_recipe
from modalign.trainers.recipe import shipped_recipes

FINETUNE = "calf/finetune"
LOADED = {n: load_recipe(n) for n in shipped_recipes() if "/finetune" not in n}
RECIPES = [n for n, recipe in LOADED.items() if kind_of_recipe(recipe).name == "series"]
ROWS, WINDOWS = 3200, 40  # rows for 720 steps in every part, windows in that of the test
#: settings that are tied to the width of the real language model
NARROW = {
    "calf": {"dictionary": 8, "ffn": 16, "heads": 2},
    "fsca": {"read_width": 8, "coarse_width": 4},
    "patchtst": {"width": 8, "heads": 2, "ffn": 16, "layers": 1},
    "dlinear": {},
}


def task_of(name):
    return LOADED[name].model.get("task", "forecast")


def small(name, run, **more):
    """The recipe as it is but for sizes that belong to the real model and the real data."""
    recipe = LOADED[name]
    family, task = recipe.model["family"], task_of(name)
    overrides = {"run_dir": str(run), "trainer.accelerator": "cpu", "trainer.progress": False, "data.batch_size": 8}
    overrides |= {f"model.{key}": value for key, value in NARROW[family].items()}
    for stage, settings in recipe.stages.items():
        overrides |= {f"stages.{stage}.epochs": None, f"stages.{stage}.steps": 2}
        if settings.validate is not None:
            overrides[f"stages.{stage}.validate.every_epochs"] = 1e-6  # every step
    if task in ("forecast", "imputation"):
        part = (recipe.model.get("horizon", 96) + WINDOWS - 1) / ROWS
        overrides["data.series.split"] = {"train": 1 - 2 * part, "val": part, "test": part}
        overrides |= {"data.series.stride": 4, "data.series.val_stride": 16, "data.series.few_shot": None}
    if task == "forecast":
        overrides["evaluate.options.forecast.dlinear"] = 0
    return load_recipe(name, overrides | more)


@pytest.fixture(autouse=True)
def _toys(series_assets, own_home, monkeypatch):
    monkeypatch.setenv("MODALIGN_DATA", str(series_assets))


def test_every_recipe_is_run():
    assert len(RECIPES) >= 24 and {LOADED[name].model["family"] for name in RECIPES} == set(NARROW)
    assert set(map(task_of, RECIPES)) == {"forecast", "imputation", "classification", "short_term"}


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps(name, tmp_path):
    recipe = small(name, tmp_path / "run")
    run = train(recipe)
    (stage,) = recipe.stages
    report = json.loads((run / "stages" / stage / "eval.json").read_text())
    task = task_of(name)
    assert report["task"] == task and report["baselines"]
    done = json.loads((run / "stages" / stage / "done.json").read_text())
    assert done["steps"] == 2
    if task == "forecast":
        assert report["n"]["windows"] == WINDOWS, "every window of the test part"
        assert (
            report["settings"]["look_back"] == recipe.model["look_back"]
            and "| last_value |" in (run / "release/README.md").read_text()
        )
    assert (run / "report.html").is_file() and zoo.load(run).config.series.target


def test_what_the_recipes_of_etth1_say_is_what_the_protocol_says():
    for name in RECIPES:
        if "etth1" in name:
            recipe = LOADED[name]
            elsewhere = name.endswith("zero_shot")
            assert recipe.data.series.split == "ett_hour" and recipe.data.train == recipe.data.val == "asset:etth1"
            assert recipe.data.test == ("asset:household-power" if elsewhere else "asset:etth1")
            assert recipe.model["horizon"] == next((h for h in (192, 336, 720) if name.endswith(str(h))), 96)


def test_fine_tuning_starts_from_a_release_and_takes_a_table(tmp_path):
    start = train(small("calf/household_power", tmp_path / "start"))
    columns = [f"c{place}" for place in range(7)]
    rows = np.sin(2 * np.pi * np.arange(900)[:, None] / 24 + np.arange(7)) * 5 + np.random.default_rng(3).normal(size=(900, 7))
    times = np.datetime64("2022-05-01", "s") + np.arange(900) * np.timedelta64(3600, "s")
    lines = [",".join([str(time), *(f"{value:.5g}" for value in row)]) for time, row in zip(times, rows, strict=True)]
    (tmp_path / "my.csv").write_text("\n".join([",".join(["time", *columns]), *lines]))
    overrides = {
        "init_from": str(start),
        "data.train": str(tmp_path / "my.csv"),
        "data.series.split": {"train": 0.5, "val": 0.25, "test": 0.25},
        "run_dir": str(tmp_path / "run"),
        "stages.finetune.epochs": None,
        "stages.finetune.steps": 2,
        "data.batch_size": 8,
        "trainer.accelerator": "cpu",
        "trainer.progress": False,
        "evaluate.options.forecast.dlinear": 0,
    }
    run = train(load_recipe(FINETUNE, overrides))
    before, after = zoo.load(start), zoo.load(run)
    changed = {key.split(".")[0] for key, value in before.state_dict().items() if not value.equal(after.state_dict()[key])}
    assert changed == {"tokens", "match", "language", "series_features", "text_features", "head"}
    mean = rows[:450].mean(axis=0)
    np.testing.assert_allclose(
        [after.config.series.scale[column][0] for column in columns], mean, rtol=1e-4, atol=1e-6
    )  # 5 digits each
    forecast(str(run), str(tmp_path / "my.csv"), out=str(tmp_path / "f.csv"), device="cpu")
    assert (tmp_path / "f.csv").read_text().splitlines()[1].startswith("2022-06-07 12:00:00,")
    export(str(run), str(tmp_path / "slim"), to="inference")
    assert zoo.load(tmp_path / "slim").dictionary is None
