"""Recipes and commands of the tasks other than forecasting: settings without a meaning, missing values, known columns, what is told."""

import json

import numpy as np
import pytest

from modalign.trainers import load_recipe, train
from modalign.trainers.commands.forecast import forecast
from modalign.trainers.evaluation.command import evaluate
from modalign.zoo.errors import DataError, RecipeError


@pytest.fixture
def shops(make_table, tmp_path):
    """Three series of 60 hours in one table, with a class each."""
    path = make_table(tmp_path / "shops.csv", rows=60, series=("north", "south", "west"))
    kinds = {"shop": "kind", "north": "big", "south": "small", "west": "big"}
    path.write_text("\n".join(f"{line},{kinds[line.split(',')[0]]}" for line in path.read_text().splitlines()))
    return path


@pytest.fixture
def short(recipe_of, shops, tmp_path):
    """Short series: DLinear."""
    recipe = recipe_of("dlinear", shops, tmp_path / "run", epochs=None, steps=1, validate=None)
    recipe["model"] |= {"task": "short_term"}
    recipe["data"] |= {"batch_size": 3, "series": {"id": "shop", "label": "kind", "scale": "none", "history": 2.0}}
    return recipe


@pytest.fixture
def classes(recipe_of, shops, tmp_path):
    """Classes: CALF."""
    recipe = recipe_of("calf-gpt2", shops, tmp_path / "run", epochs=None, steps=1, validate=None)
    recipe["model"] |= {"task": "classification"}
    recipe["data"] |= {"batch_size": 3, "series": {"id": "shop", "label": "kind"}}
    recipe["stages"]["forecast"] |= {"train": {"encoder": 1e-3, "head": 1e-3}, "losses": {"label_cross_entropy": {}}}
    return recipe


@pytest.mark.parametrize("task", ["short", "classes"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("few_shot", 10.0),
        ("split", "ett_hour"),
        ("split", {"train": 0.5, "val": 0.0, "test": 0.5}),
        ("stride", 4),
        ("val_stride", 2),
    ],
)
def test_settings_that_cut_rows_are_refused_where_a_series_is_a_sample(request, task, name, value):
    recipe = request.getfixturevalue(task)
    said = {
        "short": "short_term, where a series is one sample: cut once",
        "classes": "classification, .*: its last rows and its class",
    }
    with pytest.raises(RecipeError, match=rf"data.series.{name}: .* has no meaning for {said[task]}.*; take it out"):
        train(load_recipe(recipe, {f"data.series.{name}": value}))


def test_an_evaluation_refuses_them_too(short, shops):
    run = train(load_recipe(short))
    with pytest.raises(RecipeError, match=r"--split: ett_hour has no meaning for short_term"):
        evaluate(str(run), str(shops), id="shop", ignore=["kind"], split="ett_hour", device="cpu")
    evaluate(str(run), str(shops), id="shop", ignore=["kind"], split="none", device="cpu")


@pytest.mark.parametrize("task", ["short", "classes"])
def test_missing_values_are_refused_where_the_recipe_says_so(request, shops, task):
    lines = shops.read_text().splitlines()
    cells = lines[46].split(",")  # row 45 of north
    lines[46] = ",".join([*cells[:2], "", *cells[3:]])
    shops.write_text("\n".join(lines))
    recipe = request.getfixturevalue(task)
    with pytest.raises(
        DataError, match=r"shops.csv: series 'north', column 'load' has no value at row 45 .*data.series.missing is error"
    ):
        train(load_recipe(recipe, {"data.series.missing": "error"}))
    train(load_recipe(recipe, {"data.series.missing": "mask"}))


def test_cuts_in_less_than_a_row(short):
    with pytest.raises(RecipeError, match=r"data.series.history: .* 0.1 · 6 \(model.horizon\) = 0.6 rows .* give 0.167 or more"):
        train(load_recipe(short, {"data.series.history": 0.1}))
    train(load_recipe(short, {"data.series.history": 0.167}))


def test_known_columns_of_short_series(recipe_of, shops, tmp_path):
    """From a recipe to a forecast that reads the plan."""
    recipe = recipe_of("calf-gpt2", shops, tmp_path / "run", epochs=None, steps=2, validate={"every_epochs": 1e-6})
    recipe["model"] |= {"task": "short_term"}
    roles = {"target": ["load"], "past": ["price"], "known": ["wind"]}
    recipe["data"] |= {"batch_size": 3, "series": {"id": "shop", "label": "kind", "scale": "none", **roles}}
    run = train(load_recipe(recipe))
    report = json.loads((run / "stages/forecast/eval.json").read_text())
    assert report["n"]["series"] == 3 and report["n"]["targets"] == 1 and np.isfinite(report["metrics"]["owa"])
    evaluate(str(run), str(shops), id="shop", ignore=["kind"], json=str(tmp_path / "e.json"), device="cpu")
    assert json.loads((tmp_path / "e.json").read_text())["metrics"] == report["metrics"]
    lines = shops.read_text().splitlines()
    north = [line.split(",", 1)[1].rsplit(",", 1)[0] for line in (lines[0], *lines[1:61])]
    (tmp_path / "history.csv").write_text("\n".join(north[:55]))
    found = []
    for name, wind in (("plan", None), ("other", "900")):
        rows = north[55:61] if wind is None else [",".join([row.split(",")[0], "0", wind, "0"]) for row in north[55:61]]
        (tmp_path / f"{name}.csv").write_text("\n".join([north[0], *rows]))
        words = {"out": str(tmp_path / f"{name}-f.csv"), "future": str(tmp_path / f"{name}.csv"), "device": "cpu"}
        forecast(str(run), str(tmp_path / "history.csv"), **words)
        found.append((tmp_path / f"{name}-f.csv").read_text())
    assert found[0].startswith("time,load\n") and found[0] != found[1], "what is known of the future is read"


def test_seasons_longer_than_the_look_back_are_refused(recipe_of, table, tmp_path):
    run = train(recipe_of("dlinear", table, tmp_path / "run", epochs=None, steps=1, validate=None) | {"evaluate": None})
    with pytest.raises(
        RecipeError, match=r"seasons: a window looks back 24 steps, so there is no last season of 100 to repeat; .* 1 to 24"
    ):
        evaluate(str(run), str(table), seasons=[12, 100], dlinear=0, device="cpu")
    evaluate(str(run), str(table), seasons=[24], dlinear=0, json=str(tmp_path / "e.json"), device="cpu")
    assert "seasonal_naive_24" in json.loads((tmp_path / "e.json").read_text())["baselines"]


def test_what_was_found_while_reading_is_told_once(recipe_of, make_table, tmp_path, capsys):
    """Training, validation and test sets are the same table here; an evaluation of another table tells of that one."""
    gap = make_table(tmp_path / "gap.csv")
    lines = gap.read_text().splitlines()
    gap.write_text("\n".join(lines[:100] + lines[103:]))
    run = train(recipe_of("dlinear", gap, tmp_path / "run", epochs=None, steps=1))
    note = "gap.csv: 3 rows (0.75%) not in the table and added with missing values, the first in series 'gap' after row 98"
    assert capsys.readouterr().out.count(note) == 1
    other = make_table(tmp_path / "other.csv", start=np.datetime64("2023-03-01T00:00", "s").item())
    lines = other.read_text().splitlines()
    other.write_text("\n".join(lines[:50] + lines[51:]))
    evaluate(str(run), str(other), dlinear=0, device="cpu")
    assert capsys.readouterr().out.count("other.csv: 1 row (0.25%) not in the table") == 1


def test_an_evaluation_says_that_the_step_is_another(recipe_of, table, make_table, tmp_path, capsys):
    """It is done all the same: zero-shot forecasting from hours to quarters of an hour is published."""
    days, other = (make_table(tmp_path / f"{name}.csv", rows=200, hours=24) for name in ("days", "other"))
    recipe = recipe_of("dlinear", table, tmp_path / "run", epochs=None, steps=1, validate=None)
    said = "{}.csv: its rows are one D apart, the model was trained on rows one h apart; "
    run = train(load_recipe(recipe, {"data.test": str(days)}))
    assert capsys.readouterr().out.count(said.format("days")) == 1
    evaluate(str(run), str(other), dlinear=0, device="cpu")
    assert capsys.readouterr().out.count(said.format("other")) == 1
    evaluate(str(run), str(table), dlinear=0, device="cpu")
    assert "apart" not in capsys.readouterr().out
