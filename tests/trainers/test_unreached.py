"""Trained parameters that no loss reaches: they stay as they are, on one process, on two with DDP, on two with FSDP2."""

import pytest
import torch
from launching import CLI, assert_equal_runs, start, weights, write_recipe

from modalign.trainers import train
from modalign.trainers.roles import TrainedParameter
from modalign.trainers.unreached import tell_unreached

#: losses; how the parameters are called that they do not reach; strategies of two ranks and parts of a step to try
CASES = {
    "bias": ({"multi_positive": {}}, ("logit_bias",), [("ddp", 1)]),
    "text_only": (
        {"clip": {"image": "second_text_embedding"}},
        ("image.", "image_projector.", "logit_bias"),
        [("ddp", 2), ("fsdp", 1)],
    ),
}


def recipe_of(pair_recipe, case):
    """A SigLIP stage of six steps that trains everything, with enough weight decay to be seen."""
    stage = pair_recipe["stages"]["pair"]
    stage |= {
        "teacher": None,
        "teacher_decay": 1.0,
        "losses": CASES[case][0],
        "ignore_bias": True,
        "weight_decay": 1.0,
        "epochs": 1,
    }
    stage["train"]["projector"] = 1e-3
    stage["model"]["family"] = "siglip"
    return pair_recipe


def started(recipe, folder):
    """The weights before the first step: those of a run whose learning rates round away."""
    stage = recipe["stages"]["pair"]
    still = stage | {"train": dict.fromkeys(stage["train"], 1e-30), "steps": 1, "epochs": None}
    return weights(train(recipe | {"stages": {"pair": still}, "run_dir": str(folder)}))


@pytest.mark.timeout(280)
@pytest.mark.parametrize("case", CASES)
def test_they_stay_as_they_are_on_any_number_of_ranks(pair_recipe, tmp_path, capsys, case):
    recipe, (_, unreached, ways) = recipe_of(pair_recipe, case), CASES[case]
    before = started(recipe, tmp_path / "still")
    capsys.readouterr()
    whole = train(recipe | {"run_dir": str(tmp_path / "whole")})
    assert "got no gradient in the first step" in capsys.readouterr().out
    still = {name for name, value in weights(whole).items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.startswith(unreached)}
    for strategy, parts in ways:
        run, path = tmp_path / f"{strategy}{parts}", write_recipe(recipe, tmp_path / "recipe.yaml")
        ranks = ["--trainer.devices", 2, "--trainer.strategy", strategy, "--stages.pair.accumulate", parts]
        process = start([*CLI, "train", path, "--run_dir", run, *ranks])
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output[-3000:]
        assert output.count("got no gradient in the first step") == 1 and "find_unused" not in output, output[-3000:]
        assert_equal_runs(run, whole)
        assert all(torch.equal(weights(run)[name], before[name]) for name in still), strategy


def test_they_are_named(capsys):
    values = [torch.nn.Parameter(torch.full((2,), float("nan"))) for _ in range(6)]
    trained = [TrainedParameter(f"part.{number}", "head", value, 1.0) for number, value in enumerate(values)]
    values[1].grad = torch.zeros(2)
    tell_unreached(trained)
    said = capsys.readouterr().out
    assert "5 of 6 trained parameters got no gradient" in said and "part.0, part.2, part.3, …" in said
    for value in values:
        value.grad = torch.zeros(2)
    tell_unreached(trained)
    assert capsys.readouterr().out == ""
