"""`modalign data inspect` shows what a step sees: the same samples as training logs, the pixels after random views, the tokens."""

import pytest
import torch
import yaml
from PIL import Image

from modalign.datasets.commands.sheet import CELL
from modalign.trainers import train
from modalign.trainers.cli import main
from modalign.trainers.commands.inspect import build
from modalign.trainers.recipe import load_recipe


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    stage = tiny_recipe["stages"]["tune"] | {
        "teacher": None,
        "teacher_decay": 1.0,
        "losses": {"clip": {}},
        "validate": None,
        "epochs": 2,
    }
    tiny_recipe |= {"stages": {"tune": stage}, "evaluate": None}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe, sort_keys=False))
    return path


def test_the_batch_of_a_step(recipe_file, tmp_path, capsys):
    run = train(recipe_file)
    seen = dict(line.split(",") for line in (run / "stages" / "tune" / "samples.csv").read_text().splitlines())
    before = sorted(path for path in run.rglob("*"))
    capsys.readouterr()
    assert main(["data", "inspect", f"{recipe_file}:7", "--rows", "10", "--out", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    keys = [line.split()[1] for line in out.splitlines() if line[:1].isdigit() and ": k" in line]
    assert keys == seen["7"].split()
    assert "(10, 3, 32, 32)" in out and "uint8" in out and "text_ids" in out and "[en] " in out
    assert "tokens: [CLS] | thing | number |" in out.replace("\n", " ") and "masked)" in out
    assert sorted(path for path in run.rglob("*")) == before, "looking changes nothing"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 4 * CELL


def test_a_run_is_looked_at_as_its_recipe(recipe_file, tmp_path, capsys):
    run = train(load_recipe(recipe_file, {"seed": 5}))
    seen = dict(line.split(",") for line in (run / "stages" / "tune" / "samples.csv").read_text().splitlines())
    capsys.readouterr()
    assert main(["data", "inspect", f"{run}:3", "--rows", "10", "--out", str(tmp_path / "sheet.png")]) == 0
    keys = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit() and ": k" in line]
    assert keys == seen["3"].split()
    assert main(["data", "inspect", str(run), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "stage tune, step 0 of 10" in capsys.readouterr().out


def test_a_recipe_without_a_model_needs_the_one_to_start_from(recipe_file, tiny_shards, tmp_path, capsys):
    run = train(recipe_file)
    plain = yaml.safe_load(recipe_file.read_text())
    without = tmp_path / "without.yaml"
    without.write_text(yaml.safe_dump({key: value for key, value in plain.items() if key != "model"}))
    command = ["data", "inspect", str(without), "--rows", "2", "--out", str(tmp_path / "sheet.png")]
    assert main(command) == 2
    assert "init_from with a release" in capsys.readouterr().err
    assert main([*command, "--init_from", str(run)]) == 0
    assert "stage tune, step 0 of 10" in capsys.readouterr().out


def test_pixels_are_those_of_the_step(recipe_file):
    recipe = load_recipe(recipe_file)
    _, loader = build(recipe, "tune")
    first, again = (next(iter(build(recipe, "tune")[1])) for _ in range(2))
    assert torch.equal(first["image"], again["image"]) and first["image"].dtype == torch.uint8
    plain = load_recipe(recipe_file, {"stages.tune.data": {}})
    assert not torch.equal(next(iter(build(plain, "tune")[1]))["image"], first["image"]), "random views are on"
    assert loader.num_workers == 0


def test_shards_as_they_are_stored(tiny_shards, tmp_path, capsys):
    assert main(["data", "inspect", str(tiny_shards), "--rows", "3", "--out", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert (
        "k002" in out
        and "k003  (" not in out
        and "[de] Ding Nummer 1" in out
        and "picture: 40x40" in out
        and "members: json 65, png " in out
    )
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}:10"], "there is no step 10; the stage has 10, counted from 0"),
        (["{}", "--stage", "tun"], "there is no stage 'tun'; did you mean 'tune'?"),
        (["{}", "--rows", "0"], "rows is 0"),
        (["no_such_recipe"], "there is no recipe"),
        (["{}", "--out", "/proc/none/x.png"], "cannot be written"),
    ],
)
def test_wrong_arguments(recipe_file, capsys, arguments, message):
    assert main(["data", "inspect", *(one.format(recipe_file) for one in arguments)]) == 2
    assert message in capsys.readouterr().err
