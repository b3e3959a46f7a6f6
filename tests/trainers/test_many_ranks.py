"""The same recipe on one rank, on two with DDP, on two with FSDP2; stopped, and continued on another number of ranks."""

import json
import math
import signal

import pytest
from launching import CLI, assert_equal_runs, start, wait_for_step, write_recipe

from modalign.trainers import train


def start_ranks(recipe, path, run, ranks, strategy, *more):
    """The command in processes of its own."""
    write_recipe(recipe, path)
    return start([*CLI, "train", path, "--run_dir", run, "--trainer.devices", ranks, "--trainer.strategy", strategy, *more])


def stop_after(process, run, steps):
    """Asks a run to stop once it has begun so many steps; returns its output."""
    wait_for_step(process, run, steps)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM, output[-3000:]
    return output


SHARES = """
import json
from pathlib import Path
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from modalign.trainers.task import TrainingTask

before = TrainingTask.on_train_start

def on_train_start(self):
    before(self)
    shares = {
        name: [value.numel(), value.to_local().numel() if isinstance(value, DTensor) else None]
        for prefix, model in (("model", self.model), ("teacher", self.teacher))
        for name, value in model.named_parameters(prefix)
    }
    Path(f"shares{dist.get_rank()}.json").write_text(json.dumps(shares))

TrainingTask.on_train_start = on_train_start
"""


@pytest.mark.timeout(280)
def test_two_sharded_ranks_equal_one(pair_recipe, tmp_path):
    """The two also compute their share in two parts (GradCache), and each holds its part of every parameter, also the teacher's."""
    whole = train(pair_recipe | {"run_dir": str(tmp_path / "whole")})
    (tmp_path / "shares.py").write_text(SHARES)
    path = write_recipe(pair_recipe, tmp_path / "recipe.yaml")
    command = [*CLI, "train", path, "--run_dir", tmp_path / "two", "--trainer.devices", 2, "--trainer.strategy", "fsdp"]
    process = start([*command, "--stages.pair.accumulate", 2, "--allow_module", "shares"], cwd=tmp_path)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output[-3000:]
    assert_equal_runs(tmp_path / "two", whole)
    one, other = (json.loads((tmp_path / f"shares{rank}.json").read_text()) for rank in (0, 1))
    unsharded = [name for name in one if one[name][1] is None or other[name][1] is None]
    assert one.keys() == other.keys() and not unsharded, unsharded
    assert all(one[name][1] + other[name][1] == size for name, (size, _) in one.items()), "every number is on exactly one rank"
    assert 0.45 < sum(mine for _, mine in one.values()) / sum(size for size, _ in one.values()) < 0.55


@pytest.mark.timeout(290)
def test_sharded_goes_on_alone_and_then_as_four(pair_recipe, tmp_path):
    """Two sharded ranks, stopped; one process, stopped; four DDP ranks: one run."""
    pair_recipe["stages"]["pair"]["epochs"] = 8  # 48 steps
    whole = train(pair_recipe | {"run_dir": str(tmp_path / "whole")})
    path, run = tmp_path / "recipe.yaml", tmp_path / "part"
    first = stop_after(start_ranks(pair_recipe, path, run, 2, "fsdp"), run, 3)
    assert "stopped by SIGTERM after step" in first
    second = stop_after(start_ranks(pair_recipe, path, run, 1, "auto"), run, 12)
    assert "continues at step" in second
    process = start_ranks(pair_recipe, path, run, 4, "ddp")
    third = process.communicate(timeout=240)[0]
    assert process.returncode == 0, third[-3000:]
    assert third.count("continues at step") == 1, "only the first rank speaks"
    # float32 sums in another order; Adam makes steps of their noise where a gradient is zero (the bias of attention keys)
    assert_equal_runs(run, whole, rel=1e-3, atol=1e-3)


@pytest.mark.timeout(280)
def test_two_go_on_as_four(pair_recipe, tmp_path):
    """Neither is ever one process."""
    pair_recipe["stages"]["pair"] |= {"teacher": None, "teacher_decay": 1.0, "losses": {"clip": {}}, "epochs": 8}
    whole = train(pair_recipe | {"run_dir": str(tmp_path / "whole")})
    path, run = tmp_path / "recipe.yaml", tmp_path / "part"
    stop_after(start_ranks(pair_recipe, path, run, 2, "ddp"), run, 3)
    process = start_ranks(pair_recipe, path, run, 4, "ddp")
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and output.count("continues at step") == 1, output[-3000:]
    assert_equal_runs(run, whole, rel=1e-3, atol=1e-3)


SLOW_READER = """
import os, time
import modalign.trainers.stage_result as result

class Slow(result.AtomicCheckpointIO):
    def load_checkpoint(self, *args, **settings):
        if os.environ.get("LOCAL_RANK") == "1":
            time.sleep(4)
        return super().load_checkpoint(*args, **settings)

result.AtomicCheckpointIO = Slow
"""


@pytest.mark.timeout(280)
def test_two_ranks_release_the_best_weights(pair_recipe, tmp_path):
    """With cached features; the second rank is slow to read `best`, which the first removes at the end of the stage."""
    (tmp_path / "slow_reader.py").write_text(SLOW_READER)
    stage = pair_recipe["stages"]["pair"]
    stage |= {"teacher": None, "teacher_decay": 1.0, "losses": {"clip": {}}, "epochs": 10, "schedule": "constant"}
    stage |= {"train": {"embedder": 3e-3, "head": 1e-3, "aux": 1e-2}, "cache": {"image": "output"}}
    stage["validate"] = {"metric": "text_to_image/R@10", "select": "best", "every_epochs": 1.0}
    pair_recipe["evaluate"] = {"languages": ["en"]}
    whole = train(pair_recipe | {"run_dir": str(tmp_path / "whole")})
    path, run = write_recipe(pair_recipe, tmp_path / "recipe.yaml"), tmp_path / "two"
    command = [*CLI, "train", path, "--run_dir", run, "--trainer.devices", 2, "--allow_module", "slow_reader"]
    process = start(command, cwd=tmp_path)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output[-3000:]
    ours, theirs = (json.loads((folder / "stages" / "pair" / "done.json").read_text()) for folder in (run, whole))
    assert theirs["best_step"] < theirs["steps"], "the best are the last; the test shows nothing"
    assert (ours["best"], ours["best_step"]) == (theirs["best"], theirs["best_step"])
    assert_equal_runs(run, whole, rel=1e-3, atol=1e-3)
    assert (run / "stages" / "pair" / "eval.json").exists()


NAN = """
import os
import torch
import torch.distributed as dist
from modalign.zoo.losses.clip import ClipLoss
from modalign.zoo.registry import LOSSES

@LOSSES.register("nan_clip")
class NanClip(ClipLoss):
    def forward(self, outputs, batch):
        steps = self.__dict__.setdefault("steps", [])
        steps.append(float(outputs["logit_scale"]))
        with open(f"scale{dist.get_rank()}", "a") as stream:
            print(steps[-1], file=stream)
        result = super().forward(outputs, batch)
        if dist.get_rank() == 1 and len(steps) in (3, 7):
            result.value = result.value * float("nan")
        return result
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_nan_on_one_rank_is_skipped_by_all_and_then_named(pair_recipe, tmp_path, strategy):
    """One step may be skipped: the third is, on both ranks; the seventh ends the run on both, with the second rank's samples."""
    (tmp_path / "nan.py").write_text(NAN)
    pair_recipe["stages"]["pair"] |= {"teacher": None, "teacher_decay": 1.0, "losses": {"nan_clip": {}}}
    pair_recipe["trainer"] |= {"skip_nonfinite": 1, "log_every": 2}
    path, run = write_recipe(pair_recipe, tmp_path / "recipe.yaml"), tmp_path / "run"
    command = [*CLI, "train", path, "--run_dir", run, "--trainer.devices", 2, "--trainer.strategy", strategy]
    process = start([*command, "--allow_module", "nan"], cwd=tmp_path)
    output = process.communicate(timeout=150)[0]
    assert process.returncode == 2, output[-3000:]
    one, other = ([float(line) for line in (tmp_path / f"scale{rank}").read_text().split()] for rank in (0, 1))
    assert one == other and len(one) == 8, "both did the same steps, up to the next row of the log"
    assert one[3] == one[2] != one[1] and one[4] != one[3], "the third left no trace, the fourth counts"
    assert all(math.isfinite(value) for value in one)
    assert output.count("error: the loss is not a finite number at step 6 (2 such steps, trainer.skip_nonfinite allows 1)") == 1
    keys = (run / "stages" / "pair" / "samples.rank1.csv").read_text().splitlines()[6].split(",")[1].split()
    assert f"rank 1: {', '.join(keys)}" in output and "rank 0:" not in output, output[-3000:]
