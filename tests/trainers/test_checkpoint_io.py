"""Checkpoints: what a crash, a damaged file or a full disk leaves behind."""

import json
import os
import threading
import time

import pytest
import torch

from modalign.trainers.checkpoint_io import AtomicCheckpointIO, newest, steps_in, verify
from modalign.zoo.checkpoints.durable import recover
from modalign.zoo.errors import ReleaseError


@pytest.fixture
def folder(tmp_path):
    for step in (5, 10):
        AtomicCheckpointIO().save_checkpoint({"global_step": step, "x": torch.arange(step)}, tmp_path / f"step-{step:08d}")
    return tmp_path


def test_round_trip_and_pointer(folder):
    loaded = AtomicCheckpointIO().load_checkpoint(folder / "step-00000010")
    assert torch.equal(loaded["x"], torch.arange(10)) and newest(folder) == (folder / "step-00000010", [])
    assert json.loads((folder / "last.json").read_text()) == {"checkpoint": "step-00000010"}
    assert json.loads((folder / "step-00000010" / "manifest.json").read_text())["step"] == 10


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "missing"])
def test_damage_is_found_and_the_one_before_is_taken(folder, damage):
    state = folder / "step-00000010" / "state.pt"
    content = bytearray(state.read_bytes())
    if damage == "truncate":
        state.write_bytes(content[:-20])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "manifest":
        (folder / "step-00000010" / "manifest.json").unlink()
    else:
        state.unlink()
    with pytest.raises(ReleaseError, match=r"step-00000010 is (damaged|incomplete)"):
        AtomicCheckpointIO().load_checkpoint(folder / "step-00000010")
    path, warnings = newest(folder)
    assert path == folder / "step-00000005" and "falling back" in warnings[0]


def test_litter_of_a_crash_is_removed_and_a_replacement_finished(folder):
    (folder / "step-00000015.tmp-77").mkdir()
    (folder / "step-00000015.tmp-77" / "state.pt").write_bytes(b"half")
    os.replace(folder / "step-00000010", folder / "step-00000010.old-77")  # killed between the two renames
    recover(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["last.json", "step-00000005", "step-00000010"]
    verify(folder / "step-00000010")


def test_replacing_keeps_a_complete_checkpoint_at_every_moment(folder, monkeypatch):
    """Fails each rename in turn: whatever is there afterwards still loads."""
    target, real = folder / "step-00000010", os.replace
    for fail_at in range(3):
        calls = []

        def replace(a, b, calls=calls, fail_at=fail_at):
            calls.append(a)
            if len(calls) == fail_at + 1:
                raise OSError("crash")
            return real(a, b)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(ReleaseError, match="older checkpoints there are intact"):
            AtomicCheckpointIO().save_checkpoint({"global_step": 10, "x": torch.zeros(3)}, target)
        monkeypatch.setattr(os, "replace", real)
        path, _ = newest(folder)
        assert path == target


def test_a_full_disk_is_one_sentence_and_loses_nothing(folder, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ReleaseError, match="No space left on device; older checkpoints there are intact"):
        AtomicCheckpointIO().save_checkpoint({"global_step": 15}, folder / "step-00000015")
    assert newest(folder)[0] == folder / "step-00000010" and not list(folder.glob("*.tmp-*"))


def test_a_checkpoint_cannot_run_code(tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    AtomicCheckpointIO().save_checkpoint({"global_step": 1, "x": Payload()}, tmp_path / "step-00000001")
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported|posix.system"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "step-00000001")
    assert not marker.exists()


def test_remove(folder):
    AtomicCheckpointIO().remove_checkpoint(folder / "step-00000005")
    AtomicCheckpointIO().remove_checkpoint(folder / "step-00000005")
    assert not (folder / "step-00000005").exists()


def save(folder, name, step):
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "x": torch.arange(step)}, folder / name)


def damage(path):
    (path / "state.pt").write_bytes(b"not what it was")


def test_two_ranks_recover_at_once(folder, monkeypatch):
    """What the other has put in order between the look and the touch is no error."""
    os.replace(folder / "step-00000010", folder / "step-00000010.old-77")
    (folder / "step-00000015.tmp-77").mkdir()
    (folder / "step-00000015.tmp-77" / "state.pt").write_bytes(b"half")
    real, others = os.replace, []

    def late(source, target):
        if not others:
            others.append(real(source, target))  # the other rank is faster
            (folder / "step-00000015.tmp-77" / "state.pt").unlink()
            (folder / "step-00000015.tmp-77").rmdir()
        return real(source, target)

    monkeypatch.setattr(os, "replace", late)
    recover(folder)
    assert others and [path.name for path in steps_in(folder)] == ["step-00000010", "step-00000005"]


def test_only_the_first_rank_recovers_and_the_others_wait(folder):
    os.replace(folder / "step-00000010", folder / "step-00000010.old-77")
    assert newest(folder, first=False, patience=0.1)[0] == folder / "step-00000005", "it touches nothing"
    assert (folder / "step-00000010.old-77").exists()

    def first():
        time.sleep(0.3)
        newest(folder)

    rank0 = threading.Thread(target=first)
    rank0.start()
    assert newest(folder, first=False, patience=30)[0] == folder / "step-00000010"
    rank0.join()


def test_all_that_are_saved_count_among_those_kept(tmp_path):
    """Those saved for a signal too; `best` is not one of them, and the pointer does not name it."""
    saver = AtomicCheckpointIO(keep=2)
    for name, step in (("step-00000004.ckpt", 4), ("best", 4), ("step-00000007.ckpt", 7), ("step-00000008.ckpt", 8), ("best", 9)):
        saver.save_checkpoint({"global_step": step}, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last.json", "step-00000007.ckpt", "step-00000008.ckpt"]
    assert json.loads((tmp_path / "last.json").read_text()) == {"checkpoint": "step-00000008.ckpt"}


def test_a_damaged_one_does_not_outlive_whole_ones(tmp_path):
    """A run that fell back to an earlier checkpoint does not prune what it saves in favour of the damaged later one."""
    save(tmp_path, "step-00000004.ckpt", 4)
    save(tmp_path, "step-00000008.ckpt", 8)
    damage(tmp_path / "step-00000008.ckpt")
    AtomicCheckpointIO(keep=1).save_checkpoint({"global_step": 6}, tmp_path / "step-00000006.ckpt")
    assert [path.name for path in steps_in(tmp_path)] == ["step-00000006.ckpt"]
    assert newest(tmp_path) == (tmp_path / "step-00000006.ckpt", [])


def test_a_damaged_best_is_made_again_where_that_is_possible(folder):
    save(folder, "best", 8)
    assert newest(folder) == (folder / "step-00000010", [])
    damage(folder / "best")
    path, warnings = newest(folder)
    assert path == folder / "step-00000005" and "best is damaged; going back to before its step" in warnings[0]
    save(folder, "best", 3)
    damage(folder / "best")
    path, warnings = newest(folder)
    assert path == folder / "step-00000010" and "none from before its step" in warnings[0]
    (folder / "best" / "manifest.json").write_text("{")
    assert newest(folder)[0] == folder / "step-00000010"
