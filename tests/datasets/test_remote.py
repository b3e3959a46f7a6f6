"""Shards on other machines: a local web server that behaves and misbehaves, and fsspec's memory file system."""

import http.server
import json
import logging
import multiprocessing
import os
import shutil
import socketserver
import threading
from pathlib import Path

import pytest

from modalign.datasets.commands.index import index
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.remote.access import Remote, remote_of
from modalign.datasets.remote.cache import CacheFull, ShardCache
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import DataError

from .test_foreign import img2dataset


class Server:
    """Serves a folder; `trouble` maps a path to what goes wrong with it, `asked` counts requests."""

    def __init__(self, folder):
        self.asked, self.trouble = [], {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                kind = outer.trouble.get(self.path, "")
                if isinstance(kind, list):
                    kind = kind.pop(0) if kind else ""
                path = folder / self.path.lstrip("/")
                if kind.startswith("redirect "):
                    self.send_response(302)
                    self.send_header("Location", kind.split()[1])
                    self.end_headers()
                    return
                if kind == "500" or not path.is_file():
                    self.send_error(500 if kind else 404)
                    return
                data = path.read_bytes()
                if kind == "longer":
                    data += b"more"
                if kind == "changed":
                    data = data[:-2000] + b"!" + data[-1999:]
                self.send_response(200)
                self.send_header("Content-Length", str(len(data) - 700 if kind == "truncated" else len(data)))
                self.end_headers()
                if kind in ("cut", "truncated"):
                    data = data[:-700]
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        class Threaded(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass

        self.server = Threaded(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(shards, monkeypatch):
    monkeypatch.setattr("modalign.datasets.remote.access._WAITS", (0.01,))
    one = Server(shards.parent)
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def memory():
    import fsspec

    system = fsspec.filesystem("memory")
    yield system
    for path in list(system.store):
        system.store.pop(path)


def allowed(server, **settings):
    return Remote((server.origin,), **settings)


def cached():
    return sorted(path.name for path in (Path(os.environ["MODALIGN_HOME"]) / "remote" / "shards").glob("*"))


def test_over_http_as_from_the_disk(shards, server):
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    near = ShardSet(shards)
    assert len(far) == 50 and far.fingerprint == near.fingerprint and far.keys == near.keys
    assert not [path for path in server.asked if path.endswith(".tar")], "shards are fetched when they are read"
    for number in (49, 0, 20, 21):
        assert far.read(number).members == near.read(number).members
    assert [path for path in server.asked if path.endswith(".tar")] == [f"/shards/00000{n}.tar" for n in (5, 0, 2)]
    assert far.read(1).shard == f"{server.origin}/shards/000000.tar"
    again = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    before = len(server.asked)
    assert again.read(20).members == near.read(20).members
    assert len(server.asked) == before, "index and shard are here"


def test_training_from_memory_with_workers(shards, memory):
    for path in shards.iterdir():
        memory.pipe(f"/bucket/train/{path.name}", path.read_bytes())
    source = ShardSet("memory://bucket/train", remote=Remote(("memory",)))
    plan = BatchPlan([source.shard_sizes], None, 12, 3)

    def batches(one, workers):
        loader = Loader(
            [one], plan, lambda s, rng: {"t": s.primary_caption}, lambda rows: {"t": [r["t"] for r in rows]}, num_workers=workers
        )
        return list(loader)

    assert batches(source, 0) == batches(source, 2) == batches(ShardSet(shards), 0)


@pytest.mark.parametrize(
    "url",
    [
        "pipe:touch MARK",
        "PIPE:touch MARK",
        " pipe:touch MARK",
        "pipe://touch MARK",
        "pipe:touch MARK#/x.tar",
        "file:///etc/passwd",
        "FILE:///etc",
        "ftp://host/x",
        "hf://datasets/x",
        "HTTPS://example.org/x",
        " https://example.org/x",
        "https://169.254.169.254/latest",
        "http://169.254.1.1/x",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://127.0.0.1/x",
        "http://10.0.0.7/x",
        "http://127.1/x",
        "http://2130706433/x",
        "http://0/x",
        "https://user:secret@example.org/x",
        "https://example.org/x?token=1",
        "https://example.org/${HOME}/x",
        "https://example.org/$(touch MARK)",
        "https://example.org/a/../../x",
        "simplecache::https://example.org/x",
        "https://example.org/zip://a::https://b",
        "local:///etc",
        "gcs://bucket/x",
        "https://",
    ],
)
def test_addresses_that_are_refused_before_anything_is_opened(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def never(*arguments, **settings):
        raise AssertionError("something was opened")

    for name in (
        "fsspec.filesystem",
        "fsspec.open",
        "subprocess.Popen",
        "os.system",
        "socket.create_connection",
        "socket.getaddrinfo",
    ):
        monkeypatch.setattr(name, never)
    monkeypatch.setenv("GOPEN_REWRITE", "https:=pipe:touch MARK;")
    monkeypatch.setenv("USE_AIS_FOR", "https:s3")
    with pytest.raises(DataError, match=r"refused|names no host|neither a range|no query|as usually written|private network"):
        ShardSet(url, remote=Remote(("https", "http", "s3", "gs")))
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.1.1", "0.0.0.0", "224.0.0.1"])
def test_link_local_addresses_cannot_even_be_allowed(host):
    with pytest.raises(DataError, match="link-local or reserved address, which is always refused"):
        ShardSet(f"http://{host}/x", remote=Remote((f"http://{host}",)))


@pytest.mark.parametrize("allow", ["pipe", "file", "ftp", "HTTPS", "https://host/path", "", "simplecache::https"])
def test_what_cannot_be_allowed(allow):
    with pytest.raises(DataError, match="neither a scheme nor an origin"):
        Remote((allow,))


def test_nothing_is_allowed_unless_said(server, shards, monkeypatch):
    with pytest.raises(DataError, match=r"scheme 'http' is refused unless it is allowed; .*data\.allow_remote: \['http://127"):
        ShardSet(f"{server.origin}/shards")
    with pytest.raises(DataError, match="private network"):
        ShardSet(f"{server.origin}/shards", remote=Remote(("http",)))
    with pytest.raises(DataError, match="is refused unless"):
        ShardSet(f"{server.origin}1/shards", remote=allowed(server))
    assert server.asked == []
    monkeypatch.setenv("MODALIGN_ALLOW_REMOTE", server.origin)
    assert len(ShardSet(f"{server.origin}/shards")) == 50
    assert remote_of(["https"]).allow == ("https",)


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/shards.json", "http://10.1.2.3/x", "file:///etc/passwd", "http://localhost:1/x"]
)
def test_redirects_are_checked(server, target):
    server.trouble["/shards/shards.json"] = f"redirect {target}"
    with pytest.raises(DataError, match=r"refused|private network"):
        ShardSet(f"{server.origin}/shards", remote=allowed(server))


def test_what_a_name_resolves_to_is_checked(server):
    port = server.origin.rpartition(":")[2]
    with pytest.raises(DataError, match="private network"):
        ShardSet(f"http://localhost:{port}/shards", remote=Remote(("http",), tries=1))
    assert server.asked == []
    assert len(ShardSet(f"http://localhost:{port}/shards", remote=Remote((f"http://localhost:{port}",)))) == 50


@pytest.mark.parametrize("trouble", ["cut", "truncated", "500"])
def test_a_transfer_that_fails_is_tried_again(server, shards, trouble):
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    server.trouble["/shards/000000.tar"] = [trouble, trouble]
    assert far.read(3).members == ShardSet(shards).read(3).members
    assert server.asked.count("/shards/000000.tar") == 3


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("cut", r"could not be read in 3 tries"),
        ("truncated", r"could not be read in 3 tries \(EOFError: only \d+ of \d+ bytes arrived"),
        ("500", "could not be read in 3 tries"),
        ("longer", "the server sends more; it was changed"),
        ("changed", "its SHA-256 is not the one in shards.json"),
    ],
)
def test_a_shard_that_never_comes_whole(server, trouble, message):
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    server.trouble["/shards/000000.tar"] = trouble
    with pytest.raises(DataError, match=rf"^{server.origin}/shards/000000\.tar: .*{message}"):
        far.read(3)
    assert not cached(), "nothing of it stays"
    assert far.read(20).key == "k0020"


def test_what_is_not_there(server, shards):
    with pytest.raises(DataError, match=r"no shards\.json there; if these are plain webdataset tars, run `modalign data index`"):
        ShardSet(f"{server.origin}/nothing", remote=allowed(server))
    (shards / "000003.idx.json").unlink()
    with pytest.raises(DataError, match=r"000003\.idx\.json: there is no such file"):
        ShardSet(f"{server.origin}/shards", remote=allowed(server))
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(DataError, match="could not be read in 2 tries"):
        ShardSet(f"{server.origin}/shards", remote=allowed(server, tries=2))


def test_a_manifest_from_elsewhere_is_not_trusted(server, shards):
    good = json.loads((shards / "shards.json").read_text())
    for name in ("../x.tar", "a/b.tar", "http://x/y.tar", ".tar", "x\0.tar"):
        bad = {**good, "shards": [{**good["shards"][0], "name": name}, *good["shards"][1:]]}
        (shards / "shards.json").write_text(json.dumps(bad))
        with pytest.raises(DataError, match="plain file name"):
            ShardSet(f"{server.origin}/shards", remote=allowed(server))


def test_an_index_from_elsewhere_is_not_trusted(server, shards):
    shutil.copy(shards / "000000.idx.json", shards / "000001.idx.json")
    with pytest.raises(DataError, match=r"000001\.idx\.json: the index is of another shard"):
        ShardSet(f"{server.origin}/shards", remote=allowed(server))


def sizes(shards):
    return [path.stat().st_size for path in sorted(shards.glob("*.tar"))]


def test_the_cache_keeps_to_its_limit(server, shards):
    limit = sum(sizes(shards)[:3])
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server, cache_bytes=limit))
    expected = [raw.members for raw in ShardSet(shards).samples()]
    folder = Path(os.environ["MODALIGN_HOME"]) / "remote" / "shards"
    for number in range(50):
        assert far.read(number).members == expected[number]
        assert sum(path.stat().st_size for path in folder.iterdir()) <= limit
    assert [far.read(number).members for number in (0, 49, 25)] == [expected[number] for number in (0, 49, 25)]
    plan = BatchPlan([far.shard_sizes], None, 10, 0)
    with pytest.raises(DataError, match=r"mixed among 16 shards.*raise data\.remote_cache_gb"):
        Loader([far], plan, lambda s, rng: {}, lambda rows: {})


def test_what_was_used_longest_ago_goes_first(server, shards):
    limit = sum(sizes(shards)[:3])
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server, cache_bytes=limit))
    infos = far.manifest.shards
    for number in (0, 9, 18, 0):  # the first shard is used again, by a new descriptor
        far.close()
        far.read(number)
    far.close()
    far.read(27)
    kept = {name.removesuffix(".tar") for name in cached()}
    assert kept == {infos[0].sha256, infos[2].sha256, infos[3].sha256}


def test_a_shard_in_use_is_never_deleted(server, shards):
    limit = sum(sizes(shards)[:2])
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server, cache_bytes=limit))
    holders = [ShardCache(far.store.remote).open(far.shard_label(n), far.manifest.shards[n]) for n in range(2)]
    with pytest.raises(CacheFull, match="full of shards in use"):
        far.read(30)
    assert {name.removesuffix(".tar") for name in cached()} == {info.sha256 for info in far.manifest.shards[:2]}
    os.close(holders[0])
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server, cache_bytes=limit))
    assert far.read(30).key == "k0030"
    os.close(holders[1])


def _read_all(origin, limit, numbers, results):
    far = ShardSet(f"{origin}/shards", remote=Remote((origin,), cache_bytes=limit))
    results.put([far.read(number).key for number in numbers])


@pytest.mark.timeout(60)
def test_several_processes_fetch_each_shard_once(server, shards):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    limit = sum(sizes(shards)) + 1
    numbers = [0, 20, 40, 3, 45, 10]
    several = [context.Process(target=_read_all, args=(server.origin, limit, numbers, results)) for _ in range(3)]
    for process in several:
        process.start()
    found = [results.get() for _ in several]
    for process in several:
        process.join()
    assert found == [[f"k{n:04d}" for n in numbers]] * 3
    tars = [path for path in server.asked if path.endswith(".tar")]
    assert len(tars) == len(set(tars)) == 5


def test_an_interrupted_download_is_made_anew(server, shards):
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    info = far.manifest.shards[0]
    folder = Path(os.environ["MODALIGN_HOME"]) / "remote" / "shards"
    folder.mkdir(parents=True)
    (folder / f"{info.sha256}.part").write_bytes(b"half of it")  # as kill -9 leaves it
    (folder / f"{'0' * 64}.part").write_bytes(b"of a set nobody asks for any more")
    assert far.read(0).members == ShardSet(shards).read(0).members
    assert cached() == [f"{info.sha256}.tar"]


def test_a_copy_that_was_damaged_here_is_fetched_again(server, shards, caplog):
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    far.read(0)
    copy = far.store.cache.path(far.manifest.shards[0])
    copy.write_bytes(b"x" * copy.stat().st_size)
    os.utime(copy, (5, 5))
    far = ShardSet(f"{server.origin}/shards", remote=allowed(server))
    with caplog.at_level(logging.WARNING):
        assert far.read(0).members == ShardSet(shards).read(0).members
    assert "fetching it again" in caplog.text


def test_plain_tars_elsewhere_are_indexed_once(tmp_path, server, memory, capsys):
    folder = img2dataset(server_folder := tmp_path / "laion")
    assert folder == server_folder
    url = f"{server.origin}/laion/{{00000..00002}}.tar"
    with pytest.raises(DataError, match="modalign data index"):
        ShardSet(url, remote=allowed(server))
    index(url, allow_remote=[server.origin])
    assert [path for path in server.asked if path.endswith(".tar")] == [f"/laion/0000{n}.tar" for n in range(3)]
    far = ShardSet(url, remote=allowed(server))
    assert [decode_sample(far.read(n)).primary_caption for n in range(15)] == [f"caption {n}" for n in range(15)]
    assert len([path for path in server.asked if path.endswith(".tar")]) == 3, "indexing left them in the cache"
    with pytest.raises(DataError, match="cannot list its files"):
        index(f"{server.origin}/laion", allow_remote=[server.origin])
    for path in folder.iterdir():
        memory.pipe(f"/b/laion/{path.name}", path.read_bytes())
    index("memory://b/laion", lang="en", allow_remote=["memory"])
    far = ShardSet("memory://b/laion", remote=Remote(("memory",)))
    assert decode_sample(far.read(14)).captions == {"en": ["caption 14"]}
    memory.pipe("/b/laion/00001.tar", b"cut off")
    with pytest.raises(DataError, match=r"memory://b/laion/00001\.tar: offset 0"):
        index("memory://b/laion", allow_remote=["memory"])
    index("memory://b/laion", allow_remote=["memory"], on_error="skip")
    assert "left out: memory://b/laion/00001.tar" in capsys.readouterr().out
    assert len(ShardSet("memory://b/laion", remote=Remote(("memory",)))) == 10


def test_some_tars_of_a_remote_folder(server, shards):
    part = ShardSet(f"{server.origin}/shards/{{000001..000002}}.tar", remote=allowed(server))
    assert part.keys == [f"k{n:04d}" for n in range(9, 27)]
    with pytest.raises(DataError, match=r"000009\.tar: not listed"):
        ShardSet(f"{server.origin}/shards/000009.tar", remote=allowed(server))


def test_a_scheme_without_its_package(monkeypatch):
    import fsspec

    def lacking(*arguments, **settings):
        raise ImportError("Please install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", lacking)
    with pytest.raises(DataError, match=r"s3 needs another package .*s3fs"):
        ShardSet("s3://bucket/x", remote=Remote(("s3",), tries=1))


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["show", "--n", "3", "--out", "{}/sheet.png"],
        ["inspect", "--rows", "2", "--out", "{}/batch.png"],
        ["split", "--by", "key", "--out", "{}/parts"],
        ["bench", "--n", "12", "--size", "16", "--batch_size", "4", "--rounds", "1"],
    ],
    ids=lambda command: command[0],
)
def test_commands_read_from_elsewhere_where_they_are_allowed_to(command, shards, server, tmp_path, capsys):
    from modalign.trainers.cli import main

    name, *options = (word.format(tmp_path) for word in command)
    line = ["data", name, f"{server.origin}/shards", *options]
    assert main(line) == 2
    assert "--allow_remote" in capsys.readouterr().err and not server.asked
    assert main([*line, "--allow_remote", f"[{server.origin}]"]) == 0
    assert "/shards/000000.tar" in server.asked
