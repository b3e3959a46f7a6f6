"""Two gloo processes: the same run as one process, also when a run changes from one to two in the middle."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from modalign.trainers import train


def weights(run):
    from safetensors.torch import load_file

    return load_file(run / "release" / "model.safetensors")


def losses(run):
    with (run / "metrics.csv").open() as stream:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(stream) if row.get("loss")]


@pytest.mark.timeout(240)
def test_one_rank_goes_on_as_two(tiny_recipe, tmp_path):
    stage = tiny_recipe["stages"]["tune"]
    stage |= {
        "teacher": None,
        "teacher_decay": 1.0,
        "losses": {"clip": {}},
        "dropout": {"projector": 0.0},
        "validate": None,
        "epochs": 30,
    }
    tiny_recipe |= {"stages": {"tune": stage}}
    tiny_recipe["evaluate"]["languages"] = ["en"]
    tiny_recipe["trainer"]["checkpoint_every"] = 10**6
    whole = train(tiny_recipe | {"run_dir": str(tmp_path / "whole")})

    path, part = tmp_path / "recipe.yaml", tmp_path / "part"
    path.write_text(yaml.safe_dump(tiny_recipe, sort_keys=False))
    command = [sys.executable, "-m", "modalign.trainers.cli", "train", str(path), "--run_dir", str(part)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples = part / "stages" / "tune" / "samples.csv"
    while process.poll() is None and not (samples.exists() and samples.read_text().count("\n") >= 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    alone = samples.read_text().count("\n")
    assert alone < 150

    ranks = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run([*command, *ranks], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("continues at step") == 1, "only the first rank speaks"
    assert [step for step, _ in losses(part)] == [step for step, _ in losses(whole)] == list(range(1, 151))
    for (_, ours), (_, theirs) in zip(losses(part), losses(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(part)[name], value, rtol=1e-3, atol=1e-4)
    assert _samples(part, alone) == _samples(whole, alone)
    assert not list(Path(part).rglob("*.tmp-*"))


def _samples(run, start):
    """Step -> its samples over all ranks, from a step on."""
    found: dict[int, set[str]] = {}
    for path in (run / "stages" / "tune").glob("samples*.csv"):
        for line in path.read_text().splitlines():
            step, keys = line.split(",")
            if int(step) >= start:
                found.setdefault(int(step), set()).update(keys.split())
    return found
