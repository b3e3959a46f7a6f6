"""Debian and npm packages: fetched by their own client, checked, unpacked, and what is said when that does not work."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile

import pytest

from modalign.datasets.assets import record
from modalign.datasets.assets.catalogue import Asset, Package
from modalign.datasets.assets.fetch import fetch
from modalign.datasets.assets.sources import package as package_source
from modalign.datasets.assets.sources.manager import unpack_tar
from modalign.zoo.errors import AssetError

NAMES = {"apt": "toy-stamps_1.0-2_all.deb", "npm": "toy-stamps-1.0-2.tgz"}
ADVICE = {"apt": "'apt-get download toy-stamps=1.0-2'", "npm": "'npm pack toy-stamps@1.0-2'"}


def tar_of(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def package_file(manager, folder):
    """A real package file of that kind with toy.txt and a file nobody wants."""
    path = folder / NAMES[manager]
    if manager == "npm":
        path.write_bytes(tar_of({"package/toy.txt": "hello", "package/other.js": "never run"}))
        return path
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here")
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "package").mkdir()
    (root / "package" / "toy.txt").write_text("hello")
    (root / "package" / "other.js").write_text("never run")
    control = "Package: toy-stamps\nVersion: 1.0-2\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: toy\n"
    (root / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", str(root), str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(params=["apt", "npm"])
def packed(request, toy, tmp_path, monkeypatch):
    """Asset `toy` from a package of apt or npm, whose client is a script that copies the file where it is run."""
    manager = request.param
    store = tmp_path / "store"
    store.mkdir()
    path = package_file(manager, store)
    package = Package(
        name="toy-stamps",
        version="1.0-2",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        megabytes=0.001,
        members=("*package/toy.txt",),
        manager=manager,
    )
    asset = Asset(name="toy", kind="data", what="", licence="", files=("out.txt",), converter="toy", packages=(package,))

    def convert(sources, out):
        folder = sources["toy-stamps"] / "package"
        (out / "out.txt").write_text(f"{sorted(p.name for p in folder.iterdir())} {(folder / 'toy.txt').read_text()}")

    import sys

    monkeypatch.setattr(sys.modules["modalign.datasets.assets.converters.toy"], "convert", convert)
    clients = tmp_path / "bin"
    clients.mkdir()
    client = clients / ("apt-get" if manager == "apt" else "npm")
    client.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp {path} .\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{clients}{os.pathsep}{os.environ['PATH']}")
    return asset, path, client


def test_fetched_checked_and_unpacked(packed, tmp_path):
    asset, _, _ = packed
    folder = fetch(asset)
    assert (folder / "out.txt").read_text() == "['toy.txt'] hello"
    asked = (tmp_path / "asked").read_text()
    assert "toy-stamps=1.0-2" in asked or "toy-stamps@1.0-2" in asked
    assert record.read(folder)["source"]["packages"][0]["version"] == "1.0-2"


def test_another_content_is_refused(packed):
    asset, path, _ = packed
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(AssetError, match=rf"{path.name} is not the file the catalogue names"):
        fetch(asset)


def test_a_file_at_hand_needs_no_client(packed, monkeypatch):
    asset, path, client = packed
    monkeypatch.setenv("MODALIGN_DATA", str(path.parent))
    client.write_text("#!/bin/sh\nexit 1\n")
    assert (fetch(asset) / "out.txt").is_file()


def test_offline_sentence_names_the_command(packed):
    asset, _, client = packed
    client.write_text("#!/bin/sh\necho 'E: Failed to fetch' ; echo 'npm error code ENOTFOUND'; exit 1\n")
    with pytest.raises(AssetError) as caught:
        fetch(asset)
    message = str(caught.value)
    assert ADVICE[asset.packages[0].manager] in message and "\n" not in message
    assert "(Failed to fetch)" in message or "(code ENOTFOUND)" in message


def test_no_client_at_all(packed, monkeypatch):
    asset, _, _ = packed
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AssetError, match=r"no apt-get|no npm"):
        fetch(asset)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("E: Version '1.0-2' for 'toy-stamps' was not found", "another Debian or Ubuntu release carries another version"),
        ("E: Unable to locate package toy-stamps", "apt-get update once"),
    ],
)
def test_apt_tells_versions_from_unknown_packages(toy, monkeypatch, tmp_path, log, reason):
    client = tmp_path / "apt-get"
    client.write_text(f'#!/bin/sh\necho "{log}"; exit 100\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    package = Package(name="toy-stamps", version="1.0-2", sha256="0" * 64, megabytes=1, members=("*",), manager="apt")
    asset = Asset(name="toy", kind="data", what="", licence="", files=("x",), converter="toy", packages=(package,))
    with pytest.raises(AssetError, match=reason):
        fetch(asset)


def test_commands_for_several_clients():
    def package(name, manager, platform=""):
        return Package(name=name, version="1", sha256="", megabytes=1, members=(), manager=manager, platform=platform)

    packages = [package("a", "apt"), package("@s/b", "npm"), package("c", "pip", "linux"), package("d", "pip")]
    assert package_source.download_commands(packages) == [
        ["apt-get", "download", "a=1"],
        ["npm", "pack", "@s/b@1"],
        ["pip", "download", "--no-deps", "--only-binary=:all:", "--platform", "linux", "c==1", "d==1"],
    ]
    assert package_source.MANAGERS["npm"].file_pattern(packages[1]) == "s-b-1.tgz"


def test_a_tar_cannot_write_outside_its_folder(tmp_path):
    data = tar_of({"../evil.txt": "x"})
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack_tar(io.BytesIO(data), ("*",), tmp_path / "in")
    assert not (tmp_path / "evil.txt").exists()
