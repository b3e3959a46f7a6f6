"""From LLaVA's, COCO's and RefCOCO's files and our own lines to samples, and back through the reader; every error with its place."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from modalign.datasets.commands.check import check
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.dialogue import (
    AudioPart,
    Box,
    BoxPart,
    ImagePart,
    Region,
    TextPart,
    dialogue_of,
    fields_of,
    regions_of,
)
from modalign.datasets.packing.llava_json import parts_of
from modalign.datasets.packing.pack import pack
from modalign.datasets.packing.split import split
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import DataError


def llava(value="<image>\nWhat?", answer="A hat.", **columns):
    said = [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]
    return {"id": "one", "image": "a.png", "conversations": said, **columns}


def without(record, *names):
    return {name: value for name, value in record.items() if name not in names}


# LLaVA


def test_marks_become_parts_in_their_place():
    image = {"type": "image"}
    text = lambda words: {"type": "text", "text": words}  # noqa: E731
    assert parts_of("<image>\nWho?") == [image, text("\nWho?")], "a model sees the letters it would see without us"
    assert parts_of("Who?\n<image>") == [text("Who?\n"), image]
    assert parts_of("Compare <image> with <image>.") == [text("Compare "), image, text(" with "), image, text(".")]
    assert parts_of("<image>\r\n<image>\n\nGo at [0.1, 0.2, 0.3, 0.4]") == [
        image,
        text("\r\n"),
        image,
        text("\n\nGo at [0.1, 0.2, 0.3, 0.4]"),
    ]
    assert parts_of("no mark") == [text("no mark")] and parts_of("<image>") == [image]


def test_llava(photos, packed, tmp_path, capsys):
    several = llava("<image>\n<image>\nSame?", image=["b.jpg", "sub/c.png"], id=7, source="web")
    system = {"from": "system", "value": "Be brief."}
    text_only = without(llava("Hello.", id="t/1"), "image")
    text_only["conversations"].insert(0, system)
    samples, task = packed([llava(), several, text_only, llava("Again <image>?")], images=str(photos))
    assert task == "conversation" and list(samples) == ["one", "7", "t_1", "one-2"]
    found = {key: dialogue_of(sample).turns for key, sample in samples.items()}
    assert [part for turn in found["one"] for part in turn.parts] == [ImagePart(0), TextPart("\nWhat?"), TextPart("A hat.")]
    assert [turn.role for turn in found["t_1"]] == ["system", "user", "assistant"] and not samples["t_1"].images
    assert found["7"][0].parts == (ImagePart(0), TextPart("\n"), ImagePart(1), TextPart("\nSame?"))
    assert [image.size for image in samples["7"].images] == [(20, 50), (16, 16)]
    assert samples["7"].meta | {"conversations": 0} == {"id": 7, "source": "web", "group": "b", "conversations": 0}
    assert samples["one"].meta["group"] == samples["one-2"].meta["group"] == "a" and samples["t_1"].meta["group"] == "t_1"
    assert "4 samples (conversation) in 1 shard" in capsys.readouterr().out
    check(str(tmp_path / "out-0"))


def test_llava_as_lines_is_the_same(photos, packed):
    entries = [llava(), llava("Who is <image>?", id="two", image="b.jpg")]
    as_list, _ = packed(entries, images=str(photos))
    as_lines, task = packed(entries, name="in.jsonl", images=str(photos), format="llava")
    assert task == "conversation" and as_list.keys() == as_lines.keys()
    assert all(dialogue_of(as_list[key]) == dialogue_of(as_lines[key]) for key in as_list)


BAD_LLAVA = [
    ("x", "entry 2: an entry must be a JSON object, this is str"),
    (llava("What?"), "entry 2 (id 'one'): field 'conversations' has 0 <image> mark(s), field 'image' has 1 picture(s)"),
    (llava("<image><image>"), "has 2 <image> mark(s), field 'image' has 1 picture(s)"),
    (without(llava(), "image"), "has 1 <image> mark(s), field 'image' has 0 picture(s)"),
    (llava(image="no.png"), "(id 'one'): field 'image': the file 'no.png' does not exist"),
    (llava(image="a.gif"), "field 'image': 'a.gif' is not one of .jpeg, .jpg, .png, .webp"),
    (llava(image=[]), "field 'image' is an empty list"),
    (llava(image=3), "field 'image' must be a path, it is int"),
    (llava(image="bad.png"), "entry 2 (id 'one'): sample 'one', field 'png': not a JPEG, PNG or WebP image"),
    (llava(video="v.mp4"), "field 'video': videos are not read from this format"),
    (llava(images=["a.png"]), "fields 'image' and 'images' are both given"),
    (without(llava(), "conversations"), "field 'conversations' must be a non-empty list"),
    (llava(conversations=[3]), "turn 1: field 'conversations' must hold objects with 'from' and 'value'"),
    (llava(conversations=[{"from": "bot", "value": "x"}]), "turn 1: field 'from' is 'bot'; known: gpt, human, system"),
    (llava(answer=" "), "turn 2: field 'value' must be a text that says something"),
    (llava(conversations=[{"from": "human", "value": "<image>"}]), "turn 1: it is the last and the user's"),
    (llava(conversations=[{"from": "gpt", "value": "<image> x"}]), "turn 1: its role is 'assistant', 'user' is wanted"),
    (llava(members=1), "a field cannot be named 'members'"),
]


@pytest.mark.parametrize(("entry", "message"), BAD_LLAVA)
def test_bad_llava_entries_name_file_entry_and_field(photos, packed, tmp_path, entry, message):
    (photos / "bad.png").write_bytes(b"x")
    good = llava(id="good")
    with pytest.raises(DataError) as caught:
        packed([good, entry], images=str(photos))
    assert f"{tmp_path / 'in.json'}: entry 2" in str(caught.value) and message in str(caught.value)
    assert not (tmp_path / "out-0").exists()
    assert list(packed([good, entry], images=str(photos), on_error="skip")[0]) == ["good"]


def test_bad_lines_name_the_line(photos, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join([json.dumps(llava()), "", "{", json.dumps(llava("x", id=4))]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        pack(str(source), str(tmp_path / "out"), images=str(photos))
    assert f"{source}:3: not valid JSON" in str(caught.value) and f"{source}:4 (id 4): field" in str(caught.value)


# our own


def test_own_lines(photos, packed):
    parts = [
        {"type": "image", "index": 1},
        {"type": "image"},
        {"type": "box", "box": [0, 0, 4, 5]},
        {"type": "text", "text": "?"},
    ]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "x"}]
    soundfile.write(photos / "a.wav", np.zeros(80, np.float32), 8000)
    heard = [{"role": "user", "content": [{"type": "audio"}]}, {"role": "assistant", "content": "hush"}]
    rows = [
        {"images": ["a.png", "b.jpg"], "conversations": turns, "caption": "two", "lang": "en", "group": "g", "key": "mine"},
        {"conversations": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]},
        {"image": "sub/c.png", "conversations": [{"role": "user", "content": "What?"}, turns[1]]},
        {"audio": "a.wav", "conversations": heard},
        {"image": "sub/c.png", "conversations": [{"role": "user", "content": "Where?"}, turns[1]]},
    ]
    samples, task = packed(rows, name="in.jsonl", images=str(photos))
    assert task == "conversation" and list(samples) == ["mine", "entry-2", "sub_c", "a", "sub_c-2"]
    expected = (ImagePart(1), ImagePart(0), BoxPart(Box(0, 0, 4, 5), 0), TextPart("?"))
    assert dialogue_of(samples["mine"]).turns[0].parts == expected
    assert samples["mine"].captions == {"en": ["two"]} and samples["mine"].meta["group"] == "g"
    assert dialogue_of(samples["sub_c"]).turns[0].parts == (ImagePart(0), TextPart("\n"), TextPart("What?"))
    assert dialogue_of(samples["a"]).turns[0].parts == (AudioPart(0),)


def test_own_regions_and_documents(photos, packed):
    rows = [
        {"image": "a.png", "regions": [{"box": [0, 0, 9, 9], "phrase": "the hat"}]},
        {
            "image": "b.jpg",
            "fields": {"total": "9"},
            "lines": [{"text": "9", "box": [0, 0, 5, 5]}],
            "answer_lines": {"total": [0]},
        },
    ]
    samples, task = packed(rows, name="in.jsonl", images=str(photos))
    assert task == "grounding" and regions_of(samples["a"]) == [Region(Box(0, 0, 9, 9), "the hat")]
    assert fields_of(samples["b"]).answer_lines == {"total": (0,)}


def test_lines_with_captions_stay_pairs_whatever_else_they_hold(photos, packed):
    row = {"image": "a.png", "caption": "x", "regions": "mine", "box": [1, 2], "fields": 3}
    (photos / "in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    pack(str(photos / "in.jsonl"), str(photos / "out"))
    shards = ShardSet(photos / "out")
    assert shards.manifest.task == "image-text" and decode_sample(shards.read(0)).meta["regions"] == "mine"


TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
BAD_OWN = [
    ({"image": "a.png", "caption": "x"}, "none of the fields conversations, regions"),
    ({"conversations": TALK, "lang": 3}, "field 'lang' must be text"),
    ({"conversations": TALK, "image": "no.png"}, "field 'image': the file 'no.png' does not exist"),
    ({"conversations": TALK, "audio": "a.png"}, "field 'audio': 'a.png' is not one of .flac, .wav"),
    ({"regions": []}, "field 'image' is missing; only conversations can do without"),
    ({"image": "a.png", "regions": [{"box": [0, 0, 41, 1]}]}, "region 1: 'box' [0, 0, 41, 1] is not inside its picture of 40x30"),
    ({"conversations": TALK[:1]}, "turn 1: it is the last"),
    ({"conversations": TALK, "key": "first"}, "field 'key': 'first' was already used in"),
]


@pytest.mark.parametrize(("row", "message"), BAD_OWN)
def test_bad_own_lines_name_file_and_line(photos, packed, tmp_path, row, message):
    rows = [{"conversations": TALK, "key": "first"}, row]
    with pytest.raises(DataError) as caught:
        packed(rows, name="in.jsonl", images=str(photos))
    assert f"{tmp_path / 'in.jsonl'}:2" in str(caught.value) and message in str(caught.value)


def test_conversations_and_regions_alone_do_not_go_into_one_folder(photos, packed):
    rows = [{"conversations": TALK}, {"image": "a.png", "regions": []}]
    with pytest.raises(DataError, match="rows with conversation and grounding cannot go into one folder"):
        packed(rows, name="in.jsonl", images=str(photos))


# COCO


def coco(annotations, **tables):
    images = [
        {"id": 5, "file_name": "a.png", "width": 40, "height": 30, "license": 2},
        {"id": 9, "file_name": "b.jpg", "width": 20, "height": 50},
    ]
    categories = [{"id": 1, "name": "dog"}, {"id": 3, "name": "hat"}]
    numbered = [{"id": 100 + number, **one} for number, one in enumerate(annotations)]
    return {"images": images, "annotations": numbered, "categories": categories, "licenses": [{"id": 2, "name": "CC0"}], **tables}


def object_of(box, image=5, category=1, **more):
    return {"image_id": image, "bbox": box, "category_id": category, **more}


def test_coco_instances(photos, packed, capsys):
    annotations = [
        object_of([1, 2, 10, 20.5]),
        object_of([30.4, 0, 10, 30], category=3, iscrowd=1, segmentation=[]),
        {"image_id": 5, "caption": " A dog. "},
        object_of([0, 0, 4, 4], caption="the small one"),
    ]
    samples, task = packed(coco(annotations), images=str(photos), lang="en")
    assert task == "grounding" and list(samples) == ["a", "b"]
    assert regions_of(samples["a"]) == [
        Region(Box(1, 2, 11, 22.5), None, "dog"),
        Region(Box(30.4, 0, 40, 30), None, "hat", True),  # 30.4 + 10 is cut at 40
        Region(Box(0, 0, 4, 4), "the small one", "dog"),
    ]
    assert samples["a"].captions == {"en": ["A dog."]} and samples["a"].meta["license"] == "CC0"
    assert samples["b"].meta["regions"] == [] and samples["b"].meta["image_id"] == 9 and "license" not in samples["b"].meta
    assert "1 box(es) stuck out of their picture by less than a pixel" in capsys.readouterr().out


def test_coco_captions_alone_are_pairs(photos, packed):
    annotations = [{"image_id": image, "caption": f"{image} {n}"} for image in (5, 9) for n in range(2)]
    content = without(coco(annotations), "categories", "licenses")
    samples, task = packed(content, images=str(photos), lang="en")
    assert task == "image-text"
    assert {key: sample.captions for key, sample in samples.items()} == {"a": {"en": ["5 0", "5 1"]}, "b": {"en": ["9 0", "9 1"]}}
    with pytest.raises(DataError, match=r"images, entry 2 \(id 9\): no annotation has a caption for it"):
        packed({**content, "annotations": content["annotations"][:2]}, images=str(photos))


BAD_COCO = [
    ("x", "annotations, entry 2: must be an object, it is str"),
    (object_of([0, 0, 1, 1], image=6), "annotations, entry 2 (id 101): field 'image_id' is 6; 'images' has no such id"),
    (object_of([0, 0, 1, 1], image=[5]), "field 'image_id' is [5]"),
    (object_of([0, 0, 1, 1], category=2), "annotations, entry 2 (id 101): field 'category_id' is 2; 'categories' has no such id"),
    (object_of([0, 0, 1, 1], category=[1]), "field 'category_id' is [1]"),
    (object_of([0, 0, -1, 1]), "field 'bbox': [0, 0, -1, 1] has a negative width or height"),
    (object_of([0, 0, 1]), "field 'bbox': a box is four numbers, this is [0, 0, 1]"),
    (object_of([0, 0, 1, None]), "field 'bbox': None in [0, 0, 1, None] is not a finite number"),
    (object_of([0, 0, 1, float("inf")]), "is not a finite number"),
    (object_of([35, 0, 6, 1]), "field 'bbox': [35, 0, 6, 1] sticks out of its picture of 40x30 pixels by 1"),
    (object_of([0, 0, 1, 1], iscrowd="no"), "field 'iscrowd' is 'no'; it can be 0 or 1"),
    ({"image_id": 5}, "it has neither a 'bbox' nor a 'caption' with a text"),
    ({"image_id": 5, "caption": " "}, "it has neither a 'bbox' nor a 'caption' with a text"),
]


@pytest.mark.parametrize(("annotation", "message"), BAD_COCO)
def test_bad_annotations_name_file_entry_and_field(photos, packed, tmp_path, annotation, message):
    content = coco([object_of([0, 0, 1, 1])])
    content["annotations"].append({"id": 101, **annotation} if isinstance(annotation, dict) else annotation)
    with pytest.raises(DataError) as caught:
        packed(content, images=str(photos))
    assert f"{tmp_path / 'in.json'}: annotations, entry 2" in str(caught.value) and message in str(caught.value)
    assert "b" in packed(content, images=str(photos), on_error="skip")[0]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"images": {}}, "in.json: field 'images' must be a list"),
        ({"annotations": None}, "in.json: field 'annotations' must be a list"),
        ({"categories": [{"id": 1}]}, "categories, entry 1: an object with 'id' and 'name' is wanted"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "categories, entry 2: the id 1 was already used"),
        ({"images": [{"id": 5, "file_name": "a.png"}] * 2}, "images, entry 2: the id 5 was already used"),
        ({"images": [{"file_name": "a.png"}], "annotations": []}, "images, entry 1: an object with 'id' and 'file_name'"),
        ({"images": [{"id": 5}]}, "images, entry 1 (id 5): field 'file_name' must be a path"),
        ({"images": [{"id": 5, "file_name": "z.png"}]}, "field 'file_name': the file 'z.png' does not exist"),
        (
            {"images": [{"id": 5, "file_name": "a.png", "width": 80, "height": 60}]},
            "fields 'width' and 'height' say 80x60, the file 'a.png' has 40x30 pixels",
        ),
    ],
)
def test_bad_tables_of_coco(photos, packed, tables, message):
    with pytest.raises(DataError) as caught:
        packed({**coco([object_of([0, 0, 1, 1])]), **tables}, images=str(photos))
    assert message in str(caught.value)


def test_a_photograph_on_its_side_is_measured_upright(photos, packed):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(photos / "turned.jpg", exif=exif)
    images = [{"id": 1, "file_name": "turned.jpg", "width": 30, "height": 40}]
    samples, _ = packed(coco([object_of([0, 0, 30, 40], image=1)], images=images), images=str(photos))
    assert samples["turned"].images[0].size == (30, 40) and regions_of(samples["turned"])[0].box == (0, 0, 30, 40)


# RefCOCO


def refer(**more):
    return {"file_name": "a.png", "bbox": [1, 2, 10, 20], "sentences": ["left dog"], **more}


def test_refcoco(photos, packed):
    entries = [
        refer(sentences=[{"sent": "left dog", "raw": "Left dog!"}, "dog on the left"], split="train", category="dog"),
        {"image": "b.jpg", "box": [0, 0, 20, 50.3], "phrases": "all of it"},
        refer(bbox=[20, 0, 5, 5], sentences=["hat"], split="train"),
    ]
    for name in ("in.json", "in.jsonl"):
        samples, task = packed(entries, name=name, images=str(photos))
        assert task == "grounding" and list(samples) == ["a", "b"] and samples["a"].meta["split"] == "train"
        assert regions_of(samples["a"]) == [
            Region(Box(1, 2, 11, 22), "left dog", "dog"),
            Region(Box(1, 2, 11, 22), "dog on the left", "dog"),
            Region(Box(20, 0, 25, 5), "hat"),
        ]
        assert regions_of(samples["b"]) == [Region(Box(0, 0, 20, 50), "all of it")]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (refer(image="a.png"), "exactly one of the fields 'file_name', 'image' must be given, found 'file_name' and 'image'"),
        (without(refer(), "bbox"), "exactly one of the fields 'bbox', 'box' must be given, found none of them"),
        (refer(phrases=["x"]), "found 'sentences' and 'phrases'"),
        (refer(sentences=[]), "field 'sentences' must be a text or a list of texts"),
        (refer(sentences=["x", ""]), "field 'sentences' must be a text or a list of texts"),
        (refer(sentences=[{"tokens": []}]), "field 'sentences' must be a text or a list of texts"),
        (refer(bbox=[0, 0, 50, 1]), "field 'bbox': [0, 0, 50, 1] sticks out of its picture of 40x30 pixels by 10"),
        (without(refer(box=[9, 0, 3, 1]), "bbox"), "field 'box': [9, 0, 3, 1] is turned around"),
        (refer(file_name="no.png"), "field 'file_name': the file 'no.png' does not exist"),
        (refer(file_name="bad.png"), "picture 'bad.png': not a JPEG, PNG or WebP image"),
        (refer(split="test"), "field 'split' is 'test', but "),
    ],
)
def test_bad_expressions_name_file_and_entry(photos, packed, tmp_path, entry, message):
    (photos / "bad.png").write_bytes(b"x")
    good = refer(split="train")
    with pytest.raises(DataError) as caught:
        packed([good, entry], images=str(photos))
    assert f"{tmp_path / 'in.json'}: entry 2" in str(caught.value) and message in str(caught.value)
    samples, _ = packed([good, entry], images=str(photos), on_error="skip")
    assert [region.phrase for region in regions_of(samples["a"])] == ["left dog"]


# which format


@pytest.mark.parametrize(
    ("content", "name", "settings", "message"),
    [
        ([{"image": "a.png", "caption": "x"}], "in.json", {}, "cannot tell what this is from its first entry"),
        ([], "in.json", {}, "cannot tell what this is"),
        (3, "in.json", {}, " is a list of entries, this is int"),
        ([llava()], "in.json", {"format": "lava"}, "format is 'lava'; did you mean 'llava'?"),
        ([llava()], "in.json", {"format": "coco"}, "field 'images' must be a list"),
        (coco([]), "in.json", {"format": "llava"}, "llava is a list of entries, this is dict"),
        ([llava()], "in.jsonl", {"format": "coco"}, "COCO is one JSON object, not JSON lines"),
        ([llava()], "in.json", {"images": "nowhere"}, "--images nowhere: there is no such folder"),
        ([{"image": "a.png", "caption": "x"}], "in.jsonl", {"images": "."}, "--images goes with annotations"),
        ([llava()], "in.json", {"format": "refcoco"}, "exactly one of the fields 'bbox', 'box' must be given"),
    ],
)
def test_a_format_that_does_not_fit(packed, photos, content, name, settings, message):
    with pytest.raises(DataError) as caught:
        packed(content, name=name, **{"images": str(photos), **settings})
    assert message in str(caught.value)


def test_format_and_images_are_for_json_only(tmp_path):
    with pytest.raises(DataError, match=r"--format and --images are for a \.json or \.jsonl file"):
        pack(str(tmp_path), str(tmp_path / "out"), format="coco")
    with pytest.raises(DataError, match="no such file or folder"):
        pack(str(tmp_path / "gone.json"), str(tmp_path / "out"), format="coco")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json: not valid JSON"):
        pack(str(tmp_path / "broken.json"), str(tmp_path / "out"))


def test_paths_start_at_the_file_without_images(photos):
    (photos / "in.json").write_text(json.dumps([llava()]), encoding="utf-8")
    pack(str(photos / "in.json"), str(photos / "out"))
    assert len(ShardSet(photos / "out")) == 1


def test_no_path_of_this_machine_is_stored(photos, packed, tmp_path):
    path = str(photos / "a.png")
    packed([llava(image=path, id=1)])
    packed([refer(file_name=path)])
    packed([{"image": path, "regions": []}], name="in.jsonl")
    for folder in tmp_path.glob("out-*"):
        assert all(os.fsencode(tmp_path) not in file.read_bytes() for file in Path(folder).iterdir())
    assert len(list(tmp_path.glob("out-*"))) == 3


def test_split_keeps_what_is_said_of_one_picture_together(photos, packed, tmp_path):
    entries = [llava(id=n, image=["a.png", "b.jpg", "sub/c.png"][n % 3]) for n in range(30)]
    samples, _ = packed(entries, images=str(photos))
    split(str(tmp_path / "out-0"), str(tmp_path / "parts"), fractions={"x": 0.5, "y": 0.5}, seed=2)
    parts = {name: [decode_sample(raw) for raw in ShardSet(tmp_path / "parts" / name).samples()] for name in ("x", "y")}
    assert sum(map(len, parts.values())) == 30
    groups = {name: {sample.meta["group"] for sample in found} for name, found in parts.items()}
    assert not groups["x"] & groups["y"] and groups["x"] | groups["y"] == {"a", "b", "sub_c"}
    for sample in (*parts["x"], *parts["y"]):
        assert dialogue_of(sample) == dialogue_of(samples[sample.key])
