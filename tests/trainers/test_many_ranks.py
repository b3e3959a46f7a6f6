"""The same recipe on one rank, on two with DDP, on two with FSDP2; stopped, and continued on another number of ranks."""

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


@pytest.mark.timeout(280)
def test_two_sharded_ranks_equal_one(pair_recipe, tmp_path):
    """The two also compute their share in two parts (GradCache)."""
    whole = train(pair_recipe | {"run_dir": str(tmp_path / "whole")})
    process = start_ranks(pair_recipe, tmp_path / "recipe.yaml", tmp_path / "two", 2, "fsdp", "--stages.pair.accumulate", "2")
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output[-3000:]
    assert_equal_runs(tmp_path / "two", whole)


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
