"""check, show, split and bench."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from modalign.datasets.commands.bench import bench
from modalign.datasets.commands.check import check
from modalign.datasets.commands.sheet import contact_sheet, fit, missing_glyphs
from modalign.datasets.commands.show import show
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.packing.split import part_of, split
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.index import build_index, write_index
from modalign.datasets.shards.manifest import Manifest, read_manifest, write_manifest
from modalign.datasets.shards.verify import sha256_of
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def test_check_of_a_good_set(shards, capsys):
    check(str(shards))
    out = capsys.readouterr().out
    assert "50 samples (image-text) in 6 shards" in out and "de 50, en 100" in out and "every sample" in out


def test_check_names_every_bad_sample(tmp_path, samples):
    made = [{**sample, "image": b"broken"} if number in (3, 14) else sample for number, sample in enumerate(samples(20))]
    write_shards(made, tmp_path / "s", samples_per_shard=10)
    with pytest.raises(DataError) as caught:
        check(str(tmp_path / "s"))
    text = str(caught.value)
    assert "2 finding(s)" in text
    assert "000000.tar: sample 'k0003', field 'png'" in text and "000001.tar: sample 'k0014', field 'png'" in text
    check(str(tmp_path / "s"), decode=False)


def test_check_of_damaged_sets(shards):
    with open(shards / "000001.tar", "r+b") as stream:
        stream.seek(2000)
        stream.write(b"###")
    (shards / "000004.tar").write_bytes((shards / "000004.tar").read_bytes()[:5000])
    (shards / "extra.tar").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        check(str(shards))
    text = str(caught.value)
    assert "3 finding(s)" in text and "000001.tar: its SHA-256" in text and "extra.tar: not listed" in text
    assert "000004.tar: shards.json says" in text and "first damage: offset" in text


def test_check_finds_a_wrong_schema_and_index(shards):
    good = read_manifest(shards)
    wrong = {"fields": {**good.schema["fields"], "png": 51}, "languages": good.schema["languages"]}
    write_manifest(shards, Manifest(good.task, wrong, "", good.shards))
    with pytest.raises(DataError, match=r"schema\.fields says .*51"):
        check(str(shards))
    write_manifest(shards, good)
    index = build_index(shards / "000000.tar")
    index.offsets[0] = index.offsets[1]
    write_index(shards / "000000.tar", index, good.shards[0])
    with pytest.raises(DataError, match=r"000000\.tar: the index beside it does not describe it"):
        check(str(shards))


def test_check_finds_a_caption_that_is_not_the_json(tmp_path, samples):
    good = write_shards(samples(3), tmp_path / "s")
    tar = tmp_path / "s" / "000000.tar"
    data = tar.read_bytes()
    place = data.rindex(b"caption 1\0")  # the text member; the json has quotes after it
    tar.write_bytes(data[:place] + b"CAPTION 1" + data[place + 9 :])
    info = replace(good.shards[0], sha256=sha256_of(tar))
    write_index(tar, build_index(tar), info)
    write_manifest(tmp_path / "s", replace(good, shards=[info]))
    with pytest.raises(DataError, match="sample 'k0001', field 'txt': not the primary caption"):
        check(str(tmp_path / "s"))


@pytest.mark.filterwarnings("error")
def test_show(shards, tmp_path, capsys):
    show(str(shards), str(tmp_path / "new" / "sheet.png"), 5)
    out = capsys.readouterr().out
    assert "k0004: [en] caption 4 (+2)" in out and "k0005" not in out
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    for number in range(5):
        assert (pixels == [number, 100, 7]).all(-1).sum() > 1000  # every picture is there
    show(str(shards), str(tmp_path / "de.png"), 3, lang="de", seed=1)
    assert "[de] Straße" in capsys.readouterr().out
    with pytest.raises(DataError, match="no sample has a caption in 'fr'; languages: de, en"):
        show(str(shards), str(tmp_path / "fr.png"), lang="fr")


@pytest.mark.filterwarnings("error")
def test_sheet_never_draws_boxes(tmp_path):
    private = "\ue123"  # no font has it
    assert missing_glyphs(f"aä{private}\ufe0f\u200d") == {private}
    assert fit(f"a{private}b", 1) == ["aU+E123 b"]
    pictures = [Image.new("RGB", (30, 20)), Image.new("RGB", (1, 300))]
    plain = contact_sheet(pictures, ["a", "кот"], tmp_path / "a.png", "title")
    noted = contact_sheet(pictures, ["a", private], tmp_path / "b.png", "title")
    with Image.open(plain) as one, Image.open(noted) as two:
        assert two.height > one.height  # the line that says so
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        contact_sheet(pictures, ["a"], tmp_path / "c.png")


def test_wrapping():
    lines = fit("word " * 40, 3)
    assert len(lines) == 3 and lines[-1].endswith("…")
    assert fit("short", 3) == ["short"]
    long = fit("w" * 100, 9)
    assert "".join(long) == "w" * 100 and len(long) > 3
    assert fit("", 3) == [""]


def test_split_keeps_groups_together(shards, tmp_path, capsys):
    split(str(shards), str(tmp_path / "out"), fractions={"train": 0.6, "test": 0.4}, samples_per_shard=7)
    original = {raw.key: raw.members for raw in ShardSet(shards).samples()}
    groups = {}
    found = {}
    for part in ("train", "test"):
        for raw in ShardSet(tmp_path / "out" / part).samples():
            found[raw.key] = raw.members
            groups.setdefault(decode_sample(raw).meta["group"], set()).add(part)
        check(str(tmp_path / "out" / part))
    assert found == original
    assert all(len(parts) == 1 for parts in groups.values()) and len(groups) > 8


def test_split_is_stable_and_near_the_fractions():
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}
    parts = [part_of(str(n), fractions, 0) for n in range(5000)]
    for name, share in fractions.items():
        assert abs(parts.count(name) / 5000 - share) < 0.02
    other = [part_of(str(n), fractions, 1) for n in range(5000)]
    assert sum(a != b for a, b in zip(parts, other, strict=True)) > 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": {"a": 0.5, "b": 0.4}}, "add up to 1"),
        ({"fractions": {"a": 1.5, "b": -0.5}}, "must be positive"),
        ({"fractions": {"../a": 0.5, "b": 0.5}}, "cannot be the name of a part"),
        ({"by": "speaker"}, "sample 'k0000' has no field 'speaker' to split by"),
        ({"fractions": {"a": 0.9999, "b": 0.0001}}, "no sample falls into 'b'"),
    ],
)
def test_split_errors(shards, tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        split(str(shards), str(tmp_path / "out"), **settings)
    assert not (tmp_path / "out").exists()


def test_split_by_key_leaves_the_input_alone(shards, tmp_path):
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    split(str(shards), str(tmp_path / "out"), by="key")
    assert before == {path.name: path.read_bytes() for path in shards.iterdir()}
    sizes = [len(ShardSet(tmp_path / "out" / name)) for name in ("train", "test")]
    assert sum(sizes) == 50 and sizes[0] > sizes[1]


def test_bench_measures_every_step(shards, capsys):
    rates = bench(str(shards), n=30, size=16, batch_size=8, rounds=1)
    assert len(rates) == 7 and all(rate > 0 for rate in rates.values())
    out = capsys.readouterr().out
    assert "samples per second" in out and all(name in out for name in rates)
    with pytest.raises(DataError, match="do not make a batch"):
        bench(str(shards), batch_size=64)
