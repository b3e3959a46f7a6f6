"""A command measures a model as its training did: the same rows, the same scale, the same baselines."""

import json

import pytest

from modalign import zoo
from modalign.trainers import train
from modalign.trainers.evaluation.command import evaluate
from modalign.trainers.series.opening import config_for
from modalign.zoo.configure import fill
from modalign.zoo.series.description import SeriesDescription


@pytest.mark.parametrize("series", [{"few_shot": 40.0}, {"scale": "none"}, {"split": {"train": 0.6, "val": 0.2, "test": 0.2}}])
def test_eval_gives_the_numbers_of_the_report(recipe_of, table, tmp_path, series):
    """DLinear beside a few-shot model sees no more rows than the model did."""
    recipe = recipe_of("dlinear", table, tmp_path / "run", epochs=1)
    recipe["data"]["series"] |= series
    run = train(recipe)
    evaluate(str(run), str(table), json=str(tmp_path / "e.json"), device="cpu")
    trained, measured = (json.loads(path.read_text()) for path in (run / "stages/forecast/eval.json", tmp_path / "e.json"))
    assert measured["baselines"] == trained["baselines"] and measured["metrics"] == trained["metrics"]
    assert zoo.load(run).config.series.few_shot == series.get("few_shot")


def test_what_an_older_release_knows_of_its_data_still_loads():
    known = fill(SeriesDescription, {"target": ["a"], "scale": {"a": [1.0, 2.0]}, "split": "ett_hour"}, "series")
    assert known.few_shot is None and known.static_scale == {}
    config = config_for(known, {})
    assert config.few_shot is None and config.scale == "standard" and config.split == "ett_hour"
