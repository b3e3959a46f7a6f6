"""Damage of every kind: each must be an error that names the culprit, and none may deliver half a sample."""

import gzip
import io
import json
import os
import shutil
import tarfile

import pytest

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.index import build_index, index_path, read_index, write_index
from modalign.datasets.shards.manifest import ShardInfo, read_manifest, write_manifest
from modalign.datasets.shards.tarwalk import walk
from modalign.datasets.shards.verify import sha256_of, verify_shard
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def craft(path, members, **settings):
    """Writes a tar of (name, bytes or TarInfo) with Python's own module."""
    with tarfile.open(path, "w", **settings) as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def adopt(folder, task="image-text"):
    """Writes a manifest for hand-made tars, without any check of what is in them."""
    shards = [
        ShardInfo(p.name, len(list(build_index(p).keys)), p.stat().st_size, sha256_of(p)) for p in sorted(folder.glob("*.tar"))
    ]
    from modalign.datasets.shards.manifest import Manifest

    write_manifest(folder, Manifest(task, {"fields": {}, "languages": {}}, "", shards))
    return folder


def test_round_trip(shards, samples):
    source = ShardSet(shards)
    assert len(source) == 50 and source.shard_sizes == [9] * 5 + [5]
    assert source.keys == [f"k{n:04d}" for n in range(50)]
    for number, sample in enumerate(samples(50)):
        raw = source.read(number)
        assert raw.members["png"] == sample["image"] and raw.members["txt"].decode() == sample["captions"]["en"][0]
        decoded = decode_sample(raw)
        assert decoded.captions == sample["captions"] and decoded.meta == {"group": sample["group"]}
        assert decoded.images[0].getpixel((0, 0)) == (number, 100, 7)
        assert decoded.primary_caption == f"caption {number}"


def test_fields(shards):
    source = ShardSet(shards)
    assert list(source.read(3, ["image"]).members) == ["png"]
    assert list(source.read(3, ["json", "txt"]).members) == ["json", "txt"]
    assert source.read(3, []).members == {} and source.read(3, []).key == "k0003"
    with pytest.raises(DataError, match=r"000000\.tar: sample 'k0003': it has no field 'audio'"):
        source.read(3, ["audio"])
    with pytest.raises(DataError, match="no sample number 50"):
        source.read(50)


def test_many_open_files_are_bounded(tmp_path, samples, monkeypatch):
    write_shards(samples(30), tmp_path / "s", samples_per_shard=1)
    monkeypatch.setattr("modalign.datasets.shards.shard_set._OPEN_FILES", 4)
    source = ShardSet(tmp_path / "s")
    before = len(os.listdir("/proc/self/fd"))
    assert [raw.key for raw in source.samples(["txt"])] == source.keys
    assert len(os.listdir("/proc/self/fd")) - before <= 4


@pytest.mark.parametrize("step", [97])
def test_every_cut_is_found(shards, step):
    """A shard cut at any place is refused: at the start, and also when only the tar is looked at."""
    whole = (shards / "000001.tar").read_bytes()
    end = max(member.offset + 512 for member in walk(shards / "000001.tar")) + 512
    cut = shards / "000001.tar"
    for size in [*range(0, end, step), *range(0, end, 512), end - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(
            DataError, match=r"000001\.tar: shards\.json says \d+ bytes, the file has \d+; first damage: offset \d+"
        ):
            ShardSet(shards)


def test_every_flipped_bit_is_found(shards):
    """A changed byte anywhere (same size) is found by the hash before any sample of that shard is delivered."""
    path = shards / "000002.tar"
    whole = path.read_bytes()
    for place in [5, 130, 150, 257, 513, 700, 1500, 3000, len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        os.utime(path, (place, place))
        source = ShardSet(shards)
        assert source.read(0).key == "k0000"
        for _ in range(2):
            with pytest.raises(DataError, match=r"000002\.tar: its SHA-256 is not the one in shards\.json"):
                source.read(20)


@pytest.mark.parametrize("name", ["checksum", "size", "garbage", "in_header", "missing", "empty"])
def test_other_damage(shards, name):
    path = shards / "000003.tar"
    data = bytearray(path.read_bytes())
    second = list(walk(path))[3].start
    if name == "missing":
        path.unlink()
    elif name == "empty":
        path.write_bytes(b"")
    else:
        if name == "checksum":
            data[second + 149] = ord("1") if data[second + 149] != ord("1") else ord("2")
        elif name == "size":
            data[second + 124 : second + 135] = b"77777777777"
        elif name == "garbage":
            data[:512] = os.urandom(512)
        elif name == "in_header":
            data[second : second + 512] = b"x" * 512
        path.write_bytes(data)
    with pytest.raises(DataError, match=r"000003\.tar") as caught:
        ShardSet(shards).read(30)
    if name in ("checksum", "size", "in_header"):
        assert f"first damage: offset {second}: damaged header" in str(caught.value)
    if name == "garbage":
        assert "offset 0: damaged header" in str(caught.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"1"), ("a.txt", b"x"), ("b.png", b"2")], r"offset 2048: sample 'b' has no field 'txt'"),
        ([("a.txt", b"x")], "sample 'a' has no field 'image'"),
        (
            [("a.png", b"1"), ("a.txt", b"x"), ("b.png", b"1"), ("b.txt", b"y"), ("a.png", b"3"), ("a.txt", b"z")],
            "'a' appears twice",
        ),
        ([("a.png", b"1"), ("b.png", b"2"), ("a.txt", b"x"), ("b.txt", b"y")], "sample 'a' has no field 'txt'"),
        (
            [("a.png", b"1"), ("a.txt", b"x"), ("b.png", b"2"), ("b.txt", b"y"), ("a.json", b"{}")],
            "'a' has no field|'a' is interleaved",
        ),
        ([("a.png", b"1"), ("a.png", b"2"), ("a.txt", b"x")], "offset 1024: sample 'a' has the member 'png' twice"),
        ([("a.JPG", b"1"), ("a.txt", b"x")], "sample 'a' has the upper-case extension 'JPG'"),
        ([("a", b"1")], "member 'a' is not of the form"),
        ([(".png", b"1")], "member '.png' is not of the form"),
        ([("../../a.png", b"1")], "may not be an absolute path nor contain"),
        ([("/etc/a.png", b"1")], "may not be an absolute path"),
        ([("a\nb.png", b"1")], "is not of the form"),
        ([], "has no samples"),
    ],
)
def test_schema_errors(tmp_path, members, message):
    path = craft(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=message) as caught:
        build_index(path, "image-text")
    assert "x.tar: offset" in str(caught.value)


def test_interleaved_without_schema(tmp_path):
    path = craft(tmp_path / "x.tar", [("a.png", b"1"), ("b.png", b"2"), ("a.txt", b"x")])
    with pytest.raises(DataError, match="sample 'a' is interleaved"):
        build_index(path)


def test_names_of_all_kinds(tmp_path):
    names = ["a.0.jpg", "a.1.jpg", "a.seg.png", "dir.d/b.png", "ü ß.png", "n" * 180 + ".png", "x/" + "y" * 140 + ".png"]
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        path = craft(tmp_path / f"{number}.tar", [(name, name.encode()) for name in names], format=kind)
        index = build_index(path)
        assert index.keys == ["a", "dir.d/b", "ü ß", "n" * 180, "x/" + "y" * 140]
        assert list(index.members(0)) == ["0.jpg", "1.jpg", "seg.png"]
        data = path.read_bytes()
        for row, key in enumerate(index.keys):
            for ext, (offset, size) in index.members(row).items():
                assert data[offset : offset + size].decode() == f"{key}.{ext}"


def test_against_tarfile(shards):
    """The walk finds what Python's own module finds in an undamaged tar."""
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            expected = [(member.name, member.offset, member.offset_data, member.size) for member in tar]
        assert [(m.name, m.start, m.offset, m.size) for m in walk(path)] == expected


def _special(kind, **more):
    info = tarfile.TarInfo("a.png")
    info.type = kind
    for name, value in more.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.CHRTYPE, "a character"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, what):
    path = craft(tmp_path / "x.tar", [(_special(kind, linkname="/etc/passwd"), b"")])
    with pytest.raises(DataError, match=f"offset 0: the member 'a.png' is {what}"):
        build_index(path)


def test_sparse_and_directories(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    path = craft(tmp_path / "x.tar", [(info, b"1")], format=tarfile.PAX_FORMAT)
    with pytest.raises(DataError, match="sparse"):
        build_index(path)
    path = craft(tmp_path / "y.tar", [(_special(tarfile.DIRTYPE, name="dir"), b""), ("dir/a.png", b"1")])
    assert build_index(path).keys == ["dir/a"]


def test_size_lies_and_caps(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"size": "99999999999"}
    path = craft(tmp_path / "x.tar", [("b.png", b"1")], format=tarfile.PAX_FORMAT)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(DataError, match=r"99999999999 bytes, more than the limit of 67108864"):
        build_index(path)
    big = craft(tmp_path / "big.tar", [("a.png", b"0" * 3000)])
    with pytest.raises(DataError, match="3000 bytes, more than the limit of 2000"):
        build_index(big, max_member_bytes=2000)


def test_joined_and_compressed_tars(tmp_path):
    path = craft(tmp_path / "x.tar", [("a.png", b"1")])
    data = path.read_bytes()
    path.write_bytes(data + data)
    with pytest.raises(DataError, match="data after the end marker"):
        build_index(path)
    path.write_bytes(gzip.compress(data))
    with pytest.raises(DataError, match="offset 0: the shard is gzip-compressed"):
        build_index(path)


@pytest.mark.parametrize(
    "name",
    ["pipe:touch MARK", "PIPE:touch MARK", " pipe:touch MARK", "http://169.254.1.1/x", "file:///etc", "s3://b/k", "hf:a/b"],
)
def test_urls_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"the scheme .* is refused"):
        ShardSet(name)
    with pytest.raises(DataError, match=r"the scheme .* is refused"):
        write_shards([], name)
    assert not (tmp_path / "MARK").exists()


def test_shards_json_is_not_trusted(shards):
    good = json.loads((shards / "shards.json").read_text())

    def with_change(**change):
        (shards / "shards.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError) as caught:
            ShardSet(shards)
        return str(caught.value)

    first = good["shards"][0]
    assert "plain file name" in with_change(shards=[{**first, "name": "../x.tar"}, *good["shards"][1:]])
    assert "listed twice" in with_change(shards=[first, first, *good["shards"][1:]], samples=59)
    assert "says 51 samples" in with_change(samples=51)
    assert "64 hexadecimal" in with_change(shards=[{**first, "sha256": "x"}, *good["shards"][1:]])
    assert "format is 'other/1'" in with_change(format="other/1")
    assert "000000.tar: shards.json says 8 samples" in with_change(
        shards=[{**first, "samples": 8}, *good["shards"][1:]], samples=49
    )
    (shards / "shards.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_manifest(shards)


def test_folder_without_manifest(tmp_path):
    with pytest.raises(DataError, match="no such folder of shards; make one with `modalign data pack"):
        ShardSet(tmp_path / "none")
    with pytest.raises(DataError, match="not a complete folder of shards; make one with `modalign data pack"):
        ShardSet(tmp_path)


def test_damaged_index_is_made_again_from_a_good_tar(shards, caplog):
    expected = [raw.members for raw in ShardSet(shards).samples()]
    path = index_path(shards / "000001.tar")
    good = path.read_bytes()
    for bad in (None, b"", good.replace(b"512", b"513", 1), index_path(shards / "000000.tar").read_bytes()):
        path.unlink(missing_ok=True)
        if bad is not None:
            path.write_bytes(bad)
        caplog.clear()
        assert [raw.members for raw in ShardSet(shards).samples()] == expected
        assert "000001.idx.json" in caplog.text and "again" in caplog.text
    (shards / "000001.tar").write_bytes((shards / "000001.tar").read_bytes().replace(b"caption", b"CAPTION"))
    with pytest.raises(DataError, match="SHA-256"):
        ShardSet(shards)


@pytest.mark.parametrize(
    ("name", "value"), [("offsets", 10**9), ("offsets", -2), ("sizes", 10**9), ("sizes", -1), ("sizes", 2**62)]
)
def test_an_index_that_points_outside_its_shard(shards, name, value):
    """Its hash fits, its numbers do not: it is not believed."""
    info = read_manifest(shards).shards[0]
    index = build_index(shards / info.name)
    getattr(index, name)[3, 1] = value
    write_index(shards / info.name, index, info)
    with pytest.raises(DataError, match=r"000000\.idx\.json: the index is damaged \(a member would lie outside of its shard\)"):
        read_index(shards / info.name, info)


def test_duplicate_key_in_two_shards(tmp_path):
    for name in ("0.tar", "1.tar"):
        craft(tmp_path / name, [("a.png", b"1"), ("a.txt", b"x")])
    with pytest.raises(DataError, match=r"the key 'a' appears twice, in 0\.tar and in 1\.tar"):
        ShardSet(adopt(tmp_path))


def test_missing_field_in_an_adopted_set(tmp_path):
    craft(tmp_path / "0.tar", [("a.png", b"1"), ("a.txt", b"x"), ("b.png", b"1")])
    with pytest.raises(DataError, match=r"0\.tar: offset \d+: sample 'b' has no field 'txt'"):
        ShardSet(adopt(tmp_path))


def test_hash_is_remembered_until_the_file_changes(shards, monkeypatch):
    hashed = []

    def counting(path):
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr("modalign.datasets.shards.verify.sha256_of", counting)
    list(ShardSet(shards).samples())
    assert hashed == []  # the writer has just hashed them
    os.utime(shards / "000004.tar", (1, 1))
    list(ShardSet(shards).samples())
    list(ShardSet(shards).samples())
    assert hashed == ["000004.tar"]
    monkeypatch.setenv("MODALIGN_HOME", "/proc/nowhere")  # cannot be written: works all the same
    list(ShardSet(shards).samples())
    assert len(hashed) == 7


def test_cut_while_in_use(shards):
    source = ShardSet(shards)
    source.read(0)
    os.truncate(shards / "000000.tar", 1024)
    with pytest.raises(DataError, match="cut while in use"):
        source.read(8)


def test_fingerprint_follows_content(shards, tmp_path, samples):
    shutil.copytree(shards, tmp_path / "copy")
    assert ShardSet(shards).fingerprint == ShardSet(tmp_path / "copy").fingerprint
    write_shards(samples(50, start=1), tmp_path / "other", samples_per_shard=9)
    assert ShardSet(shards).fingerprint != ShardSet(tmp_path / "other").fingerprint


def test_verify_shard(shards):
    info = read_manifest(shards).shards[0]
    verify_shard(shards / info.name, info, remembered=False)
    with pytest.raises(DataError, match="the tar's structure is intact"):
        verify_shard(shards / info.name, ShardInfo(info.name, 9, info.bytes, "0" * 64))
