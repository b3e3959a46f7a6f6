"""Property-based fuzz of what reads tars, indexes and manifests: damage of any kind is one of our errors, or harms nothing.

Every sample that is delivered is bit for bit one that was written; nothing else than `ModalignError` may be raised.
"""

import io
import json
import os
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.foreign import index_folder
from modalign.datasets.shards.index import ShardIndex, build_index, index_path, parse_index
from modalign.datasets.shards.locations import parse_location
from modalign.datasets.shards.manifest import ShardInfo, parse_manifest, read_manifest
from modalign.datasets.shards.tarwalk import walk
from modalign.datasets.shards.verify import sha256_of
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import ModalignError

FUZZ = settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
)
COUNT, PER_SHARD = 12, 4
MEMORY = 30 * 2**20


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of shards, and its samples' members."""
    folder = tmp_path_factory.mktemp("fuzz") / "s"
    made = [
        {
            "key": f"k{n}",
            "members": {"png": bytes([n]) * (40 + 300 * n)},
            "captions": {"en": [f"caption {n}"], "de": ["ß" * n + "x"]},
        }
        for n in range(COUNT)
    ]
    write_shards(made, folder, samples_per_shard=PER_SHARD)
    return folder, {raw.key: raw.members for raw in ShardSet(folder).samples()}


def copy(folder):
    place = Path(tempfile.mkdtemp(prefix="modalign-fuzz-"))
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def clean(place):
    for path in place.iterdir():
        path.unlink()
    place.rmdir()


@st.composite
def mutations(draw, size):
    """A change of a file: what to do with its bytes."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "repeat", "blocks", "zero", "number"]))
    place = draw(st.integers(0, max(size - 1, 0)))
    return kind, place, draw(st.integers(1, 2000)), draw(st.binary(min_size=1, max_size=600)), draw(st.integers(0, 7))


def mutated(data, change):
    kind, place, length, extra, bit = change
    place = min(place, max(len(data) - 1, 0))
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :] if data else data
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + extra + data[place:]
    if kind == "remove":
        return data[:place] + data[place + length :]
    if kind == "repeat":
        return data[: place + length] + data[place:]
    if kind == "zero":
        return data[:place] + bytes(length) + data[place + length :]
    if kind == "number":
        return data[:place] + b"99999999999"[: bit + 1] + data[place + bit + 1 :]
    start, end = place // 512 * 512, (place + length) // 512 * 512  # whole blocks move
    return data[end : end + 1024] + data[:start] + data[start:end]


def read_all(source):
    found = {}
    for number in range(len(source)):
        try:
            raw = source.read(number)
        except ModalignError:
            continue
        found[raw.key] = raw.members
    return found


@FUZZ
@given(data=st.data())
def test_a_mutated_shard(whole, data):
    """Under its manifest a changed shard gives the samples that were written, or none."""
    folder, expected = whole
    place = copy(folder)
    try:
        tar = place / "000001.tar"
        before = tar.read_bytes()
        changes = data.draw(st.lists(mutations(len(before)), min_size=1, max_size=3))
        after = before
        for change in changes:
            after = mutated(after, change)
        tar.write_bytes(after)
        os.utime(tar, (7, 7))
        tracemalloc.start()
        try:
            found = read_all(ShardSet(place, on_error="skip"))
        except ModalignError:
            found = {}
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert all(members == expected[key] for key, members in found.items())
        if after != before:
            assert not {f"k{n}" for n in range(4, 8)} & set(found)
        assert peak < MEMORY
    finally:
        clean(place)


@FUZZ
@given(data=st.data())
def test_a_mutated_shard_of_others(whole, data):
    """Without a manifest: a walk that accepts a tar agrees with Python's own reader about every member's name and place."""
    folder, _ = whole
    before = (folder / "000001.tar").read_bytes()
    after = before
    for change in data.draw(st.lists(mutations(len(before)), min_size=1, max_size=2)):
        after = mutated(after, change)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "0.tar"
        path.write_bytes(after)
        try:
            found = [(member.name, member.offset, member.size) for member in walk(path)]
            index = build_index(path)
        except ModalignError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return
        with tarfile.open(path) as tar:
            assert found == [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]
        for row, key in enumerate(index.keys):
            for ext, (offset, size) in index.members(row).items():
                assert (f"{key}.{ext}", offset, size) in found


@FUZZ
@given(order=st.permutations(range(8)), drop=st.sets(st.integers(0, 7), max_size=3))
def test_members_in_another_order(order, drop):
    """Members shuffled or lost: samples stay apart; what is not together is refused."""
    names = [f"{key}.{ext}" for key in "abcd" for ext in ("png", "txt")]
    kept = [names[number] for number in order if number not in drop]
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(Path(name) / "0.tar", "w") as tar:
            for member in kept:
                info = tarfile.TarInfo(member)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member.encode()))
        runs = [key for number, key in enumerate(member[0] for member in kept) if number == 0 or kept[number - 1][0] != key]
        together = len(runs) == len(set(runs)) and kept
        try:
            index_folder(Path(name))
            source = ShardSet(name)
        except ModalignError:
            assert not together
            return
        assert together
        for raw in source.samples():
            assert raw.members == {ext: f"{raw.key}.{ext}".encode() for ext in raw.members}
            assert set(raw.members) == {member[2:] for member in kept if member[0] == raw.key}


@FUZZ
@given(data=st.data())
def test_a_mutated_index(whole, data):
    """A changed index is noticed and made again, so that every sample still comes as it was written."""
    folder, expected = whole
    place = copy(folder)
    try:
        path = index_path(place / "000001.tar")
        before = path.read_bytes()
        after = mutated(before, data.draw(mutations(len(before))))
        path.write_bytes(after)
        os.utime(path, (7, 7))
        assert read_all(ShardSet(place)) == expected
    finally:
        clean(place)


ANY_TEXT = st.text(st.characters(), max_size=8)  # half surrogate pairs too: JSON may hold them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(data=st.data())
def test_a_mutated_manifest(whole, data):
    """A changed manifest is an error, or names shards as they are; no sample changes its content."""
    folder, expected = whole
    place = copy(folder)
    try:
        before = (place / "shards.json").read_bytes()
        after = mutated(before, data.draw(mutations(len(before))))
        (place / "shards.json").write_bytes(after)
        try:
            found = read_all(ShardSet(place, on_error="skip"))
        except ModalignError as error:
            assert "\n" not in str(error)
            return
        assert all(members == expected[key] for key, members in found.items())
    finally:
        clean(place)


@FUZZ
@given(
    change=st.dictionaries(
        st.sampled_from(["format", "task", "schema", "source", "samples", "shards", "layout", "language", "qualified"]), JSON
    )
)
def test_any_value_in_a_manifest(whole, change):
    folder, _ = whole
    content = json.loads((folder / "shards.json").read_text()) | change
    try:
        manifest = parse_manifest("shards.json", json.dumps(content).encode("utf-8", "surrogatepass"))
    except ModalignError as error:
        assert str(error).startswith("shards.json: ")
        return
    assert manifest.samples == COUNT and all(type(info.samples) is int and "/" not in info.name for info in manifest.shards)


@FUZZ
@given(shard=st.fixed_dictionaries({"name": JSON, "samples": JSON, "bytes": JSON, "sha256": JSON}) | JSON)
def test_any_shard_in_a_manifest(shard):
    content = {"format": "modalign-shards/1", "task": "x", "schema": {}, "source": "", "samples": 1, "shards": [shard]}
    with pytest.raises(ModalignError):
        parse_manifest("m", json.dumps(content).encode("utf-8", "surrogatepass"))


COUNTS = st.sampled_from([0, 1, 4, 10240, 2**31, 2**63 - 1, 2**63, 2**64, 2**70, 10**400])


@FUZZ
@given(samples=COUNTS, size=COUNTS)
def test_any_count_in_a_manifest(samples, size):
    """A manifest that is taken has counts that a place in a shard can be compared with."""
    shard = {"name": "0.tar", "samples": samples, "bytes": size, "sha256": "0" * 64}
    content = {"format": "modalign-shards/1", "task": "x", "schema": {}, "source": "", "samples": samples, "shards": [shard]}
    try:
        taken = parse_manifest("m", json.dumps(content).encode()).shards[0]
    except ModalignError as error:
        assert "0.tar: samples and bytes" in str(error) and not (0 < samples < 2**63 and 0 < size < 2**63)
        return
    assert 0 < taken.samples < 2**63 and 0 < taken.bytes < 2**63


@FUZZ
@given(size=COUNTS, offset=st.integers(-1, 2**63 - 1), length=st.integers(0, 2**63 - 1))
def test_any_size_of_a_shard(size, offset, length):
    """An index is only taken if every member lies inside of its shard, however large the shard is said to be."""
    import hashlib

    body = json.dumps({"keys": ["a"], "exts": ["txt"], "offsets": [[offset]], "sizes": [[length]]}).encode()
    head = {"format": "modalign-index/1", "bytes": size, "sha256": "0" * 64, "columns_sha256": hashlib.sha256(body).hexdigest()}
    try:
        parse_index("i", json.dumps(head).encode() + b"\n" + body + b"\n", ShardInfo("0.tar", 1, size, "0" * 64))
    except ModalignError:
        return
    assert offset + length <= size


@FUZZ
@given(keys=JSON, exts=JSON, offsets=JSON, sizes=JSON)
def test_any_value_in_an_index(keys, exts, offsets, sizes):
    """The hash of an index only says that it was not damaged; its values are checked all the same."""
    import hashlib

    body = json.dumps({"keys": keys, "exts": exts, "offsets": offsets, "sizes": sizes}).encode("utf-8", "surrogatepass")
    head = {"format": "modalign-index/1", "bytes": 10240, "sha256": "0" * 64, "columns_sha256": hashlib.sha256(body).hexdigest()}
    try:
        index = parse_index("i", json.dumps(head).encode() + b"\n" + body + b"\n", ShardInfo("0.tar", 1, 10240, "0" * 64))
    except ModalignError:
        return
    assert isinstance(index, ShardIndex) and index.offsets.shape == (len(index.keys), len(index.exts))


@FUZZ
@given(data=st.binary(max_size=3000) | st.binary(max_size=300).map(lambda head: head.ljust(512, b"\0") + bytes(1024)))
def test_any_bytes_as_files(data):
    """No reader trips over bytes of any kind."""
    with tempfile.TemporaryDirectory() as name:
        for file in ("0.tar", "0.idx.json", "shards.json"):
            (Path(name) / file).write_bytes(data)
        for read in (lambda: build_index(Path(name) / "0.tar"), lambda: read_manifest(name), lambda: ShardSet(name)):
            with pytest.raises(ModalignError):
                read()
        with pytest.raises(ModalignError):
            parse_index("i", data, ShardInfo("0.tar", 1, 10240, sha256_of(Path(name) / "0.tar")))


@FUZZ
@given(text=st.text(max_size=40) | st.from_regex(r"[a-z]{0,6}:{0,2}/{0,3}[a-z0-9.{},$~*-]{0,20}(\.tar)?", fullmatch=True))
def test_any_text_as_a_location(text):
    """Only what can be a path or an allowed address gets through, and nothing is opened to find out."""
    try:
        location = parse_location(text)
    except ModalignError:
        return
    assert location.folder is not None or location.tars or location.urls
    if location.urls:
        with pytest.raises(ModalignError):
            ShardSet(text)


CAPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "captions": st.dictionaries(ANY_TEXT, st.lists(ANY_TEXT, max_size=3), max_size=2),
        "caption": ANY_TEXT | st.lists(ANY_TEXT, max_size=3),
        "lang": ANY_TEXT,
    },
)


@FUZZ
@given(content=JSON | CAPTIONS, text=st.none() | st.text(max_size=10))
def test_any_json_as_captions(content, text):
    from modalign.datasets.shards.shard_set import RawSample

    members = {"json": json.dumps(content).encode("utf-8", "surrogatepass")} | ({} if text is None else {"txt": text.encode()})
    try:
        sample = decode_sample(RawSample("k", "s", 0, members))
    except ModalignError as error:
        assert str(error).startswith("s: sample 'k', field ")
        return
    for lang, texts in sample.captions.items():
        assert texts and all(one.strip() and one.encode() for one in (lang, *texts))
