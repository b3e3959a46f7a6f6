import json
import os
import tarfile
from pathlib import Path

import pytest

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.packing.pack import key_of, pack
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import DataError


@pytest.fixture
def media(tmp_path, png):
    folder = tmp_path / "in"
    (folder / "img").mkdir(parents=True)
    for number in range(6):
        (folder / "img" / f"{number}.png").write_bytes(png(number))
    return folder


def packed(source, out, **settings):
    pack(str(source), str(out), **settings)
    shards = ShardSet(out)
    return {sample.key: sample for sample in (decode_sample(raw) for raw in shards.samples())}


def write_jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


def test_csv(media, tmp_path, capsys):
    text = 'image,caption,lang,group,note\nimg/0.png,"one, two",en,g1,\nimg/1.png,"drei\nvier",,g2,x\n'
    (media / "pairs.csv").write_text("\ufeff" + text, encoding="utf-8")
    samples = packed(media / "pairs.csv", tmp_path / "out", lang="de")
    assert list(samples) == ["img_0", "img_1"]
    assert samples["img_0"].captions == {"en": ["one, two"]} and samples["img_0"].meta == {"group": "g1"}
    assert samples["img_1"].captions == {"de": ["drei\nvier"]} and samples["img_1"].meta == {"group": "g2", "note": "x"}
    assert samples["img_1"].images[0].getpixel((0, 0))[0] == 1
    assert "2 samples (image-text) in 1 shard," in capsys.readouterr().out


def test_tsv_with_languages_and_json(media, tmp_path):
    (media / "pairs.tsv").write_text(
        "key\timage\tcaption_de\tcaptions.pt-br\tcaptions\tcaption_source\n"
        'a\timg/0.png\tKatze\tgato\t["cat", "kitty"]\tweb\n'
        'b\timg/1.png\t\t\t{"en": "dog", "fr": ["chien", "toutou"]}\t\n',
        encoding="utf-8",
    )
    samples = packed(media / "pairs.tsv", tmp_path / "out")
    assert samples["a"].captions == {"de": ["Katze"], "pt-br": ["gato"], "und": ["cat", "kitty"]}
    assert samples["a"].meta == {"caption_source": "web"}
    assert samples["b"].captions == {"en": ["dog"], "fr": ["chien", "toutou"]}


def test_jsonl(media, tmp_path):
    rows = [
        {"image": "img/0.png", "caption": "a", "box": [1, 2]},
        {"image": "img/1.png", "captions": ["b", "c"], "lang": "en", "key": 7},
        {"image": "img/2.png", "captions": {"ja": "猫", "en": ["d", "e"]}},
        {"image": str(media / "img" / "3.png"), "captions_en": ["f"]},
    ]
    samples = packed(write_jsonl(media / "pairs.jsonl", rows), tmp_path / "out", samples_per_shard=3)
    assert list(samples) == ["img_0", "7", "img_2", "3"]
    assert [sample.captions for sample in samples.values()] == [
        {"und": ["a"]},
        {"en": ["b", "c"]},
        {"ja": ["猫"], "en": ["d", "e"]},
        {"en": ["f"]},
    ]
    assert samples["img_0"].meta == {"box": [1, 2]}
    assert ShardSet(tmp_path / "out").read(2).members["txt"].decode() == "猫"


def test_folder_of_media(media, tmp_path):
    folder = media / "img"
    (folder / "0.txt").write_text("first\n\nsecond\n")
    (folder / "1.json").write_text('{"captions": {"de": "eins"}, "group": 4}')
    (folder / "2.txt").write_text("two")
    (folder / "2.json").write_text('{"lang": "en", "group": 5}')
    for number in (3, 4, 5):
        (folder / f"{number}.png").unlink()
    (folder / "2.png").rename(folder / "2.PNG")
    samples = packed(folder, tmp_path / "out")
    assert samples["0"].captions == {"und": ["first", "second"]}
    assert samples["1"].captions == {"de": ["eins"]} and samples["1"].meta == {"group": 4}
    assert samples["2"].captions == {"en": ["two"]} and samples["2"].meta == {"group": 5}


def test_folder_of_plain_tars(shards, tmp_path):
    expected = [(decode_sample(raw).captions, raw.members["png"]) for raw in ShardSet(shards).samples()]
    for path in [*shards.glob("*.json")]:
        path.unlink()
    pack(str(shards), str(tmp_path / "out"), samples_per_shard=20)
    again = ShardSet(tmp_path / "out")
    assert [(decode_sample(raw).captions, raw.members["png"]) for raw in again.samples()] == expected
    assert again.shard_sizes == [20, 20, 10]
    tar = shards / "000002.tar"
    tar.write_bytes(tar.read_bytes()[:2048])
    with pytest.raises(DataError, match=r"000002\.tar: offset \d+: the shard is cut off"):
        pack(str(shards), str(tmp_path / "more"))


def test_audio_and_series(tmp_path):
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.float32), 8000)
    np.save(tmp_path / "s.npy", np.arange(6.0))
    write_jsonl(tmp_path / "a.jsonl", [{"audio": "a.wav", "caption": "hush"}])
    write_jsonl(tmp_path / "s.jsonl", [{"series": "s.npy", "caption": "up"}])
    sound = packed(tmp_path / "a.jsonl", tmp_path / "a")["a"].extras["wav"]
    assert sound[0].shape == (100, 1) and sound[1] == 8000
    assert packed(tmp_path / "s.jsonl", tmp_path / "s")["s"].extras["npy"].tolist() == [0, 1, 2, 3, 4, 5]
    write_jsonl(tmp_path / "both.jsonl", [{"audio": "a.wav", "caption": "x"}, {"series": "s.npy", "caption": "y"}])
    with pytest.raises(DataError, match="audio and series cannot go into one folder"):
        pack(str(tmp_path / "both.jsonl"), str(tmp_path / "b"))


BAD_ROWS = [
    ({"image": "img/9.png", "caption": "x"}, "field 'image': the file 'img/9.png' does not exist"),
    ({"image": "img/0.gif", "caption": "x"}, "'img/0.gif' is not one of .jpeg, .jpg, .png, .webp"),
    ({"image": "img/0.png"}, "field 'caption' is missing or empty"),
    ({"image": "img/0.png", "caption": ""}, "field 'caption' is missing or empty"),
    ({"image": "img/0.png", "captions": ["a", " "]}, "field 'captions' must be a text, a list of texts or a map"),
    ({"image": "img/0.png", "captions": {"en": 3}}, "field 'captions.en' must be a text"),
    ({"image": "img/0.png", "captions": "[1"}, "field 'captions' starts like JSON but is not"),
    ({"caption": "x"}, "exactly one of the fields image, audio, series must be given, found none"),
    ({"image": "img/0.png", "audio": "a.wav", "caption": "x"}, "found image and audio"),
    ({"image": 3, "caption": "x"}, "field 'image' must be a path"),
    ({"image": "bad.png", "caption": "x"}, "field 'image' 'bad.png': not a JPEG, PNG or WebP image"),
    ({"image": "img/1.png", "caption": "x", "key": "first"}, "field 'key': 'first' was already used in"),
    ({"image": "img/0.png", "caption": "x", "key": "0.png"}, "field 'key' is '0.png'; it must be text without dots"),
    ({"image": "img/0.png", "caption": "x", "members": 1}, "a field cannot be named 'members'"),
    ({"image": "img/0.png", "caption": "x", "key": "k" * 99}, "longer than the 100 bytes"),
    (["image"], "a line must be a JSON object"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_name_file_line_and_field(media, tmp_path, row, message):
    (media / "bad.png").write_bytes(b"x")
    rows = [{"image": "img/5.png", "caption": "good", "key": "first"}, row]
    source = write_jsonl(media / "pairs.jsonl", rows)
    with pytest.raises(DataError) as caught:
        pack(str(source), str(tmp_path / "out"))
    assert f"{source}:2: " in str(caught.value) and message in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert list(packed(source, tmp_path / "out", on_error="skip")) == ["first"]


def test_all_bad_rows_are_listed(media, tmp_path):
    source = write_jsonl(media / "pairs.jsonl", [{"image": f"no{n}.png", "caption": "x"} for n in range(30)])
    with pytest.raises(DataError) as caught:
        pack(str(source), str(tmp_path / "out"), on_error="skip")
    text = str(caught.value)
    assert text.startswith("30 bad row(s)") and text.count("does not exist") == 20 and "... and 10 more" in text


def test_a_field_in_capitals_is_recognised_as_such(media, tmp_path):
    source = write_jsonl(media / "p.jsonl", [{"Image": "img/0.png", "caption": "x"}])
    with pytest.raises(DataError, match=r"found none of them; did you mean 'image' with the column 'Image'\?"):
        pack(str(source), str(tmp_path / "out"))
    source = write_jsonl(media / "p.jsonl", [{"picture": "img/0.png", "caption": "x"}])
    with pytest.raises(DataError, match=r"found none of them$"):
        pack(str(source), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,caption\na,b\n", ":1: no column is named image, audio or series"),
        ("image,text\na,b\n", ":1: no column is named caption"),
        ("Image,caption\na,b\n", "(columns: Image, caption); did you mean 'image' with the column 'Image'?"),
        ("images,caption\na,b\n", "did you mean 'image' with the column 'images'?"),
        ("image,CAPTION\na,b\n", "did you mean 'caption' with the column 'CAPTION'?"),
        ("image,caption,caption\na,b,c\n", ":1: the header has an empty or repeated column"),
        ("image,caption\nimg/0.png,x,y\n", ":2: 3 values, but the header has 2 columns"),
        ('image,caption\nimg/0.png,"x\nimg/1.png,y', "not valid csv"),
        ("image,caption\n", "there is no row"),
        ("", ":1: no column"),
    ],
)
def test_bad_csv(media, tmp_path, text, message):
    (media / "p.csv").write_text(text)
    with pytest.raises(DataError, match=r"p\.csv") as caught:
        pack(str(media / "p.csv"), str(tmp_path / "out"))
    assert message in str(caught.value)


def test_not_utf8(media, tmp_path):
    (media / "p.csv").write_bytes("image,caption\nimg/0.png,x\nimg/1.png,Straße\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"p\.csv:3: not UTF-8"):
        pack(str(media / "p.csv"), str(tmp_path / "out"))


def test_line_numbers_count_lines_of_the_file(media, tmp_path):
    (media / "p.csv").write_text('image,caption\nimg/0.png,"a\nb\nc"\n\nno.png,x\n')
    with pytest.raises(DataError, match=r"p\.csv:6: field 'image': the file 'no\.png'"):
        pack(str(media / "p.csv"), str(tmp_path / "out"))


def test_repeated_media(media, tmp_path):
    rows = [{"image": "img/0.png", "caption": text, "group": 1} for text in ("a", "b", "c")]
    source = write_jsonl(media / "p.jsonl", rows)
    with pytest.raises(DataError, match=r"p\.jsonl:2: field 'key': 'img_0' was already used in .*:1; .*--join_captions true"):
        pack(str(source), str(tmp_path / "out"))
    assert packed(source, tmp_path / "out", join_captions=True)["img_0"].captions == {"und": ["a", "b", "c"]}
    write_jsonl(media / "p.jsonl", [*rows, {"image": "img/0.png", "caption": "d", "group": 2}])
    with pytest.raises(DataError, match=r"p\.jsonl:4: field 'group' is 2, but .*:1 says 1"):
        pack(str(source), str(tmp_path / "more"), join_captions=True)


def test_folder_errors(media, tmp_path):
    with pytest.raises(DataError, match=r"0\.png: no caption; expected 0\.txt"):
        pack(str(media / "img"), str(tmp_path / "out"))
    (media / "img" / "0.json").write_text("[]")
    with pytest.raises(DataError, match=r"0\.json: must be a JSON object"):
        pack(str(media / "img"), str(tmp_path / "out"))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no jpg, png, webp, wav, flac or npy file"):
        pack(str(tmp_path / "none"), str(tmp_path / "out"))
    with pytest.raises(DataError, match="no such file or folder"):
        pack(str(tmp_path / "gone.csv"), str(tmp_path / "out"))
    with pytest.raises(DataError, match="is refused"):
        pack("pipe:cat x.csv", str(tmp_path / "out"))


def test_keys():
    assert key_of("img/0.png") == "img_0"
    assert key_of("a.b/c.d.jpg") == "a_b_c_d"
    assert key_of("../x/1.png") == key_of("./x/1.png") == "x_1"
    assert key_of("/home/someone/data/1.png") == "1"
    strange = [key_of(name) for name in ("a b.png", "a+b.png", "a_b.png", "猫.png", "x" * 200 + ".png", "x" * 201 + ".png")]
    assert len(set(strange)) == 6 and strange[3] == "猫" and all(len(key.encode()) <= 70 for key in strange)


def test_no_path_of_this_machine_is_stored(media, tmp_path):
    source = write_jsonl(media / "p.jsonl", [{"image": str(media / "img" / "0.png"), "caption": "x"}])
    pack(str(source), str(tmp_path / "out"))
    for path in (tmp_path / "out").iterdir():
        assert os.fsencode(tmp_path) not in path.read_bytes()


def test_real_captions(tmp_path):
    root = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("MODALIGN_DATA") or root / ".." / "shared" / "data") / "flickr8k_multilingual"
    if not data.is_dir():
        pytest.skip("the data set flickr8k_multilingual is not on this machine (MODALIGN_DATA)")
    lines = (data / "captions.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    rows = [{**json.loads(line)} for line in lines]
    for row in rows:
        row["image"] = str((data / "images" / row["image"]).resolve())
    samples = packed(write_jsonl(tmp_path / "p.jsonl", rows), tmp_path / "out")
    assert [sample.captions["en"] for sample in samples.values()] == [row["captions_en"] for row in rows]
    assert all(sample.meta["split"] in ("train", "val", "test") for sample in samples.values())
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        assert len(tar.getnames()) == 120
