"""Shards that other tools wrote: one indexing pass, then they are read like ours, untouched."""

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile

import pytest
from PIL import Image

from modalign.datasets.commands.check import check
from modalign.datasets.commands.index import index
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.locations import expand_braces, parse_location
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def jpeg(number):
    stream = io.BytesIO()
    Image.new("RGB", (20, 16), (number % 256, 90, 30)).save(stream, "JPEG")
    return stream.getvalue()


def tar_of(path, members, **settings):
    with tarfile.open(path, "w", **settings) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def img2dataset(folder, shards=3, per_shard=5, restart=False):
    """What img2dataset leaves: KEY.jpg, KEY.txt, KEY.json per sample, and a parquet and a _stats.json per shard."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        members = []
        for row in range(per_shard):
            number = shard * per_shard + row
            key = f"{row:09d}" if restart else f"{shard:05d}{row:04d}"
            caption = f"caption {number}"
            about = {
                "caption": caption,
                "url": f"https://example.org/{number}.jpg",
                "key": key,
                "status": "success",
                "error_message": None,
                "width": 20,
                "height": 16,
                "exif": "{}",
                "sha256": "0" * 64,
            }
            members += [
                (f"{key}.jpg", jpeg(number)),
                (f"{key}.txt", caption.encode()),
                (f"{key}.json", json.dumps(about).encode()),
            ]
        tar_of(folder / f"{shard:05d}.tar", members)
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps({"count": per_shard + 1, "successes": per_shard}))
        (folder / f"{shard:05d}.parquet").write_bytes(b"PAR1")
    return folder


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_img2dataset_folder_is_indexed_at_first_use(tmp_path, capsys):
    folder = img2dataset(tmp_path / "laion")
    before = tree(folder)
    source = ShardSet(folder)
    assert "indexing them once" in capsys.readouterr().out
    assert len(source) == 15 and source.keys[6] == "000010001" and source.caption_field == "caption"
    for number in range(15):
        raw = source.read(number, ["image", "caption"])
        assert set(raw.members) == {"jpg", "txt", "json"}
        sample = decode_sample(raw)
        assert sample.captions == {"und": [f"caption {number}"]} and sample.meta["url"].endswith(f"/{number}.jpg")
        assert abs(sample.images[0].getpixel((3, 3))[0] - number) <= 2
    assert source.manifest.schema == {"fields": {"jpg": 15, "json": 15, "txt": 15}, "languages": {"und": 15}}
    after = tree(folder)
    assert before.items() <= after.items(), "nothing that was there is changed"
    assert set(after) - set(before) == {"shards.json", "00000.idx.json", "00001.idx.json", "00002.idx.json"}
    ShardSet(folder)
    assert "indexing" not in capsys.readouterr().out
    check(str(folder))


def test_they_train_like_ours(tmp_path):
    source = ShardSet(img2dataset(tmp_path / "laion", per_shard=8))
    plan = BatchPlan([source.shard_sizes], None, 6, 0)

    def example(sample, rng):
        return {"text": sample.primary_caption, "size": sample.images[0].size}

    for workers in (0, 2):
        loader = Loader(
            [source],
            plan,
            example,
            lambda rows: {"text": [r["text"] for r in rows]},
            num_workers=workers,
            fields=["caption", "image"],
        )
        seen = [text for batch in loader for text in batch["text"]]
        assert len(seen) == 24 and set(seen) == {f"caption {n}" for n in range(24)}


@pytest.mark.parametrize(
    ("members", "captions"),
    [
        ({"json": {"captions": {"de": ["eins", "zwei"]}, "caption": "no"}, "txt": "no"}, {"de": ["eins", "zwei"]}),
        ({"json": {"caption": "no", "x": 1}, "txt": "from txt"}, {"fr": ["from txt"]}),
        ({"json": {"caption": "from json"}, "txt": " \n"}, {"fr": ["from json"]}),
        ({"json": {"caption": ["a", "b"]}}, {"fr": ["a", "b"]}),
        ({"json": {"caption": "c", "lang": "cs"}}, {"cs": ["c"]}),
        ({"json": [1, 2], "txt": "t"}, {"fr": ["t"]}),
        ({"json": {"captions": ["a", "b"]}}, {"fr": ["a", "b"]}),
        ({"json": {"captions": ["a", " ", "b"], "lang": "cs"}, "txt": "no"}, {"cs": ["a", "b"]}),
        ({"json": {"captions": "one"}}, {"fr": ["one"]}),
        ({"json": {"captions": None}, "txt": "from txt"}, {"fr": ["from txt"]}),
        ({"json": {"captions": [], "caption": "from json"}}, {"fr": ["from json"]}),
        ({"json": {"captions": {}}, "txt": "from txt"}, {"fr": ["from txt"]}),
        ({"json": {"captions": None}}, {}),
        ({"cls": "7"}, {}),
        ({"json": {"caption": None}}, {}),
    ],
)
def test_where_captions_are(tmp_path, members, captions):
    """The rule of captions.py, with `--lang fr`."""
    (tmp_path / "s").mkdir()
    encoded = [("a." + ext, (json.dumps(value) if ext == "json" else value).encode()) for ext, value in members.items()]
    tar_of(tmp_path / "s" / "0.tar", [("a.jpg", jpeg(1)), *encoded])
    index(str(tmp_path / "s"), lang="fr")
    source = ShardSet(tmp_path / "s")
    assert decode_sample(source.read(0, ["image"] + (["caption"] if set(members) & {"json", "txt"} else []))).captions == captions


@pytest.mark.parametrize("captions", [3, True, ["a", 3], [["a"]], {"en": "a"}])
def test_captions_of_another_type_are_an_error(tmp_path, captions, capsys):
    (tmp_path / "s").mkdir()
    about = json.dumps({"captions": captions}).encode()
    tar_of(tmp_path / "s" / "0.tar", [("a.jpg", jpeg(1)), ("a.json", about), ("a.txt", b"t")])
    with pytest.raises(DataError, match=r"0\.tar: sample 'a', field 'json': 'captions"):
        index(str(tmp_path / "s"))
    tar_of(tmp_path / "s" / "0.tar", [("a.jpg", jpeg(1)), ("a.txt", b"t")])
    index(str(tmp_path / "s"))
    assert "1 sample in 1 shard;" in capsys.readouterr().out


def test_keys_that_repeat_between_shards_are_told_apart(tmp_path, capsys):
    folder = img2dataset(tmp_path / "other", restart=True)
    source = ShardSet(folder)
    assert "read as SHARD/KEY" in capsys.readouterr().out
    assert source.keys[:2] == ["00000/000000000", "00000/000000001"] and source.keys[5] == "00001/000000000"
    assert [decode_sample(source.read(n)).primary_caption for n in range(15)] == [f"caption {n}" for n in range(15)]
    assert len(set(ShardSet(folder).keys)) == 15
    with pytest.raises(DataError, match=r"sample '00001/000000002'.*'audio'"):
        source.read(7, ["audio"])


def test_keys_that_repeat_within_a_shard_are_an_error(tmp_path):
    (tmp_path / "s").mkdir()
    tar_of(tmp_path / "s" / "0.tar", [("a.jpg", b"1"), ("a.txt", b"x"), ("b.jpg", b"1"), ("a.jpg", b"2"), ("a.txt", b"y")])
    with pytest.raises(DataError, match=r"0\.tar: offset \d+: sample 'a' appears twice"):
        ShardSet(tmp_path / "s")
    assert not (tmp_path / "s" / "shards.json").exists()


@pytest.mark.parametrize("note", ["stats", "sizes"])
def test_counts_beside_the_shards_are_compared(tmp_path, note):
    """All there is to tell that a shard of others is complete: cut at a sample and closed again, it looks whole."""
    folder = img2dataset(tmp_path / "laion")
    members = [(f"{n}.jpg", jpeg(n)) for n in range(4)]
    tar_of(folder / "00001.tar", members)
    if note == "sizes":
        (folder / "00001_stats.json").unlink()
        (folder / "sizes.json").write_text(json.dumps({"00000.tar": 5, "00001.tar": 5}))
    with pytest.raises(DataError, match=rf"00001\.tar: the shard has 4 samples, but .*{note}\.json says 5"):
        ShardSet(folder)


def test_damaged_tars_are_left_out_when_asked(tmp_path, capsys):
    folder = img2dataset(tmp_path / "laion")
    whole = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(whole[:4000])
    with pytest.raises(DataError, match=r"00001\.tar: offset \d+"):
        ShardSet(folder)
    index(str(folder), on_error="skip")
    assert "left out:" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"00001\.tar: this tar came after the folder was indexed"):
        ShardSet(folder)
    (folder / "00001.tar").rename(folder / "00001.tar.broken")
    assert len(ShardSet(folder)) == 10


def test_a_tar_that_was_added_or_changed_is_noticed(tmp_path):
    folder = img2dataset(tmp_path / "laion")
    ShardSet(folder)
    shutil.copy(folder / "00000.tar", folder / "00009.tar")
    with pytest.raises(DataError, match=r"00009\.tar: this tar came after .*modalign data index"):
        ShardSet(folder)
    index(str(folder))
    assert len(ShardSet(folder)) == 20 and ShardSet(folder).manifest.qualified
    tar_of(folder / "00009.tar", [("x.jpg", jpeg(1)), ("x.txt", b"x")])
    with pytest.raises(DataError, match=r"00009\.tar: shards\.json says"):
        ShardSet(folder)


def test_read_only_folder_is_indexed_in_the_cache(tmp_path):
    folder = img2dataset(tmp_path / "laion")
    before = tree(folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(
            stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH if path.is_dir() else 0)
        )
    program = (
        "import os\n"
        "from modalign.datasets.shards import ShardSet\n"
        "import modalign.datasets.assets.places\n"
        "os.getuid() or os.setuid(65534)\n"
        f"s = ShardSet({str(folder)!r}); print(len(s), s.read(14).key); ShardSet({str(folder)!r})"
    )
    home = tmp_path / "cache"
    home.mkdir()
    home.chmod(0o777)
    if os.getuid() == 0:  # root may write everywhere; the test's own folders must be open to another user
        for path in (tmp_path, *tmp_path.parents[:3]):
            path.chmod(path.stat().st_mode | 0o055)
    environment = {**os.environ, "MODALIGN_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("indexing them once") == 1 and done.stdout.split()[-2:] == ["15", "000020004"]
    assert tree(folder) == before and list(home.glob("indexed/*/shards.json"))


def test_an_unfinished_pack_is_not_taken_for_plain_tars(tmp_path, samples):
    def cut_short():
        yield from samples(12)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(cut_short(), tmp_path / "s", samples_per_shard=3)
    assert len(list((tmp_path / "s").glob("*.tar"))) >= 3
    with pytest.raises(DataError, match="not a complete folder of shards"):
        ShardSet(tmp_path / "s")
    with pytest.raises(DataError, match="was interrupted; pack it again"):
        index(str(tmp_path / "s"))


def test_tars_by_braces_and_lists(tmp_path, shards, capsys):
    part = ShardSet(str(shards / "{000001..000003}.tar"))
    assert part.keys == [f"k{n:04d}" for n in range(9, 36)] and part.fingerprint != ShardSet(shards).fingerprint
    assert part.read(0).members == ShardSet(shards).read(9).members
    assert ShardSet([shards / "000005.tar", str(shards / "000000.tar")]).keys == [
        f"k{n:04d}" for n in [*range(45, 50), *range(9)]
    ]
    assert ShardSet(shards / "000002.tar").keys == [f"k{n:04d}" for n in range(18, 27)]
    check(str(shards / "{000001,000003}.tar"))
    assert "indexing" not in capsys.readouterr().out
    plain = img2dataset(tmp_path / "a", restart=True, shards=2), img2dataset(tmp_path / "b", restart=True, shards=2)
    both = ShardSet(str(tmp_path / "{a,b}/0000{0..1}.tar"))
    assert len(both) == 20 and both.keys[0] == "a/00000/000000000" and both.keys[-1] == "b/00001/000000004"
    assert not any((folder / "shards.json").exists() for folder in plain)
    assert len(ShardSet(str(tmp_path / "{a,b}/0000{0..1}.tar"))) == 20
    assert capsys.readouterr().out.count("indexing 4 tars once") == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("s/{00000..00002}.tar", ["s/00000.tar", "s/00001.tar", "s/00002.tar"]),
        ("s/{8..11}.tar", ["s/8.tar", "s/9.tar", "s/10.tar", "s/11.tar"]),
        ("s/{08..11}.tar", ["s/08.tar", "s/09.tar", "s/10.tar", "s/11.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
    ],
)
def test_braces(text, names):
    from braceexpand import braceexpand

    assert list(expand_braces(text)) == names == list(braceexpand(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s/{0..999999999}.tar", "too long"),
        ("s/{a..c}.tar", "neither a range"),
        ("s/{3..1}.tar", "runs backwards"),
        ("s/{{0..1}}.tar", "not nested|neither a range"),
        ("s/{0..1.tar", "not nested"),
        ("{0..99}{0..99}{0..99}.tar", "stands for 1000000 shards"),
        ("s/{0..1}", "is not a .tar"),
        ("{a,a}.tar", "names a shard twice"),
        ("${HOME}/x.tar", "neither a range"),
        ([], "names no shard"),
        (["a.tar", "https://example.org/b.tar"], "mixes local and remote"),
    ],
)
def test_locations_that_are_refused(text, message):
    with pytest.raises(DataError, match=message):
        parse_location(text)


def test_names_with_spaces_and_other_letters(tmp_path):
    folder = img2dataset(tmp_path / "my späce 猫", shards=1)
    (folder / "00000.tar").rename(folder / "häufig (1).tar")
    assert len(ShardSet(folder)) == 5
    check(str(folder))


def test_ours_are_not_indexed_again(shards):
    with pytest.raises(DataError, match=r"have the shards.json they were written with"):
        index(str(shards))
