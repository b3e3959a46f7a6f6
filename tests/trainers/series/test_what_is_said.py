"""What train and eval say of the data: which columns are taken, which row of a table is left out, and in whose words."""

import json

import pytest

from modalign.trainers import load_recipe, train
from modalign.trainers.cli import main
from modalign.trainers.evaluation.command import evaluate
from modalign.trainers.series.table_words import table_words
from modalign.zoo.errors import AssemblyError, DataError, RecipeError


@pytest.fixture
def recipe(recipe_of, table, tmp_path):
    return recipe_of("dlinear", table, tmp_path / "run", epochs=1)


def said(capsys):
    return capsys.readouterr().out.replace("\n", " ")


def test_the_columns_that_are_taken_and_left_out(recipe, make_table, tmp_path, capsys):
    """A numeric year is a channel like any other, unless someone reads this line."""
    table = make_table(tmp_path / "y.csv", columns=("load", "wind", "year", "note"))
    at = {"data.train": str(table), "evaluate": None}
    train(load_recipe(recipe, at | {"data.series.ignore": ["note"], "run_dir": str(tmp_path / "all")}))
    assert f"{table}: columns predicted: load, wind, year; left out: note" in said(capsys)
    train(load_recipe(recipe, at | {"data.series.target": ["load"], "run_dir": str(tmp_path / "one")}))
    assert f"{table}: columns predicted: load; left out: wind, year, note" in said(capsys)


def test_a_long_list_of_columns_is_cut(recipe, make_table, tmp_path, capsys):
    table = make_table(tmp_path / "w.csv", rows=200, columns=[f"c{number}" for number in range(14)])
    train(load_recipe(recipe, {"data.train": str(table), "evaluate": None}))
    assert "predicted: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 2 more" in said(capsys)


def test_without_a_validation_part_dlinear_is_left_out_and_said_so(recipe, tmp_path, capsys):
    """All of the training is not lost for one row of its table."""
    del recipe["stages"]["forecast"]["validate"]
    run = train(load_recipe(recipe, {"data.series.split": {"train": 0.8, "val": 0.0, "test": 0.2}}))
    report = json.loads((run / "stages/forecast/eval.json").read_text())
    assert "dlinear (seed 0)" not in report["baselines"] and "seasonal_naive_24" in report["baselines"]
    assert "no DLinear beside the model" in report["notes"][0] and "the val part has no window" in report["notes"][0]
    assert "no DLinear beside the model" in said(capsys) and (run / "report.html").exists()


def test_a_test_part_without_a_window_is_found_before_training(recipe, tmp_path):
    with pytest.raises(DataError, match="the test part has no window"):
        train(load_recipe(recipe, {"data.series.split": {"train": 0.8, "val": 0.2, "test": 0.0}}))
    assert not (tmp_path / "run/stages/forecast/done.json").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"target": ["lod"]}, "--target: .* has no column 'lod'"),
        ({"past": ["wind"], "target": ["load"]}, "--past: dlinear makes no use of such columns"),
        ({"split": "ett_hour"}, "the borders ett_hour need 14400; give --split fractions or dates"),
        (
            {"split": {"train": 0.9, "val": 0.1, "test": 0.0}},
            r"the test part has no window.*with --split \(or data.series.few_shot\)",
        ),
        ({"split": {"val": "soon", "test": "later"}}, "--split.val: 'soon' is no date"),
    ],
)
def test_an_evaluation_speaks_of_options(recipe, table, tmp_path, words, reason):
    run = train(load_recipe(recipe, {"evaluate": None}))
    with pytest.raises((AssemblyError, DataError, RecipeError), match=reason):
        evaluate(str(run), str(table), device="cpu", **words)


def test_what_is_said_both_ways_is_said_once():
    with pytest.raises(DataError) as caught, table_words(recipe=False):
        raise DataError("name it with --anomaly (data.series.anomaly), or --decimal ,")
    assert str(caught.value).startswith("name it with --anomaly, or --decimal , (an option of modalign data series")
    with pytest.raises(DataError) as again, table_words(recipe=False), table_words(recipe=False):
        raise DataError("--decimal ,")
    assert str(again.value).count("an option of modalign") == 1


def test_a_table_with_semicolons_is_trained_on_measured_and_forecast(recipe, table, tmp_path):
    """As another country's Excel writes it, without a word about it."""
    other = tmp_path / "town.csv"
    other.write_text(table.read_text().replace(",", ";").replace(".", ","))
    run = train(load_recipe(recipe, {"data.train": str(other)}))
    whole = train(load_recipe(recipe, {"run_dir": str(tmp_path / "whole")}))
    ours, theirs = (json.loads((path / "stages/forecast/eval.json").read_text())["metrics"] for path in (run, whole))
    assert ours == theirs
    evaluate(str(run), str(other), device="cpu", dlinear=0)
    for name, history in (("a", other), ("b", table)):
        assert main(["forecast", str(run), str(history), "--out", str(tmp_path / f"{name}.csv")]) == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_a_stride_that_always_begins_at_the_same_hours(recipe, capsys):
    train(load_recipe(recipe, {"data.series.stride": 12, "data.batch_size": 8, "evaluate": None}))
    assert "windows 12 steps apart begin at 2 of the 24 places of a season only" in said(capsys)
