"""A stage alone: what it refuses before it trains, when it stops, where and in what precision it computes, what it takes over."""

import json

import pytest
import torch

from modalign.trainers import train
from modalign.zoo.errors import RecipeError


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_wrong_metric_is_found_before_anything_trains(tiny_recipe, tmp_path):
    tiny_recipe["stages"]["tune"]["validate"] = {"metric": "text_to_image/R@11"}
    with pytest.raises(RecipeError, match=r"stages.tune.validate.metric: there is no 'text_to_image/R@11'; did you mean"):
        train(tiny_recipe)
    assert not (tmp_path / "run" / "stages").exists()


def test_a_stage_that_had_decided_to_stop_does_not_go_on(tiny_recipe, monkeypatch):
    """Killed after the checkpoint of the step at which patience was over."""
    from modalign.trainers import stage as stage_module
    from modalign.trainers.callbacks.validate import Validate

    tune = tiny_recipe["stages"]["tune"] | {"epochs": 20, "validate": {"every_epochs": 0.4, "patience": 2}}
    tiny_recipe |= {"stages": {"tune": tune}, "evaluate": None}
    tiny_recipe["trainer"]["checkpoint_every"] = 2
    judge = Validate._judge
    monkeypatch.setattr(
        Validate, "_judge", lambda self, trainer, step, metrics: judge(self, trainer, step, {self.settings.metric: -float(step)})
    )
    save = stage_module.save_release

    def killed(*_args, **_settings):
        raise RuntimeError("power cut")

    monkeypatch.setattr(stage_module, "save_release", killed)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny_recipe)
    monkeypatch.setattr(stage_module, "save_release", save)
    run = train(tiny_recipe)
    done = json.loads((run / "stages" / "tune" / "done.json").read_text())
    assert (done["steps"], done["best_step"]) == (6, 2), "the first validation was the best, and two more were not better"


def test_cached_features_in_pure_bfloat16(tiny_recipe):
    """They are kept in float32; the module computes in bfloat16."""
    stage = tiny_recipe["stages"]["tune"] | {
        "teacher": None,
        "teacher_decay": 1.0,
        "losses": {"clip": {}},
        "epochs": 1,
        "data": {},
    }
    stage |= {"train": {"head": 1e-3, "projector": 1e-3}, "cache": {"image": "output", "text": True}}
    tiny_recipe |= {"stages": {"tune": stage}, "evaluate": None}
    tiny_recipe["trainer"]["precision"] = "bf16-true"
    run = train(tiny_recipe)
    assert all(torch.isfinite(value).all() for value in weights(run / "release").values())
    assert {value.dtype for value in weights(run / "release").values() if value.is_floating_point()} == {torch.float32}


def test_features_are_computed_on_the_run_s_device_and_the_encoder_returns(tiny_recipe, monkeypatch):
    from modalign.trainers import stage as stage_module
    from modalign.zoo.encoders.image.base import ImageEncoder

    tiny_recipe["seed"] = 4711  # nobody has cached these yet
    moves, to = [], ImageEncoder.to
    monkeypatch.setattr(ImageEncoder, "to", lambda self, device: moves.append(str(device)) or to(self, device))
    below = ImageEncoder.below
    monkeypatch.setattr(ImageEncoder, "below", lambda self, *a: moves.append("below") or below(self, *a))
    monkeypatch.setattr(stage_module, "own_device", lambda _settings: torch.device("cpu", 0))  # another name for the same place
    stage = tiny_recipe["stages"]["tune"] | {"epochs": 1, "data": {}, "train": {"head": 1e-3}, "cache": {"image": "output"}}
    tiny_recipe |= {"stages": {"tune": stage | {"teacher": None, "teacher_decay": 1.0, "losses": {"clip": {}}}}, "evaluate": None}
    train(tiny_recipe)
    assert moves[0] == "cpu:0" and moves[-1] == "cpu" and set(moves[1:-1]) == {"below"}


@pytest.mark.parametrize("flaw", ["missing", "foreign"])
def test_weights_that_are_not_what_the_stage_trains_are_named(flaw):
    from modalign.trainers.stage_result import load_trained
    from modalign.zoo.errors import ReleaseError

    model = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 2), "two": torch.nn.Linear(2, 2)})
    expected = frozenset({"one.weight", "one.bias"})
    state = {f"model.{name}": torch.zeros_like(model.state_dict()[name]) for name in expected}
    load_trained(model, state | {"teacher.x": torch.zeros(1)}, expected, "here")
    assert not model["one"].weight.any() and model["two"].weight.any()
    state = {"model.one.weight": torch.zeros(2, 2)} if flaw == "missing" else state | {"model.two.bias": torch.zeros(2)}
    with pytest.raises(ReleaseError, match="it lacks one.bias" if flaw == "missing" else "it has besides two.bias"):
        load_trained(model, state, expected, "here")
    with pytest.raises(ReleaseError, match=r"the model does not have three.weight"):
        load_trained(model, {"model.three.weight": torch.zeros(1)}, frozenset({"three.weight"}), "here")
