"""requirements.lock: what `make install` takes, each file by its hash, within the ranges of pyproject.toml."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def locked():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): line for line in entries}


def test_every_line_has_version_and_hashes():
    for name, line in locked().items():
        assert re.match(r"^[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), name
        assert not re.search(r"https?://|--index|--find-links", line), name


def test_what_pyproject_asks_for_is_in_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # Gradio still asks for a Pillow below the one everything else is tested with; bitsandbytes is large, and of use on GPUs
    extras = {name: group for name, group in project["optional-dependencies"].items() if name not in ("demo", "quantized")}
    asked = [Requirement(text) for text in (*project["dependencies"], *(one for group in extras.values() for one in group))]
    found = locked()
    for requirement in asked:
        if requirement.name != "modalign":
            version = re.match(r"[^=]+==([^\s;]+)", found[canonicalize_name(requirement.name)]).group(1)
            assert requirement.specifier.contains(version), requirement


def test_make_takes_nothing_else():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in recipe.splitlines() if line.startswith("\t") and ("$(PIP)" in line or "pip install" in line)]
    assert [line.split("$(PIP) ")[1] for line in installs] == [
        "--require-hashes -r requirements.lock",
        "--no-deps --no-build-isolation -e .",
    ]


def test_another_file_under_a_locked_name_is_refused(tmp_path):
    """What the hashes are for: a wheel of the right name and version with other content is not installed."""
    with zipfile.ZipFile(tmp_path / "braceexpand-0.1.7-py3-none-any.whl", "w") as wheel:
        wheel.writestr("braceexpand.py", "raise SystemExit('other content')")
        wheel.writestr("braceexpand-0.1.7.dist-info/METADATA", "Metadata-Version: 2.1\nName: braceexpand\nVersion: 0.1.7\n")
        wheel.writestr("braceexpand-0.1.7.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("braceexpand-0.1.7.dist-info/RECORD", "")
    (tmp_path / "one.lock").write_text(locked()["braceexpand"] + "\n")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")} | {"PIP_CONFIG_FILE": os.devnull}
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--find-links", str(tmp_path)]
    free = subprocess.run(
        [*pip, "--target", str(tmp_path / "free"), "braceexpand==0.1.7"], env=plain, capture_output=True, text=True
    )
    assert free.returncode == 0, free.stderr
    asked = [*pip, "--target", str(tmp_path / "locked"), "--require-hashes", "-r", str(tmp_path / "one.lock")]
    done = subprocess.run(asked, env=plain, capture_output=True, text=True)
    assert done.returncode and "hash" in done.stderr.lower() and not (tmp_path / "locked").exists(), done.stderr
