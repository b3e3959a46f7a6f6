"""Running the command line in processes of its own, stopping it at a step, and comparing what runs leave behind."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

CLI = [sys.executable, "-m", "modalign.trainers.cli"]
QUIET = {"OMP_NUM_THREADS": "1"}


def write_recipe(recipe, path):
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def start(command, env=None, cwd=None):
    """Starts a command with its output in one pipe."""
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | QUIET | (env or {}),
        cwd=cwd,
        start_new_session=True,
    )


def wait_for_step(process, run, steps):
    """Waits until a run has begun so many steps (or ended)."""
    logs = Path(run) / "stages"
    while process.poll() is None and not any(p.read_text().count("\n") >= steps for p in logs.glob("*/samples*.csv")):
        time.sleep(0.01)


def children(pid):
    """Process numbers of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def curve(run):
    """Step -> (loss, norm of the gradient)."""
    with (Path(run) / "metrics.csv").open() as stream:
        return {int(r["step"]): (float(r["loss"]), float(r["grad_norm"])) for r in csv.DictReader(stream) if r.get("loss")}


def weights(run):
    from safetensors.torch import load_file

    return load_file(Path(run) / "release" / "model.safetensors")


def assert_equal_runs(run, whole, rel=1e-5, atol=2e-5):
    """Both went through the same steps with the same losses, and ended at the same weights."""
    ours, theirs = curve(run), curve(whole)
    assert list(ours) == list(theirs)
    for step, values in theirs.items():
        assert ours[step] == pytest.approx(values, rel=rel), f"step {step}"
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(run)[name], value, rtol=1e-4, atol=atol)
