"""Fault 25: read-only home, no network, another locale, unusual paths, a clock that jumps."""

import json
import os
import subprocess
import sys
import time

import pytest

from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.remote.access import Remote
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError

from ..test_foreign import img2dataset, jpeg

PROGRAM = """
import sys
from modalign.trainers.cli import main
for command in (["data", "check", sys.argv[1]], ["data", "show", sys.argv[1], "--out", sys.argv[2], "--n", "3"]):
    code = main(command)
    if code:
        raise SystemExit(code)
"""


def run(*arguments, program=PROGRAM, **environment):
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIO", "MODALIGN_HOME"))
    }
    return subprocess.run(
        [sys.executable, "-c", program, *map(os.fspath, arguments)],
        env={**plain, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null/x"])
def test_a_home_that_cannot_be_written(shards, tmp_path, home):
    """The cache only remembers; without it everything works, if slower."""
    done = run(shards, tmp_path / "sheet.png", HOME=home, XDG_CACHE_HOME=home, MPLCONFIGDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    assert b"50 samples" in done.stdout


def test_a_cache_that_cannot_be_written_and_foreign_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_HOME", "/proc/none")
    assert len(ShardSet(img2dataset(tmp_path / "laion"))) == 15


def test_a_cache_that_cannot_be_written_and_remote_shards(monkeypatch, shards):
    import fsspec

    system = fsspec.filesystem("memory")
    for path in shards.iterdir():
        system.pipe(f"/x/s/{path.name}", path.read_bytes())
    monkeypatch.setenv("MODALIGN_HOME", "/proc/none")
    with pytest.raises(DataError, match=r"cannot be written .*; set MODALIGN_HOME"):
        ShardSet("memory://x/s", remote=Remote(("memory",)))


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"},
    ],
)
def test_another_locale(tmp_path, locale):
    """Files are UTF-8 whatever the locale is; what a terminal cannot show is written as its code."""
    folder = tmp_path / "späce 猫"
    write_shards(
        (
            {"key": f"Straße {n}", "image": jpeg(n), "image_ext": "jpg", "captions": {"zh": ["猫"], "de": ["Größe"]}}
            for n in range(4)
        ),
        folder,
    )
    done = run(folder, tmp_path / "sheet.png", HOME=str(tmp_path), **locale)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    "name", ["with space", "ümlaut 猫", "quote'\"s", "dollar$HOME", "per%20cent", "-dash", "semi;colon", "new\nline", "a:b"]
)
def test_unusual_paths(tmp_path, samples, name):
    folder = tmp_path / name / "shards"
    write_shards(samples(6), folder, samples_per_shard=2)
    source = ShardSet(folder)
    one = Loader([source], BatchPlan([source.shard_sizes], None, 3, 0), lambda s, rng: {}, lambda rows: {}, num_workers=1)
    assert sorted(key for batch in one for key in batch["keys"]) == source.keys
    assert len(ShardSet(img2dataset(tmp_path / name / "theirs"))) == 15


def test_a_clock_that_jumps(shards, tmp_path, monkeypatch):
    """Times of files are compared for being the same, never for being earlier; waiting uses a clock that cannot jump."""
    source = ShardSet(shards)
    one = Loader([source], BatchPlan([source.shard_sizes], None, 10, 0), lambda s, rng: {}, lambda rows: {}, timeout=60.0)
    expected = [batch["keys"] for batch in one]
    real = time.time
    for shift in (-(10**9), 10**9):
        monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: int((real() + shift) * 1e9))
        for path in shards.iterdir():
            os.utime(path, (4e9, 4e9) if shift > 0 else (0, 0))
        again = Loader([ShardSet(shards)], one.plan, lambda s, rng: {}, lambda rows: {}, timeout=60.0)
        assert [batch["keys"] for batch in again] == expected
    data = bytearray((shards / "000000.tar").read_bytes())
    data[700] ^= 1
    (shards / "000000.tar").write_bytes(data)
    os.utime(shards / "000000.tar", (100, 100))
    with pytest.raises(DataError, match="SHA-256"):
        ShardSet(shards).read(0)


def test_no_network(shards, tmp_path):
    """Nothing local asks for it; what is remote says that it could not be read."""
    program = (
        "import socket, sys\n"
        "def none(*a, **k): raise OSError('no network here')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = none\n" + PROGRAM
    )
    done = run(shards, tmp_path / "sheet.png", program=program, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    with pytest.raises(DataError, match="could not be read in 1 tries"):
        ShardSet("http://127.0.0.1:9/shards", remote=Remote(("http://127.0.0.1:9",), tries=1))
    assert json.loads((shards / "shards.json").read_text())["samples"] == 50
