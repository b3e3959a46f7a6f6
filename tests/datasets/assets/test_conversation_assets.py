"""Assets with boxes and documents: their converters on small made-up folders, and the real ones where they are."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modalign.datasets.assets import catalogue
from modalign.datasets.assets.converters import annotated_folder, coco_grounded, composed_scenes, scene, sroie_receipts
from modalign.datasets.assets.fetch import fetch
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.decoding.table import decode_image
from modalign.datasets.dialogue import Box, Region, check_annotations, fields_of, regions_of
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import AssetError

PARTS = ("train", "dev", "test")


def raw_folder(folder, rows, size=(60, 40)):
    """An annotated folder: a row for each picture, which is made."""
    (folder / "images").mkdir(parents=True)
    for row in rows:
        Image.new("RGB", size, "grey").save(folder / "images" / row["image"])
    (folder / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return folder


def parts_of(folder):
    return {part: {raw.key: decode_sample(raw) for raw in ShardSet(folder / part).samples()} for part in PARTS}


def found(label, bbox, iscrowd=0):
    return {"label": label, "bbox": bbox, "area": None, "iscrowd": iscrowd}


def photo_row(number, objects=(), **more):
    row = {"image": f"{number:03d}.png", "coco_id": number, "license": "CC BY", "flickr_url": None, "captions": ["A dog. "]}
    return {**row, "objects": list(objects), "split": "test" if number % 10 == 0 else "train", **more}


def without(row, name):
    return {field: value for field, value in row.items() if field != name}


# coco-grounded


def test_a_category_that_is_unique_and_no_crowd_has_a_phrase():
    objects = [
        found("dog", [1, 2, 10, 20]),
        found("cup", [0, 0, 5, 5]),
        found("cup", [5, 5, 5, 5]),
        found("book", [9, 9, 9, 9], 1),
    ]
    assert coco_grounded.regions_of_objects(objects, (60, 40)) == [
        {"box": [1, 2, 11, 22], "category": "dog", "phrase": "the dog"},
        {"box": [0, 0, 5, 5], "category": "cup"},
        {"box": [5, 5, 10, 10], "category": "cup"},
        {"box": [9, 9, 18, 18], "category": "book", "crowd": True},
    ]


def test_coco_grounded_end_to_end(tmp_path):
    rows = [photo_row(number, [found("dog", [50.1, 0, 10, 40])]) for number in range(40)]
    rows[3] = without(photo_row(3), "objects")  # nobody looked
    rows[4] = photo_row(4, captions=[])  # nothing to learn from
    rows[5] = photo_row(5, [found("dog", [0, 0, 1, 1])], captions=[])
    coco_grounded.convert({"local": raw_folder(tmp_path / "in", rows)}, tmp_path / "out")
    parts = parts_of(tmp_path / "out")
    assert set(parts["test"]) == {"000", "010", "020", "030"} and len(parts["dev"]) >= 1
    samples = {key: sample for part in parts.values() for key, sample in part.items()}
    assert sum(map(len, parts.values())) == len(samples) == 39 and "004" not in samples
    assert regions_of(samples["007"]) == [Region(Box(50.1, 0, 60, 40), "the dog", "dog")]  # 60.1 was cut at 60
    assert samples["007"].captions == {"en": ["A dog."]} and samples["005"].captions == {}
    assert samples["007"].meta | {"regions": 0} == {"coco_id": 7, "license": "CC BY", "group": "007", "regions": 0}
    assert "regions" not in samples["003"].meta
    assert ShardSet(tmp_path / "out" / "train").manifest.task == "grounding"


def test_a_tenth_of_the_training_pictures_is_dev():
    parts = [annotated_folder.part_of(f"{number}.jpg", "train") for number in range(3000)]
    assert set(parts) == {"train", "dev"} and 240 < parts.count("dev") < 360
    assert annotated_folder.part_of("1.jpg", "test") == "test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: without(row, "license"), "line 1: no license"),
        (lambda row: [row], "line 1: no image and no split"),
        (lambda row: {**row, "split": "val"}, "line 1: split is 'val', expected 'train' or 'test'"),
        (lambda row: {**row, "image": "../x.png"}, "line 1: the picture '../x.png' is not in"),
        (lambda row: {**row, "image": "999.png"}, "line 1: the picture '999.png' is not in"),
        (
            lambda row: {**row, "objects": [found("dog", [0, 0, 70, 1])]},
            "line 1: [0, 0, 70, 1] sticks out of its picture of 60x40",
        ),
        (lambda row: {**row, "objects": [{"label": "dog"}]}, "line 1: not as expected (KeyError"),
        (lambda row: {**row, "objects": [found("", [0, 0, 1, 1])]}, "region 1: 'category' must be a non-empty text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    folder = raw_folder(tmp_path / "in", [photo_row(number, [found("dog", [0, 0, 1, 1])]) for number in range(1, 40)])
    lines = (folder / "annotations.jsonl").read_text().splitlines()
    lines[0] = json.dumps(change(json.loads(lines[0])))
    (folder / "annotations.jsonl").write_text("\n".join(lines))
    with pytest.raises(AssetError) as caught:
        coco_grounded.convert({"local": folder}, tmp_path / "out")
    assert message in str(caught.value)


# sroie-receipts


def receipt(number):
    lines = [{"text": "SHOP", "box": [0, 0, 20.5, 8]}, {"text": "9.00", "box": [5, 10, 20, 18]}]
    said = {"key": {"company": "Shop", "total": "9.00"}, "lines": lines, "answer_lines": {"company": [], "total": [1]}}
    return {"image": f"{number:03d}.jpg", **said, "split": "test" if number % 10 == 0 else "train"}


def test_sroie_receipts_end_to_end(tmp_path, home, monkeypatch):
    """Found under MODALIGN_DATA by the data set's own folder name."""
    raw_folder(tmp_path / "data" / "sroie_receipts", [receipt(number) for number in range(40)])
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path / "data"))
    parts = parts_of(fetch(catalogue.find("sroie-receipts")))
    assert set(parts["test"]) == {"000", "010", "020", "030"} and sum(map(len, parts.values())) == 40
    document = fields_of(parts["test"]["010"])
    assert document.fields == {"company": "Shop", "total": "9.00"} and document.answer_lines == {"company": (), "total": (1,)}
    assert [document.lines[number].text for number in document.answer_lines["total"]] == ["9.00"]
    assert document.lines[0].box == (0, 0, 20.5, 8)


def test_a_receipt_whose_lines_do_not_fit_is_named(tmp_path):
    rows = [receipt(number) for number in range(1, 40)]
    rows[0]["answer_lines"]["total"] = [2]
    with pytest.raises(AssetError, match=r"line 1: .*'line number' is 2, but the sample has 2 line"):
        sroie_receipts.convert({"local": raw_folder(tmp_path / "in", rows)}, tmp_path / "out")


# composed-scenes


def test_phrases():
    assert composed_scenes.phrase_of("A red apple.") == "A red apple" and composed_scenes.phrase_of("Two boars") == "Two boars"
    for name in (
        "Eat your broccoli!",
        "A camera. Say Cheese!",
        "Knitting.",
        "A pair of very old brown shoes.",
        "“Yield”.",
        "An x, y.",
    ):
        assert composed_scenes.phrase_of(name) is None
    assert scene.words_of("The dogs and two Red cars") == {"dog", "red", "car"}


def test_outlines():
    def picture(width, height, shown):
        image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        image.paste((255, 0, 0, 255), (0, 0, int(width * shown), height))
        return image

    assert composed_scenes.is_outline(picture(100, 100, 0.5))
    assert not composed_scenes.is_outline(picture(100, 100, 1)) and not composed_scenes.is_outline(picture(100, 100, 0.1))
    assert not composed_scenes.is_outline(picture(100, 10, 0.5))


def test_draws_are_the_same_everywhere():
    draws = scene.Draws("0/train/0")
    assert [round(draws.number(), 6) for _ in range(3)] == [0.981182, 0.319825, 0.755607]
    many = [scene.Draws(str(number)).below(3) for number in range(3000)]
    assert all(900 < many.count(value) < 1100 for value in range(3))


def cutout_picture(colour, size=80):
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((0, 0, size - 1, size - 1), fill=colour)
    return image


COLOURS = {"red": (255, 0, 0, 255), "green": (0, 255, 0, 255), "blue": (0, 0, 255, 255), "pink": (255, 0, 255, 255)}


def cutouts(names=COLOURS):
    return [scene.Cutout(name, f"A {name} ball", name, name, cutout_picture(COLOURS[name])) for name in names]


def grey(size=(150, 200), key="p", words=frozenset()):
    stream = io.BytesIO()
    Image.new("RGB", size, "grey").save(stream, "PNG")
    return scene.Photo(key, stream.getvalue(), words)


def covering(picture, colour):
    """Brute force: the box around the pixels that are nearer to a colour than to any other, the photograph's grey among them."""
    known = [colour, *(other for other in COLOURS.values() if other != colour), (128, 128, 128)]
    distances = [np.abs(np.asarray(picture, dtype=int) - np.array(one[:3])).sum(-1) for one in known]
    ys, xs = np.nonzero(np.argmin(distances, axis=0) == 0)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_boxes_are_exact():
    """Against the picture itself: grey photograph, balls of pure colours."""
    counts = []
    for number in range(40):
        made = scene.compose([grey()], cutouts(), f"x/{number}")
        counts.append(len(made.placed))
        assert 256 <= max(made.picture.size) <= 320
        for cutout, box in made.placed:
            assert all(isinstance(value, int) for value in box)
            assert np.abs(np.subtract(covering(made.picture, COLOURS[cutout.key]), box)).max() <= 1, (number, cutout.key)
        for one in range(len(made.placed)):
            for other in range(one):
                assert scene._overlap(made.placed[one][1], made.placed[other][1]) < 0.2
        assert len({cutout.phrase for cutout, _ in made.placed}) == len(made.placed)
    assert set(counts) == {1, 2, 3}


def test_a_scene_is_a_function_of_its_name():
    first, again, other = (scene.compose([grey()], cutouts(), name) for name in ("a", "a", "b"))
    assert first.picture.tobytes() == again.picture.tobytes() and first.placed == again.placed
    assert first.picture.tobytes() != other.picture.tobytes()


def test_what_the_photograph_shows_already_is_not_pasted():
    photo = grey(words=scene.words_of("Some reds and a green ladder"))
    names = {cutout.key for number in range(20) for cutout, _ in scene.compose([photo], cutouts(), str(number)).placed}
    assert names == {"blue", "pink"}
    with pytest.raises(AssetError, match="none of 1 cut-outs goes with the photograph 'p'"):
        scene.compose([photo], cutouts(["red"]), "0")


def test_one_kind_of_thing_is_in_a_scene_once():
    same = [scene.Cutout(name, f"A {name} ball", name, "toys", cutout_picture(COLOURS[name])) for name in COLOURS]
    assert all(len(scene.compose([grey()], same, str(number)).placed) == 1 for number in range(10))


def test_the_box_of_one_pixel_has_width_one():
    mask = np.zeros((4, 6), dtype=bool)
    mask[2, 3] = True
    assert scene.box_of_pixels(mask) == (3, 2, 4, 3)


def stamp_samples(letters):
    for number, letter in enumerate(letters):
        stream = io.BytesIO()
        square = Image.new("RGBA", (100, 100), (255, 255, 255, 0))
        square.paste(cutout_picture((40 * number % 256, 200, 10, 255), 60), (10, 20))
        square.save(stream, "PNG")
        name = f"A th{letter}ng."
        yield {"key": letter, "image": stream.getvalue(), "captions": {"en": [name]}, "group": letter, "folder": f"f/{letter}"}


def photograph_samples(part):
    for number in range(4):
        yield {"key": f"{part}{number}", "image": grey().data, "captions": {"en": ["A street ."]}, "group": str(number)}


def test_composed_scenes_from_the_two_assets(tmp_path, home, monkeypatch):
    """Both assets ready in the user's folder: parts share neither photographs nor cut-outs, and a second run gives the same bytes."""
    data = tmp_path / "data"
    letters = "abcdefghijklmnopqrstuvwxyz"
    write_shards(stamp_samples(letters[:20]), data / "tuxpaint" / "train")
    write_shards(stamp_samples(letters[20:]), data / "tuxpaint" / "test")
    write_shards(stamp_samples("0"), data / "tuxpaint" / "symbols")
    for part in PARTS:
        write_shards(photograph_samples(part), data / "flickr8k_multilingual" / part)
    monkeypatch.setenv("MODALIGN_DATA", str(data))
    monkeypatch.setattr(composed_scenes, "SIZES", {"train": 12, "dev": 4, "test": 5})
    for out in ("one", "two"):
        composed_scenes.convert({}, tmp_path / out)
    parts = parts_of(tmp_path / "one")
    assert {part: len(samples) for part, samples in parts.items()} == {"train": 12, "dev": 4, "test": 5}
    pasted = {part: {key for sample in samples.values() for key in sample.meta["cutouts"]} for part, samples in parts.items()}
    photos = {part: {sample.meta["photo"] for sample in samples.values()} for part, samples in parts.items()}
    assert not pasted["train"] & (pasted["dev"] | pasted["test"]) and pasted["test"] <= set(letters[20:])
    assert all(photo.startswith(part) for part in PARTS for photo in photos[part])
    for sample in parts["test"].values():
        regions = regions_of(sample)
        assert [region.phrase for region in regions] == [f"A th{key}ng" for key in sample.meta["cutouts"]]
        for region in regions:  # the padding around a stamp is not part of its box
            assert 0.9 < (region.box.x1 - region.box.x0) / (region.box.y1 - region.box.y0) < 1.1
    for part in PARTS:
        tars = [(tmp_path / out / part / "000000.tar").read_bytes() for out in ("one", "two")]
        assert tars[0] == tars[1]


def test_composed_scenes_say_which_asset_cannot_be_had(home, tmp_path):
    """Before anything is downloaded."""
    with pytest.raises(AssetError, match="asset 'flickr8k_multilingual' could not be fetched"):
        composed_scenes.convert({}, tmp_path)


# the real ones


def test_real_photographs_and_receipts(real_data, tmp_path):
    """All lines of the real folders pass the checks; counts as counted by hand."""
    for name, converter in (("coco_grounded", coco_grounded), ("sroie_receipts", sroie_receipts)):
        if not (real_data / name / "annotations.jsonl").is_file():
            pytest.skip(f"the data set {name} is not on this machine (MODALIGN_DATA)")
        converter.convert({"local": real_data / name}, tmp_path / name)
    photos, receipts = (
        {part: ShardSet(tmp_path / name / part) for part in PARTS} for name in ("coco_grounded", "sroie_receipts")
    )
    assert {part: len(shards) for part, shards in photos.items()} == {"train": 423, "dev": 42, "test": 59}
    assert {part: len(shards) for part, shards in receipts.items()} == {"train": 217, "dev": 34, "test": 29}
    rows = (real_data / "coco_grounded" / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
    counts = [len(json.loads(row).get("objects", [])) for row in rows]
    metas = [json.loads(raw.members["json"]) for shards in photos.values() for raw in shards.samples(["json"])]
    regions = [region for meta in metas for region in meta.get("regions", [])]
    assert len(regions) == sum(counts) == 3498 and sum("crowd" in region for region in regions) == 20
    assert sum("captions" in meta and bool(meta["captions"]) for meta in metas) == 412 and all(meta["license"] for meta in metas)


def test_real_scenes(real):
    """The asset in the cache, if it is there: nothing shared between parts, every annotation right."""
    folder = real("composed-scenes")
    parts = {part: ShardSet(folder / part) for part in PARTS}
    assert {part: len(shards) for part, shards in parts.items()} == {"train": 2000, "dev": 200, "test": 200}
    metas = {part: [json.loads(raw.members["json"]) for raw in shards.samples(["json"])] for part, shards in parts.items()}
    for of in (
        lambda meta: {meta["photo"]},
        lambda meta: set(meta["cutouts"]),
        lambda meta: {region["phrase"].lower() for region in meta["regions"]},
    ):
        train, dev, test = ({value for meta in metas[part] for value in of(meta)} for part in PARTS)
        assert not train & dev and not train & test and not dev & test
    assert all(1 <= len(meta["regions"]) <= 3 for part in PARTS for meta in metas[part])
    for number in range(40):
        sample = decode_sample(parts["test"].read(number))
        check_annotations(sample)
        assert 256 <= max(decode_image(parts["test"].read(number).members["jpg"]).size) <= 320 and regions_of(sample)
