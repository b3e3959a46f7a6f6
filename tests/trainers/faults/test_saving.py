"""Killed while saving, again and again, on another file system than the temporary folder; damaged checkpoints; no room."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from modalign.trainers import train
from modalign.trainers.checkpoint_io import AtomicCheckpointIO, newest
from modalign.zoo.errors import ReleaseError


@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another file system than the temporary folder, where there is one."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="modalign-test-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def save_for_ever(folder, first, done):
    """Saves step after step, of which the two newest are kept, and tells each that is complete."""
    saver, content = AtomicCheckpointIO(), torch.zeros(2_000_000)
    for step in range(first, 10**6):
        content.fill_(step)
        saver.save_checkpoint({"global_step": step, "content": content}, folder / f"step-{step:08d}")
        done.value = step
        old = folder / f"step-{step - 2:08d}"
        if old.exists():
            saver.remove_checkpoint(old)


def test_twenty_kills_while_saving(elsewhere):
    fork, draw = multiprocessing.get_context("fork"), random.Random(0)
    done, inside = fork.Value("q", 0), 0
    for _ in range(20):
        before = done.value
        process = fork.Process(target=save_for_ever, args=(elsewhere, before + 1, done))
        process.start()
        while done.value < before + 2:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        inside += bool(list(elsewhere.glob("*.tmp-*")))

        path, warnings = newest(elsewhere)
        assert path is not None and warnings == []
        step = int(path.name.removeprefix("step-"))
        assert step >= done.value, "a checkpoint that was complete is not lost"
        state = AtomicCheckpointIO().load_checkpoint(path)
        assert state["global_step"] == step and torch.equal(state["content"], torch.full((2_000_000,), float(step)))
        assert not list(elsewhere.glob("*.tmp-*")), "a restart leaves no litter"
        done.value = step
    assert inside >= 5, "the kills did not hit a save; the test shows nothing"


def save_with_little_room(folder, results):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with EFBIG instead, as on a full disk
    weights = torch.ones(1_000_000)
    try:
        AtomicCheckpointIO().save_checkpoint({"global_step": 9, "w": weights}, folder / "step-00000009")
    except ReleaseError as error:
        results.put((str(error), float(weights.sum())))


def test_no_room_is_one_sentence_and_costs_nothing(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"global_step": 5, "w": torch.ones(3)}, tmp_path / "step-00000005")
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=save_with_little_room, args=(tmp_path, results))
    process.start()
    message, total = results.get(timeout=30)
    process.join()
    assert "cannot write checkpoint" in message and "older checkpoints there are intact" in message and total == 1_000_000
    assert newest(tmp_path) == (tmp_path / "step-00000005", []) and not list(tmp_path.glob("*.tmp-*"))


@pytest.fixture
def stopped(tiny_recipe, monkeypatch):
    """A run with checkpoints at steps 4 and 8 of its stage, broken off at step 9."""
    from modalign.trainers.task import TrainingTask

    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"] | {"epochs": 3}}
    tiny_recipe["evaluate"] = None
    original = TrainingTask.training_step

    def stop(self, batch, index):
        if self.global_step == 9:
            raise RuntimeError("power cut")
        return original(self, batch, index)

    monkeypatch.setattr(TrainingTask, "training_step", stop)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny_recipe)
    monkeypatch.setattr(TrainingTask, "training_step", original)
    return tiny_recipe


def checkpoints(recipe):
    return sorted((Path(recipe["run_dir"]) / "stages" / "teacher" / "checkpoints").glob("step-*"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(stopped, capsys):
    state = checkpoints(stopped)[-1] / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ReleaseError, match=r"step-00000008.ckpt is damaged.*--strict refuses"):
        train(stopped, strict=True)
    train(stopped)
    out = capsys.readouterr().out
    assert "step-00000008.ckpt is damaged" in out and "continues at step 4" in out


class Payload:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_checkpoint_with_a_payload_is_refused(stopped, tmp_path):
    """Even with a manifest that vouches for it."""
    marker = tmp_path / "ran"
    path = checkpoints(stopped)[-1]
    content = torch.load(path / "state.pt", weights_only=True)
    hostile = content | {"hyper_parameters": {"_instantiator": "os.system", "x": Payload(marker)}}
    shutil.rmtree(path)
    AtomicCheckpointIO().save_checkpoint(hostile, path)
    with pytest.raises(ReleaseError, match="could run code: refused"):
        train(stopped)
    assert not marker.exists()
    torch.load(path / "state.pt", weights_only=False)
    assert marker.exists(), "the payload does not work; the test shows nothing"


def validating(recipe):
    """A stage whose best weights are those of its first validation, at step 3 of 9; checkpoints at steps 2, 4, 6, 8."""
    teacher = recipe["stages"]["teacher"] | {"epochs": None, "steps": 9, "validate": {"every_epochs": 0.6}}
    recipe |= {"stages": {"teacher": teacher}, "evaluate": None}
    recipe["trainer"]["checkpoint_every"] = 2
    return recipe


@pytest.fixture
def first_is_best(monkeypatch):
    from modalign.trainers.callbacks.validate import Validate

    judge = Validate._judge
    monkeypatch.setattr(
        Validate, "_judge", lambda self, trainer, step, metrics: judge(self, trainer, step, {self.settings.metric: -float(step)})
    )


@pytest.mark.parametrize("keep", [2, 9])
def test_a_damaged_best_is_made_again_or_named_when_it_is_needed(tiny_recipe, first_is_best, monkeypatch, capsys, keep):
    """With checkpoints from before it was made, the stage goes back to there; without, the end says what to do, and that works."""
    from modalign.trainers import stage as stage_module

    recipe = validating(tiny_recipe)
    recipe["trainer"]["keep_checkpoints"] = keep
    whole = stage_module.take_best

    def damaged(model, trainer, folder, expected):
        state = folder / "best" / "state.pt"
        state.write_bytes(state.read_bytes()[:-7])
        return whole(model, trainer, folder, expected)

    monkeypatch.setattr(stage_module, "take_best", damaged)
    with pytest.raises(ReleaseError, match=r"best is damaged.*of step 3, .*Delete .*teacher.*validate.select last"):
        train(recipe)
    monkeypatch.setattr(stage_module, "take_best", whole)
    done = Path(recipe["run_dir"]) / "stages" / "teacher" / "done.json"
    if keep == 9:
        train(recipe)
        assert "best is damaged; going back" in (out := capsys.readouterr().out) and "continues at step 2" in out
        assert json.loads(done.read_text())["best_step"] == 3
        return
    with pytest.raises(ReleaseError, match="Delete"):
        train(recipe)
    assert "none from before its step" in capsys.readouterr().out
    recipe["stages"]["teacher"]["validate"]["select"] = "last"
    train(recipe)
    assert json.loads(done.read_text())["steps"] == 9
