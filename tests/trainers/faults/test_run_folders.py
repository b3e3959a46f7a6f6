"""What a run may write, and where: nothing outside its folder, nothing over somebody's own files."""

import shutil

import numpy as np
import pytest

from modalign.trainers import load_recipe, train
from modalign.trainers.cli import main
from modalign.zoo.errors import RecipeError


@pytest.mark.parametrize("name", ["../../../victim", "a/b", "..", ".hidden", "", "a\0b", "x" * 300, "/abs", 1, "two words"])
def test_a_stage_name_cannot_leave_the_run(tiny_recipe, tmp_path, name):
    victim = tmp_path / "victim" / "checkpoints"
    victim.mkdir(parents=True)
    (victim / "important.txt").write_text("mine")
    tiny_recipe["stages"] = {name: tiny_recipe["stages"]["teacher"]}
    tiny_recipe |= {"evaluate": None, "run_dir": str(tmp_path / "runs" / "a")}
    with pytest.raises(RecipeError, match="is no name for a stage"):
        train(tiny_recipe)
    assert (victim / "important.txt").read_text() == "mine"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["a", "stage-1", "stage_2.b", "überlagert"])
def test_ordinary_stage_names(tiny_recipe, name):
    tiny_recipe["stages"] = {name: tiny_recipe["stages"]["teacher"]}
    assert list(load_recipe(tiny_recipe).stages) == [name]


@pytest.mark.parametrize("own", ["recipe.yaml", "report.html", "metrics.csv", "release"])
def test_files_that_are_no_run_s_are_not_overwritten(tiny_recipe, tmp_path, own):
    project = tmp_path / "project"
    project.mkdir()
    (project / own).write_text("mine, with comments")
    tiny_recipe |= {"run_dir": str(project)}
    with pytest.raises(RecipeError, match=f"holds {own} but no run"):
        train(tiny_recipe)
    assert [path.name for path in project.iterdir()] == [own] and (project / own).read_text() == "mine, with comments"


@pytest.mark.parametrize("kept", ["shards.json", "000000.tar"])
def test_a_run_is_not_put_among_shards(tiny_recipe, tiny_shards, tmp_path, kept):
    shards = tmp_path / "shards"
    shards.mkdir()
    shutil.copy(tiny_shards / kept, shards)
    with pytest.raises(RecipeError, match=r"holds shards.*give another --run_dir"):
        train(tiny_recipe | {"run_dir": str(shards)})
    assert [path.name for path in shards.iterdir()] == [kept]


def test_a_run_goes_on_in_its_own_folder(tiny_recipe):
    tiny_recipe |= {"stages": {"teacher": tiny_recipe["stages"]["teacher"]}, "evaluate": None}
    run = train(tiny_recipe)
    assert (run / "recipe.yaml").exists() and train(tiny_recipe) == run
    (run / ".lock").unlink()  # as a copy without hidden files
    assert train(tiny_recipe) == run


def test_vectors_are_not_written_over_something_else(tiny_recipe, tiny_shards, tmp_path, capsys):
    tiny_recipe |= {"stages": {"teacher": tiny_recipe["stages"]["teacher"]}, "evaluate": None}
    run = train(tiny_recipe)
    (tmp_path / "r.yaml").write_text("mine")
    assert main(["embed", str(run), "--data", str(tiny_shards), "--out", str(tmp_path / "new.txt")]) == 2
    assert "ending in .npz" in capsys.readouterr().err and not (tmp_path / "new.txt").exists()
    assert main(["embed", str(run), "--data", str(tiny_shards), "--out", str(tmp_path / "r.yaml")]) == 2
    assert "give another name" in capsys.readouterr().err and (tmp_path / "r.yaml").read_text() == "mine"
    for _ in range(2):
        assert main(["embed", str(run), "--data", str(tiny_shards), "--out", str(tmp_path / "v.npz")]) == 0
    assert len(np.load(tmp_path / "v.npz")["keys"]) == 50
