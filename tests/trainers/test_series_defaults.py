"""What recipes and commands of time series mean by themselves, and the words they refuse things in."""

import json

import numpy as np
import pytest
import torch
import yaml

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.trainers.cli import main
from modalign.trainers.series.anomaly import AnomalyTask
from modalign.trainers.series.table_words import table_words
from modalign.zoo.checkpoints.card import model_card
from modalign.zoo.errors import DataError, RecipeError
from modalign.zoo.registry import FAMILIES
from modalign.zoo.series.description import SeriesDescription

ARCHITECTURE = {"model_type": "gpt2", "vocab_size": 40, "n_positions": 64, "n_embd": 16, "n_head": 2, "n_layer": 1}
CALF = {
    "look_back": 12,
    "horizon": 4,
    "llm": "random",
    "language": {"name": None, "architecture": ARCHITECTURE, "blocks": 1},
    "heads": 2,
    "ffn": 16,
    "dictionary": 8,
    "lora": None,
}
ROLES = {"encoder": 1e-3, "projector": 1e-3, "language": 1e-3, "head": 1e-3, "aux": 1e-3}
LOSSES = {"series_error": {}, "output_consistency": {}, "layerwise_alignment": {}}


@pytest.fixture
def csv(tmp_path):
    """120 hours of two columns."""
    start = np.datetime64("2024-01-01", "s")
    lines = ["time,load,note"]
    lines += [f"{start + np.timedelta64(hour, 'h')},{hour % 24 + hour % 7},{hour % 5}" for hour in range(120)]
    (tmp_path / "town.csv").write_text("\n".join(lines))
    return tmp_path / "town.csv"


@pytest.fixture
def recipe(csv, tmp_path):
    return {
        "model": {"family": "calf", **CALF},
        "data": {"train": str(csv), "batch_size": 16, "series": {"split": {"train": 0.5, "val": 0.25, "test": 0.25}}},
        "stages": {"one": {"train": dict(ROLES), "losses": dict(LOSSES), "steps": 1}},
        "trainer": {"accelerator": "cpu", "progress": False},
        "run_dir": str(tmp_path / "run"),
    }


def release_of(folder, **settings):
    torch.manual_seed(0)
    model = FAMILIES.get("calf").from_settings({**CALF, **settings})
    scale = {"load": [14.0, 7.0], "note": [2.0, 1.5]}
    model.describe(SeriesDescription(["load", "note"], frequency="h", scale=scale, labels=["a", "b"]))
    return zoo.save_release(model.eval(), folder)


def test_dates_of_yaml_are_texts(recipe, tmp_path):
    """Unquoted dates are dates to YAML, in a recipe and on the command line."""
    recipe["data"]["series"]["split"] = {"train": 1.0}
    text = yaml.safe_dump(recipe).replace("train: 1.0", "val: 2024-01-03\n      test: 2024-01-04 12:00:00")
    (tmp_path / "dates.yaml").write_text(text)
    wanted = {"val": "2024-01-03", "test": "2024-01-04T12:00:00"}
    assert load_recipe(tmp_path / "dates.yaml").data.series.split == wanted
    dates = yaml.safe_load("{val: 2024-01-03, test: 2024-01-04 12:00:00}")
    found = load_recipe(recipe, {"data.series.split": dates})
    assert found.data.series.split == wanted and load_recipe(yaml.safe_load(found.to_yaml())) == found


def test_a_word_where_a_list_belongs(recipe):
    with pytest.raises(
        RecipeError, match=r"data.series.target: expected list\[str\] \| None, got 'load'; a list is written \[load\]"
    ):
        load_recipe(recipe, {"data.series.target": "load"})


@pytest.mark.parametrize("task", ["forecast", "imputation", "anomaly", "short_term"])
def test_fine_tuning_is_measured_by_what_the_release_does(recipe, tmp_path, task):
    start = release_of(tmp_path / "start", task=task)
    without = {key: value for key, value in recipe.items() if key != "model"}
    for said in ({"init_from": str(start)}, {"stages.one.init_from": str(start)}):
        found = load_recipe(without, said)
        assert found.evaluate.task == task and found.data.test == found.data.val == recipe["data"]["train"]


def test_a_classifier_is_not_measured_on_what_it_trains_on(recipe, series_assets, monkeypatch, own_home, capsys):
    monkeypatch.setenv("MODALIGN_DATA", str(series_assets))
    recipe["model"] |= {"task": "classification", "look_back": 64}
    recipe["data"] = {"train": "asset:fsdd-envelopes/train", "batch_size": 16}
    recipe["stages"]["one"] |= {"train": {"encoder": 1e-3, "head": 1e-3}, "losses": {"label_cross_entropy": {}}}
    found = load_recipe(recipe)
    assert found.data.test is found.data.val is found.evaluate is None
    with pytest.raises(RecipeError, match=r"has nothing to measure on; give data.test, or take evaluate out"):
        load_recipe(recipe, {"evaluate": {"task": "classification"}})
    train(load_recipe(recipe, {"data.test": "asset:fsdd-envelopes/train"}))
    assert "data.test is what the stage trains on" in capsys.readouterr().out


def test_classifiers_are_validated_by_accuracy(recipe, series_assets, monkeypatch, own_home, tmp_path):
    monkeypatch.setenv("MODALIGN_DATA", str(series_assets))
    recipe["model"] |= {"task": "classification", "look_back": 64}
    recipe["data"] = {"train": "asset:fsdd-envelopes/train", "val": "asset:fsdd-envelopes/test", "batch_size": 16}
    recipe["stages"]["one"] |= {"train": {"head": 1e-3}, "losses": {"label_cross_entropy": {}}, "validate": {"every_epochs": 0.1}}
    run = train(load_recipe(recipe))
    assert json.loads((run / "stages/one/done.json").read_text())["metric"] == "accuracy"
    with pytest.raises(RecipeError, match=r"validate.metric: mse is not measured of classification; take accuracy"):
        train(load_recipe(recipe, {"stages.one.validate.metric": "mse", "run_dir": str(tmp_path / "second")}))


def test_quantiles_that_no_loss_reads_are_named(recipe, capsys):
    recipe["model"]["head"] = "quantile"
    train(load_recipe(recipe, {"evaluate": None}))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "stages.one.losses: the model has quantiles and no loss reads them, so only their median trains; add pinball: {}" in said
    )
    train(load_recipe(recipe, {"stages.one.losses.pinball": {}, "evaluate": None, "run_dir": recipe["run_dir"] + "2"}))
    assert "no loss reads them" not in capsys.readouterr().out


PACK = " (an option of modalign data series: pack the table with it, and take the shards)"


@pytest.mark.parametrize(
    ("said", "recipe", "told"),
    [
        ("leave it out with --ignore 'a b'", True, "leave it out with data.series.ignore: [a b]"),
        ("or say --missing 'x' if", True, "or say data.series.missing_marks: [x] if"),
        (
            "--frequency, --time none or --time_format s",
            True,
            "data.series.frequency, data.series.time none or data.series.time_format s",
        ),
        ("leave it out with --ignore 'a'", False, "leave it out with --ignore 'a'"),
        ("say --decimal ,", True, f"say --decimal ,{PACK}"),
        ("say --delimiter ';'", False, f"say --delimiter ';'{PACK}"),
    ],
)
def test_tables_are_spoken_of_in_the_words_of_the_place(said, recipe, told):
    with pytest.raises(DataError) as caught, table_words(recipe=recipe):
        raise DataError(said)
    assert str(caught.value) == told


def test_a_column_of_texts(recipe, csv, tmp_path, capsys):
    """Left out where the recipe says so; a forecast and an evaluation of the same table then have to say it too."""
    csv.write_text(
        "\n".join(line + (",remark" if number == 0 else ",fine") for number, line in enumerate(csv.read_text().split("\n")))
    )
    with pytest.raises(DataError, match=r"leave the column out with data.series.ignore: \[remark\]"):
        train(load_recipe(recipe))
    run = train(load_recipe(recipe, {"data.series.ignore": ["remark"], "evaluate": None}))
    assert main(["forecast", str(run), str(csv), "--out", str(tmp_path / "f.csv")]) == 2
    assert "leave the column out with --ignore 'remark'" in capsys.readouterr().err
    assert main(["forecast", str(run), str(csv), "--out", str(tmp_path / "f.csv"), "--ignore", "remark"]) == 0
    assert main(["eval", str(run), "--data", str(csv), "--ignore", "remark", "--dlinear", "0", "--seasons", "6,12"]) == 0
    printed = capsys.readouterr().out
    assert "seasonal naive 6" in printed and "seasonal naive 12" in printed


def test_marks_of_missing_values_and_times(recipe, csv, tmp_path):
    run = train(load_recipe(recipe, {"evaluate": None}))
    lines = csv.read_text().split("\n")
    rows = [line.split(",") for line in lines[1:]]
    rows[100][1] = "-9999"
    days = [f"{time[8:10]}/{time[5:7]}/{time[:4]} {time[11:16]},{load},{note}" for time, load, note in rows]
    (tmp_path / "odd.csv").write_text("\n".join([lines[0], *days]))
    words = ["--missing", "-9999", "--time_format", "%d/%m/%Y %H:%M", "--out", str(tmp_path / "f.csv")]
    assert main(["forecast", str(run), str(tmp_path / "odd.csv"), words[0] + "=" + words[1], *words[2:]]) == 0
    assert (tmp_path / "f.csv").read_text().split("\n")[1].startswith("2024-01-06 00:00:00,")


def test_a_model_of_another_task_does_not_forecast(csv, tmp_path, capsys):
    start = release_of(tmp_path / "start", task="imputation")
    assert main(["forecast", str(start), str(csv), "--out", str(tmp_path / "f.csv")]) == 2
    assert "this calf was trained for imputation, so it does not forecast; give one of task: forecast" in capsys.readouterr().err


def test_numbers_for_seasons(csv, tmp_path, capsys):
    start = release_of(tmp_path / "start")
    assert main(["eval", str(start), "--data", str(csv), "--seasons", "six"]) == 2
    assert "it can be numbers with commas between them, such as 24,168" in capsys.readouterr().err


def test_cards_of_other_tasks_show_the_baselines_too(tmp_path):
    model = zoo.load(release_of(tmp_path / "start", task="imputation"))
    errors = {"mse": 0.5, "mae": 0.25, "windows": 7, "elements": 70, "original": {"mse": 1.0}}
    report = {
        "task": "imputation",
        "data": "town.csv",
        "n": {"windows": 7, "hidden": 70},
        "metrics": errors,
        "baselines": {"linear": errors | {"mse": 0.125}},
    }
    card = model_card(model, evaluation=report)
    assert "imputation on `town.csv`: 7 windows, 70 hidden." in card
    assert "| by | mse | mae |\n|---|---|---|\n| this model | 0.5 | 0.25 |\n| linear | 0.125 | 0.25 |" in card


def test_anomalies_are_shown_measure_by_measure():
    scores = {"threshold": 1.5, "unadjusted_f1": 0.25}
    report = {"metrics": scores, "baselines": {"random scores": scores}, "n": {"rows": 9, "anomalous": 2}, "data": "d"}
    (table,) = AnomalyTask.tables(report)
    assert table.header == ("measure", "model", "random scores")
    assert table.rows == [("threshold", "1.500", "1.500"), ("unadjusted f1", "0.250", "0.250")]
