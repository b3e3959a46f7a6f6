"""Checkpoints: what a crash, a damaged file or a full disk leaves behind."""

import json
import os

import pytest
import torch

from modalign.trainers.checkpoint_io import AtomicCheckpointIO, newest, verify
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
