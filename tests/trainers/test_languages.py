"""Languages that are named twice, or that no caption is in, are named before anything is trained or measured."""

import copy
import shutil

import pytest

from modalign.datasets.shards import ShardSet
from modalign.trainers import train
from modalign.trainers.cli import main
from modalign.trainers.languages import check_present
from modalign.trainers.recipe import load_recipe
from modalign.zoo.errors import DataError


@pytest.fixture
def short(tiny_recipe):
    """One stage of a few steps."""
    stage = {**tiny_recipe["stages"]["teacher"], "steps": 2}
    stage.pop("epochs")
    return {**tiny_recipe, "stages": {"one": stage}, "trainer": {"accelerator": "cpu"}}


def test_what_is_refused(tiny_shards):
    shards = ShardSet(tiny_shards)
    check_present(None, [shards], "x")
    check_present(["de", "en"], [shards], "x")
    with pytest.raises(DataError, match=r"x: 'en' is named twice"):
        check_present(["en", "de", "en"], [shards], "x")
    with pytest.raises(DataError, match=r"x: no caption in 'eng', 'fr' in .*; did you mean 'en'\?; there are de, en"):
        check_present(["eng", "de", "fr"], [shards], "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.languages": ["en", "fr"]}, r"stages.one.data.languages: no caption in 'fr'"),
        ({"data.languages": ["en", "en"]}, r"stages.one.data.languages: 'en' is named twice"),
        ({"evaluate.languages": ["xx"]}, r"evaluate.languages: no caption in 'xx'"),
        ({"data.val_languages": ["xx"], "stages.one.validate": {"every_epochs": 1.0}}, r"val_languages: no caption in 'xx'"),
    ],
)
def test_before_training(short, change, message):
    with pytest.raises(DataError, match=message):
        train(load_recipe(copy.deepcopy(short), change))


def test_a_test_set_that_is_not_there_costs_no_training(short, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        train(load_recipe(short, {"data.test": str(tmp_path / "nowhere")}))
    assert not (tmp_path / "run" / "stages").exists()


def test_what_is_trained_on_is_no_test(short, tmp_path, tiny_shards, capsys):
    run = train(load_recipe(short))
    assert "data.test is what the stage trains on" in " ".join(capsys.readouterr().out.split())
    arguments = ["eval", str(run), "--data", str(tiny_shards)]
    assert main([*arguments, "--languages", "[en,en]"]) == 2
    assert "named twice" in capsys.readouterr().err
    assert main([*arguments, "--languages", "[en,fr]"]) == 2
    assert "no caption in 'fr'" in capsys.readouterr().err


def test_a_finished_run_needs_no_training_data(short, tmp_path, tiny_shards):
    """The report of a finished run can be made again when what it was trained on is gone."""
    shutil.copytree(tiny_shards, tmp_path / "mine")
    recipe = load_recipe(short, {"data.train": str(tmp_path / "mine"), "data.val": None})
    run = train(recipe)
    shutil.rmtree(tmp_path / "mine")
    (run / "report.html").unlink()
    train(recipe)
    assert (run / "report.html").is_file()
