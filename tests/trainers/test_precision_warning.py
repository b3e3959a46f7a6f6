"""Weights of 16 bits do not take small steps: a stage that is to train so says it first."""

import pytest
import torch

from modalign.trainers import train


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "32-true"])
def test_said_at_the_start_of_a_stage_and_only_then(tiny_recipe, precision, capsys):
    stage = {key: value for key, value in tiny_recipe["stages"]["teacher"].items() if key != "epochs"} | {"steps": 1}
    tiny_recipe |= {"stages": {"one": stage}, "evaluate": None}
    tiny_recipe["trainer"] |= {"precision": precision, "progress": False}
    train(tiny_recipe)
    said = [line for line in capsys.readouterr().out.splitlines() if "bf16-mixed" in line]
    assert len(said) == (precision == "bf16-true")
    assert all(line.startswith("precision bf16-true: ") and "logit scale" in line for line in said)


def test_what_it_says_is_true():
    """AdamW's steps are as long as the rate: of a logit scale in bfloat16 none of a thousand arrives."""
    scales = [torch.nn.Parameter(torch.tensor(2.6593, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32)]
    starts = [scale.item() for scale in scales]
    optimizer = torch.optim.AdamW(scales, lr=1e-3, weight_decay=0.0)
    for _ in range(20):
        for scale in scales:
            scale.grad = torch.ones_like(scale)
        optimizer.step()
    assert scales[0].item() == starts[0] and scales[1].item() == pytest.approx(starts[1] - 0.02, abs=1e-4)
