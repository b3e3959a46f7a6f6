"""A run where nothing around it is as one would like: home, locale, clock, names, network."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from modalign.trainers import train


@pytest.mark.timeout(200)
def test_no_home_no_network_posix_locale_and_odd_names(tiny_recipe, tmp_path):
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    tiny_recipe["evaluate"] = None
    folder = tmp_path / "Läufe mit Leerzeichen 語"
    folder.mkdir()
    path = folder / "my recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe | {"run_dir": str(folder / "run 1")}, allow_unicode=True), encoding="utf-8")
    blocked = tmp_path / "file"
    blocked.write_text("a file where a home should be")
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "MODALIGN_DATA", "PYTHONPATH", "LD_LIBRARY_PATH")}
    env |= {"HOME": str(blocked), "LC_ALL": "POSIX", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-m", "modalign.trainers.cli", "train", str(path)], capture_output=True, env=env, timeout=180
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    assert (folder / "run 1" / "release" / "release.json").exists()


def test_a_clock_that_jumps_back(tiny_recipe, monkeypatch):
    """Wall-clock time decides nothing: half-way through, it falls by a day."""
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    tiny_recipe["evaluate"] = None
    real, calls = time.time, []

    def jumping():
        calls.append(1)
        return real() - (86_400 if len(calls) > 5 else 0)

    monkeypatch.setattr(time, "time", jumping)
    run = train(tiny_recipe)
    assert len(calls) > 5 and (Path(run) / "stages" / "teacher" / "done.json").exists()
