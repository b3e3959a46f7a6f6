"""requirements.lock: what `make install` takes, each file by its hash, within the ranges of pyproject.toml."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
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
    extras = project["optional-dependencies"]
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
    pytest.importorskip("build")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "braceexpand"\nversion = "0.1.7"\n[tool.setuptools]\npackages = []\n'
    )
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(tmp_path / "evil"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (tmp_path / "one.lock").write_text(locked()["braceexpand"] + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--find-links",
        str(tmp_path / "dist"),
        "--target",
        str(tmp_path / "t"),
    ]
    done = subprocess.run([*pip, "--require-hashes", "-r", str(tmp_path / "one.lock")], capture_output=True, text=True)
    assert done.returncode and "hash" in done.stderr.lower() and not (tmp_path / "t").exists(), done.stderr
