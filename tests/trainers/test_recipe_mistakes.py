"""Mistakes of recipes and command lines that are easily made: one sentence that names the setting, never a traceback or a silent run."""

import importlib.util
import os
import re

import pytest
import torch
import yaml

from modalign.trainers import load_recipe, train
from modalign.trainers.lightning_refusal import lightnings_refusal
from modalign.trainers.objective import Objective
from modalign.trainers.recipe import parse_override
from modalign.trainers.recipe.settings import TrainerConfig
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.errors import AssemblyError, ModalignError, NameGrammarError, RecipeError

NAN, BIG = float("nan"), 10**400


def change(recipe, path, value):
    *parents, last = path.split("/")
    for key in parents:
        recipe = recipe.setdefault(key, {})
    recipe[last] = value


@pytest.fixture
def short(tiny_recipe):
    """One stage of one step, nothing measured."""
    stage = tiny_recipe["stages"]["teacher"] | {"steps": 1}
    stage.pop("epochs")
    tiny_recipe["stages"] = {"teacher": stage}
    tiny_recipe.pop("evaluate")
    return tiny_recipe


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        *(
            (
                "stages/tune/losses",
                {label: {"loss": "clip"}},
                f"stages.tune.losses: {re.escape(repr(label))} cannot be the label of a loss",
            )
            for label in ("keys", "type", "a.b", "", " ", "a\nb", "training")
        ),
        ("evaluate/stages", ["tuna"], r"evaluate.stages: there is no stage 'tuna'; did you mean 'tune'"),
        ("evaluate/baselines", {"a": {"b": NAN}}, r"evaluate.baselines.a.b: nan must be a finite number"),
        ("evaluate/languages", [], r"evaluate.languages: \[\] must name at least one"),
        ("data/languages", [], r"data.languages: \[\] must name at least one"),
        ("data/languages", ["en", " "], r"data.languages: .* none of them blank"),
        ("data/val_languages", [], r"data.val_languages: \[\] must name at least one"),
        ("stages/tune/data", {"languages": []}, r"stages.tune.data.languages: \[\] must name at least one"),
        ("data/augment", {"color": 1e300}, r"data.augment.color: 1e\+300 must be .* at most 10"),
        ("data/timeout", 1e30, r"data.timeout: 1e\+30 must be .* at most"),
        ("trainer/timeout_s", 10**30, r"trainer.timeout_s: 1000\d* must be .* at most"),
        ("trainer/log_every", BIG, r"trainer.log_every: a whole number of more than 100 digits must be a finite number"),
        ("trainer/log_every", 10**5000, r"trainer.log_every: a whole number of more than 100 digits"),
        ("stages/tune/train", {"encoder": BIG}, r"stages.tune.train: expected .*, got {'encoder': 10*…$"),
        ("stages/tune/train", {"encoder": [10**5000]}, r"stages.tune.train: expected .*, got a dict that cannot be shown"),
        ("stages/tune/losses/clip", {"weight": BIG}, r"stages.tune.losses.clip.weight: .* finite number"),
        ("seed", BIG, r"seed: .* must be a finite number"),
        ("model/embed_dim", -1, r"model.embed_dim: -1 must be a whole number from 1"),
        ("model/embed_dim", 10**12, r"model.embed_dim: 1000000000000 must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # a huge number has no text
)
def test_refused_when_the_recipe_is_read(tiny_recipe, path, value, message):
    change(tiny_recipe, path, value)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny_recipe)


def test_a_label_is_a_text():
    with pytest.raises(RecipeError, match=r"losses: 1 cannot be the label of a loss"):
        Objective({1: {"loss": "clip"}})


@pytest.mark.parametrize("label", ["clip", "second term", "loss", "deutsch-ß"])
def test_other_labels_are_fine(label):
    assert list(Objective({label: {"loss": "clip"}}).terms) == [label]


@pytest.mark.parametrize("text", ["seed: " + "9" * 5000, "[" * 3000])
def test_yaml_that_python_cannot_hold(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"r.yaml: not valid YAML"):
        load_recipe(tmp_path / "r.yaml")
    assert isinstance(parse_override("9" * 5000), float) or parse_override("9" * 5000) == "9" * 5000


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": "timm:../x"}, NameGrammarError, r"timm:../x: timm cannot build it"),
        ({"name": "timm:test_vit", "image_size": 7}, AssemblyError, r"image_size: 7 pixels do not go with this network"),
        ({"name": "timm:test_vit", "image_size": 10**6}, AssemblyError, r"image_size: 1000000 must be a whole number from 1"),
        ({"name": "timm:test_vit", "image_size": -3}, AssemblyError, r"image_size: -3 must be a whole number from 1"),
        ({"name": "timm:test_vit", "options": {"depth": 1}}, AssemblyError, r"options: {'depth': 1} has no meaning for"),
    ],
)
def test_image_encoders(settings, error, message):
    with pytest.raises(error, match=message):
        build_image_encoder(ImageEncoderConfig(pretrained=False, **settings))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_accelerator_that_is_not_there(short):
    change(short, "trainer/accelerator", "gpu")
    with pytest.raises(RecipeError, match=r"trainer: this machine cannot train with accelerator 'gpu', .*accelerator: auto"):
        train(short)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="it is installed")
def test_a_strategy_that_is_not_installed(short):
    change(short, "trainer/strategy", "deepspeed")
    with pytest.raises(RecipeError, match=r"trainer: this machine cannot train with .*strategy 'deepspeed'.*DeepSpeed"):
        train(short)


def test_errors_of_our_own_keep_their_traceback():
    with pytest.raises(TypeError), lightnings_refusal(TrainerConfig()):
        raise TypeError("a bug")


@pytest.mark.parametrize("devices", [-1, "-1"])
def test_all_devices_of_a_cpu(short, devices):
    change(short, "trainer/devices", devices)
    assert (train(short) / "stages" / "teacher" / "done.json").is_file()


def test_a_loss_that_reads_no_tensor(short):
    short["stages"]["teacher"]["losses"] = {"clip": {"image": "keys"}}
    with pytest.raises(AssemblyError, match=r"loss ClipLoss reads 'keys', which is no tensor but list"):
        train(short)


@pytest.mark.parametrize("case", ["file", "in a file", "nul", "proc", "long"])
def test_run_folders_that_cannot_be_made(short, tmp_path, case):
    (tmp_path / "file").write_text("x")
    short["run_dir"] = {
        "file": str(tmp_path / "file"),
        "in a file": str(tmp_path / "file" / "run"),
        "nul": "a\0b",
        "proc": "/proc/modalign-run",
        "long": str(tmp_path / ("x" * 300)),
    }[case]
    with pytest.raises(RecipeError, match=r"run_dir: the folder .* cannot be made or written to .*give another --run_dir"):
        train(short)
    assert (tmp_path / "file").read_text() == "x"


def test_a_run_folder_without_permission(short, tmp_path):
    if os.geteuid() == 0:  # whom nothing is forbidden: a folder in the lock's place does it
        (tmp_path / "run" / ".lock").mkdir(parents=True)
    else:
        (tmp_path / "run").mkdir(mode=0o555)
    short["run_dir"] = str(tmp_path / "run")
    with pytest.raises(RecipeError, match=r"run_dir: the folder .* cannot be made or written to"):
        train(short)


def test_what_is_said_is_one_line(tiny_recipe):
    """Also of a recipe that came as text."""
    tiny_recipe["evaluate"]["stages"] = ["tuna"]
    with pytest.raises(ModalignError) as raised:
        load_recipe(yaml.safe_load(yaml.safe_dump(tiny_recipe)))
    assert "\n" not in str(raised.value)
