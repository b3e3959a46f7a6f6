"""Data that tries to run something or to fill the memory: refused, and the marker it would leave is not there."""

import gzip
import io
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.decoding.table import decode_member
from modalign.datasets.shards import ShardSet
from modalign.trainers.recipe import DataConfig
from modalign.trainers.stage_data import open_sources
from modalign.zoo.errors import DataError

from ..test_foreign import jpeg, tar_of


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


def object_array(marker):
    stream = io.BytesIO()
    np.save(stream, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def test_the_payload_works(tmp_path):
    """Else the tests below show nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "MARK"))).close()
    assert (tmp_path / "MARK").exists()


@pytest.mark.parametrize("ext", ["pyd", "pkl", "pickle", "pth", "pt", "ckpt", "0.pkl", "joblib", "dill"])
def test_pickles_in_shards(tmp_path, ext):
    """Fault 19: indexing and reading treat a pickle as bytes, decoding refuses it."""
    (tmp_path / "s").mkdir()
    bad = pickle.dumps(Payload(tmp_path / "MARK"))
    tar_of(tmp_path / "s" / "0.tar", [("a.jpg", jpeg(1)), ("a.txt", b"x"), (f"a.{ext}", bad)])
    raw = ShardSet(tmp_path / "s").read(0)
    assert raw.members[ext] == bad
    with pytest.raises(DataError, match=rf"0\.tar: sample 'a', field '{ext}': .*can run code"):
        decode_sample(raw)
    assert not (tmp_path / "MARK").exists()


def test_object_arrays_in_shards(tmp_path):
    """Fault 19."""
    (tmp_path / "s").mkdir()
    tar_of(tmp_path / "s" / "0.tar", [("a.npy", object_array(tmp_path / "MARK")), ("a.txt", b"x")])
    with pytest.raises(DataError, match=r"sample 'a', field 'npy': .*holds Python objects"):
        decode_sample(ShardSet(tmp_path / "s").read(0))
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("ext", ["cbor", "msgpack", "mp", "ten", "tb", "cls", "index", "gz", "so", "py"])
def test_other_extensions_stay_bytes(ext):
    """Hazard: webdataset decodes many of these by themselves."""
    assert decode_member(ext, b"\x80\x04whatever") == b"\x80\x04whatever"


@pytest.mark.parametrize(
    "spec",
    [
        "pipe:touch {mark}",
        "PIPE:touch {mark}",
        " pipe:touch {mark}",
        "pipe:touch {mark}.tar",
        "pipe://touch {mark}",
        "file:{mark}",
        "file://{mark}",
        "http://169.254.169.254/{mark}",
        "x.tar|touch {mark}",
        "$(touch {mark})",
        "`touch {mark}`",
        "${{touch}}.tar",
    ],
)
def test_a_recipe_cannot_run_a_command(tmp_path, spec, monkeypatch):
    """Fault 18: as data.train of a recipe; no process starts (nothing could find `touch` otherwise)."""
    monkeypatch.setenv("GOPEN_REWRITE", f"file:=pipe:touch {tmp_path}/MARK;")
    monkeypatch.setenv("WDS_SECURE", "0")
    monkeypatch.chdir(tmp_path)
    for train in (spec.format(mark=tmp_path / "MARK"), {spec.format(mark=tmp_path / "MARK"): 1.0}):
        with pytest.raises(DataError):
            open_sources(DataConfig(train=train), "data")
    assert not (tmp_path / "MARK").exists()


def bomb(path, size=200 * 2**20):
    """A small file that is a tar with a large member, once it is unpacked."""
    info = tarfile.TarInfo("a.txt")
    info.size = size
    head = info.tobuf(tarfile.USTAR_FORMAT)
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(head)
        for _ in range(size // 2**20):
            stream.write(bytes(2**20))
        stream.write(bytes(1024))
    return path


def peak_of(action):
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            action()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


def test_a_compressed_bomb_is_not_unpacked(tmp_path):
    """Fault 21: transparent decompression is never tried, whatever the file is called."""
    (tmp_path / "s").mkdir()
    assert bomb(tmp_path / "s" / "0.tar").stat().st_size < 10**6
    peak, text = peak_of(lambda: ShardSet(tmp_path / "s"))
    assert "offset 0: the shard is gzip-compressed" in text and peak < 5 * 2**20


def header(name="a.txt", size=3, **changes):
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def raw_tar(path, *parts):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(parts) + bytes(1024))
    return path


def padded(data):
    return data + bytes(-len(data) % 512)


LIES = {
    "larger than the file": ([header(size=10**6).tobuf(tarfile.USTAR_FORMAT), padded(b"abc")], "cut off inside the member"),
    "larger than the limit": ([header(size=2**33).tobuf(tarfile.GNU_FORMAT), padded(b"abc")], "more than the limit"),
    "smaller than the data": ([header(size=3).tobuf(tarfile.USTAR_FORMAT), padded(b"x" * 1500)], "damaged header"),
    "a long name of gigabytes": (
        [header("././@LongLink", 2**31, type=b"L").tobuf(tarfile.GNU_FORMAT)],
        "extension header claims",
    ),
    "a pax header of gigabytes": ([header("pax", 2**31, type=b"x").tobuf(tarfile.GNU_FORMAT)], "extension header claims"),
    "a damaged pax header": (
        [header("pax", 9, type=b"x").tobuf(tarfile.USTAR_FORMAT), padded(b"99 path=x")],
        "damaged pax header",
    ),
    "a global path": (
        [header("pax", 11, type=b"g").tobuf(tarfile.USTAR_FORMAT), padded(b"11 path=ab\n")],
        "global header sets 'path'",
    ),
    "a sparse member": ([header(type=b"S").tobuf(tarfile.GNU_FORMAT), padded(b"abc")], "a sparse file"),
    "a symbolic link": ([header(size=0, type=b"2", linkname="/etc/passwd").tobuf(tarfile.USTAR_FORMAT)], "a symbolic link"),
    "a hard link": ([header(size=0, type=b"1", linkname="b.txt").tobuf(tarfile.USTAR_FORMAT)], "a hard link"),
    "a character device": ([header(size=0, type=b"3").tobuf(tarfile.USTAR_FORMAT)], "a character device"),
    "a block device": ([header(size=0, type=b"4").tobuf(tarfile.USTAR_FORMAT)], "a block device"),
    "a named pipe": ([header(size=0, type=b"6").tobuf(tarfile.USTAR_FORMAT)], "a named pipe"),
    "an unknown kind": ([header(size=0, type=b"Z").tobuf(tarfile.USTAR_FORMAT)], "unknown type"),
    "a name that leaves the folder": ([header("../../a.txt").tobuf(tarfile.USTAR_FORMAT), padded(b"abc")], "contain '..'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path, lie):
    """Fault 21: refused with the offset, and without spending the memory they claim."""
    parts, message = LIES[lie]
    raw_tar(tmp_path / "s" / "0.tar", *parts)
    peak, text = peak_of(lambda: ShardSet(tmp_path / "s"))
    assert "0.tar: offset 0" in text or "0.tar: offset" in text
    assert message in text and peak < 5 * 2**20


def test_long_names_and_pax_paths_are_read(tmp_path):
    """Fault 21: what honest tools write is understood."""
    (tmp_path / "s").mkdir()
    long = "n" * 150
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        tar_of(tmp_path / "s" / f"{number}.tar", [(f"{long}{number}.jpg", jpeg(1)), (f"{long}{number}.txt", b"x")], format=kind)
    assert ShardSet(tmp_path / "s").keys == [f"{long}0", f"{long}1"]
