"""Checkpoints whose hash fits but whose content does not: the run says which folder and what is wrong, and never goes on without it."""

import copy
import json

import pytest
import torch

from modalign.trainers import train
from modalign.trainers.checkpoint_content import wrong_content
from modalign.trainers.checkpoint_io import MANIFEST, STATE, AtomicCheckpointIO, newest
from modalign.trainers.task import TrainingTask
from modalign.zoo.checkpoints.hashing import file_sha256
from modalign.zoo.errors import ReleaseError

STEP = 4


@pytest.fixture(scope="module")
def content(request, tmp_path_factory):
    """What a checkpoint of a run that was cut short holds."""
    folder = tmp_path_factory.mktemp("content")
    values = {name: request.getfixturevalue(name) for name in ("tiny_model", "tiny_shards")}
    stage = {
        "train": {"embedder": 1e-3, "head": 1e-3, "aux": 1e-3},
        "losses": {"clip": {}},
        "steps": STEP + 2,
        "model": {
            "family": "clip",
            "embed_dim": 16,
            "image": values["tiny_model"]["image"],
            "text_tower": {"context_length": 12, "width": 16, "heads": 2, "layers": 1, "embed_dim": 16},
            "text_projector": None,
        },
    }
    recipe = {
        "data": {"train": str(values["tiny_shards"]), "batch_size": 10, "languages": ["en"]},
        "stages": {"a": stage},
        "trainer": {"checkpoint_every": STEP, "log_every": 1, "accelerator": "cpu", "progress": False},
        "run_dir": str(folder / "run"),
    }
    step, patch = TrainingTask.training_step, pytest.MonkeyPatch()

    def cut(self, batch, number):
        if self.global_step == STEP + 1:
            raise KeyboardInterrupt
        return step(self, batch, number)

    patch.setattr(TrainingTask, "training_step", cut)
    with pytest.raises(BaseException):  # noqa: B017 - however Lightning hands it on
        train(recipe)
    patch.undo()
    path, _ = newest(folder / "run" / "stages" / "a" / "checkpoints")
    return recipe, path, torch.load(path / STATE, weights_only=True), (path / STATE).read_bytes()


def seal(path, step=STEP):
    """A manifest that vouches for whatever is there."""
    about = {"sha256": file_sha256(path / STATE), "bytes": (path / STATE).stat().st_size, "step": step}
    (path / MANIFEST).write_text(json.dumps(about))


def put(values, path, *keys):
    for key in keys[:-1]:
        path = path[key]
    path[keys[-1]] = values


FIT = "loops", "fit_loop"
PROGRESS = (*FIT, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total", "completed")
WRONG = {
    "optimiser gone": (("optimizer_states",), [], "optimizer_states do not hold the state of one optimiser"),
    "optimiser empty": (("optimizer_states", 0, "state"), {}, "optimizer_states are empty after 4 steps"),
    "moments gone": (("optimizer_states", 0, "state", 0), {"step": 4}, "optimizer_states lack the moments of a parameter"),
    "groups gone": (("optimizer_states", 0, "param_groups"), None, "optimizer_states do not hold"),
    "groups of another": (("optimizer_states", 0, "param_groups", 0, "params"), [], r"are of \d+ parameters, the stage trains"),
    "another step": (("global_step",), -5, "global_step is -5, but its manifest says step 4"),
    "step a text": (("global_step",), "4", "global_step is '4', but its manifest says step 4"),
    "loops empty": (("loops",), {}, "loops say that None steps are done, global_step says 4"),
    "loops a list": (("loops",), [], "loops is list"),
    "loops at another step": (PROGRESS, 3, "loops say that 3 steps are done, global_step says 4"),
    "progress gone": ((*FIT, "epoch_progress"), {}, "loops have no epoch_progress"),
    "place in the data gone": ((*FIT, "state_dict"), {}, "loops do not say how far the data was read"),
    "schedule gone": (("lr_schedulers",), [], "lr_schedulers do not hold one schedule"),
    "schedule elsewhere": (("lr_schedulers", 0, "last_epoch"), 0, "lr_schedulers do not hold one schedule at step 4"),
    "guard": (("guard",), 5, "guard has no number of skipped steps"),
    "weights gone": (("state_dict",), None, "state_dict is NoneType"),
    "weights of another shape": (("state_dict", "model.logit_scale"), torch.zeros(3), r"model.logit_scale is \(3,\)"),
    "weights no tensor": (("state_dict", "model.logit_scale"), 1.0, "model.logit_scale is float"),
    "callbacks": (("callbacks",), None, "callbacks is NoneType"),
}
FILES = {
    "empty": (lambda whole: b"", "cannot be read"),
    "cut": (lambda whole: whole[: len(whole) // 2], "cannot be read"),
    "garbage": (lambda whole: b"garbage", "refused|cannot be read"),
}


def refused(recipe, path, message):
    with pytest.raises(ReleaseError, match=message) as raised:
        train(recipe)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("case", FILES)
def test_files(case, content):
    recipe, path, _, whole = content
    change, message = FILES[case]
    (path / STATE).write_bytes(change(whole))
    seal(path)
    assert str(path) in refused(recipe, path, message)


@pytest.mark.parametrize("values", [[1], {"a": 1}, 3], ids=["list", "table", "number"])
def test_something_else(values, content):
    recipe, path, *_ = content
    torch.save(values, path / STATE)
    seal(path)
    assert str(path) in refused(recipe, path, "is none to go on from: (it is a|global_step is None)")


@pytest.mark.parametrize("case", WRONG)
def test_entries(case, content):
    recipe, path, whole, _ = content
    keys, value, message = WRONG[case]
    changed = copy.deepcopy(whole)
    put(value, changed, *keys)
    torch.save(changed, path / STATE)
    seal(path)
    assert str(path) in refused(recipe, path, message)


@pytest.mark.parametrize("step", ["x", None, True])
def test_a_manifest_without_a_step(content, step):
    """That is a damaged one: the run goes on from the one before, or anew."""
    _, path, _, whole = content
    (path / STATE).write_bytes(whole)
    seal(path, step)
    found, warnings = newest(path.parent)
    assert found is None and f"its manifest says step {step!r}" in warnings[0]


def test_steps_that_were_all_skipped_have_no_moments(content):
    whole = copy.deepcopy(content[2])
    whole["optimizer_states"][0]["state"] = {}
    whole["guard"] = {"skipped": STEP}
    assert wrong_content(whole) is None


def test_weights_alone_are_enough_where_nothing_goes_on(tmp_path):
    """`best` holds no optimiser."""
    AtomicCheckpointIO().save_checkpoint({"global_step": 3, "state_dict": {}}, tmp_path / "best")
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "best") == {"global_step": 3, "state_dict": {}}
    with pytest.raises(ReleaseError, match="best is none to go on from: epoch is missing"):
        AtomicCheckpointIO(resuming=True).load_checkpoint(tmp_path / "best")


def test_as_it_was_the_run_goes_on(content, capsys):
    recipe, path, _, whole = content
    (path / STATE).write_bytes(whole)
    seal(path)
    run = train(recipe)
    assert f"continues at step {STEP}" in capsys.readouterr().out and (run / "release" / "release.json").is_file()
