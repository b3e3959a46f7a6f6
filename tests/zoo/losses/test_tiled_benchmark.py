"""The benchmark of the tiled loss at a small size: its bars are ratios, so they hold there too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "tiled_loss.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark of memory is Linux's")
def test_tiles_take_a_tenth_of_the_memory_of_plain_logits_and_give_the_same_gradients(tmp_path):
    command = [sys.executable, str(SCRIPT), "--n=4096", "--width=64", "--tile=512", "--repeats=1", f"--results={tmp_path}"]
    subprocess.run(command, check=True, timeout=280)
    found = json.loads((tmp_path / "tiled_loss.json").read_text())["results"]
    assert found["tiled"]["memory_ratio"] <= 0.10
    for part in found["tiled"]["gradients_to_plain"].values():
        assert part["in_norm"] <= 1e-6 and part["absolute"] <= 1e-6
    assert "tiled_clip" in (tmp_path / "tiled_loss.md").read_text()
