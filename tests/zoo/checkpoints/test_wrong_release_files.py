"""Releases whose files say something that cannot be: one sentence with file and entry, never a traceback, never a silent load."""

import json
import shutil

import pytest
import torch

from modalign.zoo.checkpoints.release import load, save_release
from modalign.zoo.errors import ReleaseError
from modalign.zoo.registry import FAMILIES

SHA = "0" * 64
PART = {"source": "timm:test_vit", "sha256": SHA, "included": True}
RELEASE = {
    "parts list": ({"parts": [1]}, "release.json: parts must map"),
    "parts null value": ({"parts": {"image": None}}, "release.json: parts.image must be a JSON object, not None"),
    "parts without included": (
        {"parts": {"image": {"source": "x", "sha256": SHA}}},
        "parts.image.included must be true or false",
    ),
    "sha a number": ({"parts": {"image": PART | {"sha256": 3, "included": False}}}, "parts.image.sha256 must be a text, not 3"),
    "sha a word": ({"parts": {"image": PART | {"sha256": "abc"}}}, "parts.image.sha256 must be 64 hexadecimal digits"),
    "source a list": ({"parts": {"image": PART | {"source": []}}}, "parts.image.source must be a text"),
    "unknown part": ({"parts": {"zzz": PART | {"included": False}}}, "an adapter on timm:test_vit"),
    "quick_gelu null": ({"quick_gelu": None}, "release.json: quick_gelu must map"),
    "quick_gelu list": ({"quick_gelu": [1]}, "release.json: quick_gelu must map"),
    "quick_gelu number": ({"quick_gelu": {"image": 1}}, "release.json: quick_gelu must map"),
    "kind a map": ({"kind": {"a": 1}}, "release.json: kind is .* neither full nor adapter"),
}
PREPROCESS = {
    "std zero": ({"std": [0, 0, 0]}, r"image_preprocess.std: \(0, 0, 0\) must be three numbers above 0"),
    "std two": ({"std": [0.5, 0.5]}, "image_preprocess.std: .* must be three finite numbers"),
    "std nan": ({"std": [0.5, 0.5, float("nan")]}, "image_preprocess.std: .* must be three finite numbers"),
    "mean text": ({"mean": "abc"}, "image_preprocess.mean: 'abc' must be three"),
    "mean too big": ({"mean": [1e400, 0, 0]}, "image_preprocess.mean: .* must be three finite"),
    "size negative": ({"size": -5}, "image_preprocess.size: -5 must be a whole number from 1"),
    "size huge": ({"size": 10**7}, "image_preprocess.size: 10000000 must be a whole number"),
    "size text": ({"size": "32"}, "image_preprocess.size: '32' must be a whole number"),
    "size true": ({"size": True}, "image_preprocess.size: True must be a whole number"),
    "interpolation": ({"interpolation": "bicubik"}, "image_preprocess.interpolation: .*did you mean 'bicubic'"),
    "interpolation list": ({"interpolation": []}, r"image_preprocess.interpolation: \(\) must be one of"),
    "resize_mode": ({"resize_mode": "evil"}, "image_preprocess.resize_mode: 'evil' must be one of"),
    "resize_to": ({"resize_to": 0}, "image_preprocess.resize_to: 0 must be"),
    "centre": ({"centre": None}, "image_preprocess.centre: None must be one of"),
    "crop zero": ({"crop_fraction": 0}, "image_preprocess.crop_fraction: 0 must be"),
    "crop tiny": ({"crop_fraction": 1e-300}, "image_preprocess.size / crop_fraction: .* must be a whole number"),
    "fill": ({"fill": [0, 0, 300]}, "image_preprocess.fill: .* must be three whole numbers"),
    "unknown": ({"sise": 3}, r"image_preprocess: unknown or missing settings \(sise\)"),
}
CONFIG = {
    "preprocess null": ({"image_preprocess": None}, "config.json: image_preprocess must be a JSON object, not None"),
    "preprocess list": ({"image_preprocess": []}, "config.json: image_preprocess must be a JSON object"),
    "preprocess empty": ({"image_preprocess": {}}, "unknown or missing settings .*mean, size, std"),
    "model list": ({"model": [1]}, "config.json: model must be a JSON object"),
    "family list": ({"family": ["clip"]}, "family .* is not in this zoo"),
}
MODEL = {
    "embed_dim negative": ({"embed_dim": -1}, "embed_dim: -1 must be a whole number from 1"),
    "embed_dim huge": ({"embed_dim": 10**15}, "embed_dim: 1000000000000000 must be"),
    "heads": ({"text_tower": {"context_length": 12, "width": 16, "heads": 0, "layers": 1, "embed_dim": 16}}, "cannot be built"),
    "options": (
        {"image": {"name": "timm:test_vit", "pretrained": False, "options": {"a": 1}}},
        "options: {'a': 1} has no meaning",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    settings = {
        "embed_dim": 16,
        "image": {"name": "timm:test_vit", "pretrained": False},
        "text_tower": {"context_length": 12, "width": 16, "heads": 2, "layers": 1, "embed_dim": 16},
        "text_projector": None,
    }
    return save_release(FAMILIES.get("clip").from_settings(settings), tmp_path_factory.mktemp("whole") / "release")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "release")


def refused(folder, message):
    with pytest.raises(ReleaseError, match=message) as raised:
        load(folder)
    assert str(folder) in str(raised.value) and "get the" in str(raised.value)


def test_as_it_was_saved_it_loads(folder):
    load(folder)


@pytest.mark.parametrize("case", RELEASE)
def test_release_json(case, folder):
    change, message = RELEASE[case]
    path = folder / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReleaseError, match=message) as raised:
        load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("place", "case"), [("image_preprocess", case) for case in PREPROCESS] + [("model", case) for case in MODEL]
)
def test_settings(place, case, folder):
    change, message = (PREPROCESS if place == "image_preprocess" else MODEL)[case]
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[place] |= change
    path.write_text(json.dumps(config))
    refused(folder, message)


@pytest.mark.parametrize("case", CONFIG)
def test_config_json(case, folder):
    change, message = CONFIG[case]
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReleaseError, match=message):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "release.json", "image/config.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000], ids=["list", "map"])
def test_json_nested_too_deep(file, text, folder):
    (folder / file).write_text(text)
    refused(folder, "recursion depth")
