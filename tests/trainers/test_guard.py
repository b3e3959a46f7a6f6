"""Loss or gradients that are not finite: nothing of the step stays, every rank stops, and the message names the samples."""

import csv
import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from modalign.trainers import train
from modalign.trainers.guard import FiniteGuard
from modalign.zoo.encoders.image.base import ImageEncoder
from modalign.zoo.errors import DataError
from modalign.zoo.losses.clip import ClipLoss


def one_step(guard, parameter, optimizer, gradient, step, keys=("a", "b")):
    parameter.grad = torch.full_like(parameter, gradient)
    guard.watch(step, keys, torch.tensor(1.0), parameter.grad.norm(), optimizer)
    optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
def test_a_bad_step_leaves_weights_and_optimiser_as_they_were(fused):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer, guard = torch.optim.AdamW([parameter], lr=0.1, fused=fused), FiniteGuard(budget=1)
    one_step(guard, parameter, optimizer, 1.0, 0)
    before, state = parameter.detach().clone(), {k: v.clone() for k, v in optimizer.state[parameter].items()}
    one_step(guard, parameter, optimizer, float("nan"), 1)
    assert torch.equal(parameter, before)
    assert all(torch.equal(optimizer.state[parameter][k], v) for k, v in state.items())
    guard.check()
    assert guard.skipped == 1
    one_step(guard, parameter, optimizer, 1.0, 2)
    assert not torch.equal(parameter, before), "a good step after it counts"
    one_step(guard, parameter, optimizer, float("inf"), 3, ("c", "d"))
    with pytest.raises(DataError, match=r"the gradient is not a finite number at step 3 \(2 such steps.*allows 1.*c, d"):
        guard.check()


def worker(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer, guard = torch.optim.AdamW([parameter], lr=0.1, fused=True), FiniteGuard()
    parameter.grad = torch.ones(2)
    loss = torch.tensor(float("nan") if rank == 1 else 1.0)
    guard.watch(7, [f"key{rank}"], loss, torch.tensor(1.0), optimizer)
    optimizer.step()
    try:
        guard.check()
        message = ""
    except DataError as error:
        message = str(error)
    results[rank] = (message, parameter.detach().tolist())
    dist.destroy_process_group()


def test_one_rank_s_nan_stops_every_rank_and_is_named(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(worker, (str(tmp_path / "store"), results), nprocs=2)
        messages = dict(results)
    for message, values in messages.values():
        assert "the loss is not a finite number at step 7" in message
        assert "rank 1: key1" in message and "key0" not in message
        assert values == [1.0, 1.0], "no rank took the step"


@pytest.fixture
def nan_at(monkeypatch):
    """Makes the loss of some steps NaN."""
    original = ClipLoss.forward

    def install(*steps):
        count = iter(range(10**6))

        def forward(self, outputs, batch):
            value = original(self, outputs, batch)
            if next(count) in steps:
                value.value = value.value * float("nan")
            return value

        monkeypatch.setattr(ClipLoss, "forward", forward)

    return install


def run_of(recipe):
    recipe["stages"] = {"teacher": recipe["stages"]["teacher"]}
    recipe["evaluate"] = None
    recipe["trainer"]["log_every"] = 3
    return recipe


def test_a_run_stops_with_the_samples_of_the_step(tiny_recipe, nan_at, tmp_path):
    nan_at(1)
    with pytest.raises(DataError, match=r"the loss is not a finite number at step 1; samples of that step: rank 0: k0") as caught:
        train(run_of(tiny_recipe))
    seen = (tmp_path / "run" / "stages" / "teacher" / "samples.csv").read_text().splitlines()[1]
    assert all(key in seen for key in str(caught.value).split("rank 0: ")[1].split(".")[0].split(", "))
    assert not list((tmp_path / "run").glob("stages/*/checkpoints/step-*")), "nothing is saved of it"


def test_a_run_may_skip_within_its_budget(tiny_recipe, nan_at):
    nan_at(1)
    tiny_recipe["trainer"]["skip_nonfinite"] = 1
    run = train(run_of(tiny_recipe))
    assert json.loads((run / "stages" / "teacher" / "done.json").read_text())["skipped_steps"] == 1
    with (run / "metrics.csv").open() as stream:
        assert all(float(row["loss"]) == float(row["loss"]) for row in csv.DictReader(stream))


def test_statistics_of_a_step_left_out_are_put_back():
    guard, norm = FiniteGuard(budget=2), torch.nn.BatchNorm1d(2)
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    for step, value in enumerate((1.0, float("nan"))):
        before = [buffer.clone() for buffer in norm.buffers()]
        guard.remember(list(norm.buffers()))
        norm(torch.full((4, 2), value))
        one_step(guard, parameter, optimizer, value, step)
        assert all(torch.equal(*pair) for pair in zip(before, norm.buffers(), strict=True)) is (step == 1)


def test_training_batch_norms_survive_a_bad_picture(tiny_recipe, monkeypatch):
    """The forward pass spoils the running statistics before the guard sees the loss."""
    original, calls = ImageEncoder.normalise, iter(range(10**6))

    def normalise(self, pixels):
        return original(self, pixels) * (float("nan") if next(calls) == 1 else 1.0)

    monkeypatch.setattr(ImageEncoder, "normalise", normalise)
    stage = tiny_recipe["stages"]["teacher"] | {"batch_norm": "train", "train": {"encoder": 1e-3, "head": 1e-3, "aux": 1e-3}}
    tiny_recipe["trainer"]["skip_nonfinite"] = 1
    recipe = run_of(tiny_recipe)
    recipe["stages"] = {"teacher": stage}
    run = train(recipe)
    assert json.loads((run / "stages" / "teacher" / "done.json").read_text())["skipped_steps"] == 1
    weights = load_file(run / "release" / "model.safetensors")
    statistics = [name for name in weights if "running_" in name]
    assert statistics and all(torch.isfinite(weights[name]).all() for name in weights)
    assert {int(weights[name]) for name in weights if name.endswith("num_batches_tracked")} == {4}, "five steps, one left out"
