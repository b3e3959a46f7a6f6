"""`kill -9` at random moments, during a save too, on another file system than the temporary folder: nothing is lost or changed."""

import csv
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml

from modalign.trainers.callbacks.stop import StopOnSignal


@pytest.fixture
def other_file_system(tmp_path):
    """A folder on another file system than the temporary folder, where there is one."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="modalign-test-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def start(recipe, run, log):
    command = [sys.executable, "-m", "modalign.trainers.cli", "train", str(recipe), "--run_dir", str(run)]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def steps_done(run):
    path = run / "stages" / "tune" / "samples.csv"
    return path.read_text().count("\n") if path.exists() else 0


def kill_at_step(process, run, step):
    while process.poll() is None and steps_done(run) < step:
        time.sleep(0.005)
    process.kill()


def kill_during_save(process, run, step):
    """Waits for a step, then kills as soon as a checkpoint is being written."""
    while process.poll() is None and steps_done(run) < step:
        time.sleep(0.005)
    folder = run / "stages" / "tune" / "checkpoints"
    while process.poll() is None and not list(folder.glob("*.tmp-*/state.pt")):
        pass
    process.kill()


def run_to_the_end(recipe, run, kills, log):
    """Runs the command again after each kill; returns how many kills hit a running process."""
    hits = 0
    for kill in kills:
        process = start(recipe, run, log)
        kill(process, run)
        hits += process.wait() == -9
    process = start(recipe, run, log)
    assert process.wait() == 0, Path(log.name).read_text()[-3000:]
    return hits


def result(run):
    stage = run / "stages" / "tune"
    with (run / "metrics.csv").open() as stream:
        losses = [(row["step"], row.get("loss"), row.get("val/text_to_image/R@10")) for row in csv.DictReader(stream)]
    return (run / "release" / "model.safetensors").read_bytes(), (stage / "samples.csv").read_text(), losses


def crash(tiny_recipe, tmp_path, folder, kills):
    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 16}}
    tiny_recipe["model"]["image_projector"] = {"name": "mlp", "options": {"depth": 3, "hidden": 1500, "dropout": 0.1}}
    tiny_recipe["evaluate"]["languages"] = ["en"]
    del tiny_recipe["run_dir"]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe, sort_keys=False))
    with (tmp_path / "log").open("w") as log:
        assert run_to_the_end(path, folder / "whole", [], log) == 0
        assert run_to_the_end(path, folder / "killed", kills, log) == len(kills)
    assert result(folder / "killed") == result(folder / "whole")
    assert not list((folder / "killed").rglob("*.tmp-*"))


@pytest.mark.timeout(240)
def test_two_kills(tiny_recipe, tmp_path, other_file_system):
    step = random.Random().randint(5, 30)
    kills = [lambda p, r: kill_at_step(p, r, step), lambda p, r: kill_during_save(p, r, step + 10)]
    crash(tiny_recipe, tmp_path, other_file_system, kills)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tiny_recipe, tmp_path, number):
    """The step is finished, its state saved, the exit code is the signal's, and the next start goes on there."""
    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 400, "validate": None}}
    tiny_recipe["trainer"]["checkpoint_every"] = 10**6
    tiny_recipe["evaluate"] = None
    path, run, log = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "log"
    path.write_text(yaml.safe_dump(tiny_recipe, sort_keys=False))
    with log.open("w") as stream:
        process = start(path, run, stream)
        while process.poll() is None and steps_done(run) < 10:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert f"stopped by {number.name} after step" in log.read_text() and "Traceback" not in log.read_text()
    saved = list((run / "stages" / "tune" / "checkpoints").glob("step-*"))
    assert len(saved) == 1 and int(saved[0].stem.split("-")[1]) == steps_done(run) < 2000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills(tiny_recipe, tmp_path, other_file_system):
    rng = random.Random()
    kills = []
    for number in range(10):
        step = 6 * (number + 1) + rng.randint(0, 3)
        kill = kill_during_save if number % 2 else kill_at_step
        kills.append(lambda p, r, kill=kill, step=step: kill(p, r, step))
    crash(tiny_recipe, tmp_path, other_file_system, kills)


def poll(rank, store, results):
    """Steps of 5 ms on one rank and 10 ms on the other; the second gets a signal."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    stop, polls = StopOnSignal(Path(), seconds=0.2), []
    stop.on_train_start(SimpleNamespace(global_step=0), None)
    reduce = dist.all_reduce
    dist.all_reduce = lambda *a, **k: polls.append(step) or reduce(*a, **k)
    for step in range(1, 1000):
        time.sleep(0.005 * (rank + 1))
        if rank == 1 and step == 30:
            stop.received = signal.SIGUSR1
        if stop._agreed(step, torch.device("cpu"), 2):
            break
    results[rank] = polls
    dist.destroy_process_group()


def test_ranks_agree_on_a_step_without_asking_at_each(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(poll, (str(tmp_path / "store"), results), nprocs=2)
        one, other = results[0], results[1]
    assert one == other, "both asked, and stopped, at the same steps"
    assert 30 <= one[-1] < 999 and len(one) < one[-1] / 2


def test_the_last_step_is_asked_about_too(monkeypatch):
    """Else a signal that came since the last poll would be lost with the stage."""
    stop, asked = StopOnSignal(Path(), seconds=1e9), []
    stop.on_train_start(SimpleNamespace(global_step=0), None)
    monkeypatch.setattr(dist, "all_reduce", lambda *_: asked.append(1))
    for step in range(1, 11):
        stop._agreed(step, torch.device("cpu"), 2, last=step == 10)
    assert len(asked) == 2, "the first, from which the next follows, and the last"
