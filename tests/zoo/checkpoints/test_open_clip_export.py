"""Exports that open_clip itself loads: its own vectors equal ours, and what it cannot express is refused with the reason."""

import json
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from modalign import zoo
from modalign.trainers.cli import main
from modalign.zoo.checkpoints import open_clip_export
from modalign.zoo.checkpoints.open_clip_export import export_open_clip
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import ReleaseError
from modalign.zoo.registry import FAMILIES

ALL = ["native", "quick_gelu", "timm_mlp", "timm_vit", "siglip", "resnet", "coca", "hf_text"]


def check(model, folder, vectors, photos, captions, tolerance=1e-6):
    images, texts = vectors(folder, photos, captions)
    torch.testing.assert_close(model.encode_image(photos), images, rtol=0, atol=tolerance)
    torch.testing.assert_close(model.encode_text(captions), texts, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", ALL)
def test_round_trip(layout, open_clip_folder, open_clip_vectors, photos, captions, tmp_path):
    """open_clip folder -> our model, trained a little -> open_clip folder: the same names and shapes, our vectors."""
    source = open_clip_folder(layout)
    model = zoo.load(source)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit"):
            parameter.data += 0.003 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    folder = export_open_clip(model, tmp_path / "out")
    check(model, folder, open_clip_vectors, photos, captions)
    before, after = load_file(source / "open_clip_model.safetensors"), load_file(folder / "open_clip_model.safetensors")
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    again = zoo.load(folder)
    assert torch.equal(again.encode_image(photos), model.encode_image(photos))
    assert torch.equal(again.encode_text(captions), model.encode_text(captions))
    assert again.image.preprocess == model.image.preprocess
    theirs, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    assert theirs.logit_scale.item() == pytest.approx(3.1)


def test_what_was_not_touched_is_bit_equal(open_clip_folder, tmp_path):
    source = open_clip_folder("native")
    folder = export_open_clip(zoo.load(source), tmp_path / "out")
    before, after = load_file(source / "open_clip_model.safetensors"), load_file(folder / "open_clip_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    configs = [json.loads((place / "open_clip_config.json").read_text())["model_cfg"] for place in (source, folder)]
    assert configs[0] == configs[1]


SMALL = {"context_length": 24, "width": 24, "heads": 2, "layers": 2, "embed_dim": 16}


def own_model(tiny_embedder, **changes):
    """A model made here: a timm trunk with a linear map, and a text tower from scratch."""
    settings = {
        "embed_dim": 16,
        "image": {"name": "timm:test_efficientnet", "image_size": 64, "pretrained": False},
        "text_tower": SMALL,
        "text_projector": None,
    }
    torch.manual_seed(0)
    model = FAMILIES.get("clip").from_settings(settings | changes).eval()
    for name, parameter in model.named_parameters():
        if not name.startswith("logit"):
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


EMBEDDER = {"text_tower": None, "text_projector": {"name": "linear"}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_projector": {"name": "linear", "options": {"bias": True, "dropout": 0.5}}},
        {"image_projector": {"name": "mlp", "options": {"hidden": 32}}},
        {"image": {"name": "timm:test_vit", "pretrained": False, "image_size": 160}},
        {"image": {"name": "timm:test_vit", "pretrained": False, "image_size": 160}, "image_projector": None, "embed_dim": 64,
         "text_tower": {**SMALL, "embed_dim": 64}},
        EMBEDDER,
    ],
    ids=["linear", "linear-bias", "mlp", "vit", "no-projection", "bert"],
)  # fmt: skip
def test_models_made_here(changes, tiny_embedder, open_clip_vectors, photos, captions, tmp_path):
    if changes is EMBEDDER:
        changes = {**EMBEDDER, "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 16}}
    model = own_model(tiny_embedder, **changes)
    folder = export_open_clip(model, tmp_path / "out")
    check(model, folder, open_clip_vectors, photos, captions)
    again = zoo.load(folder)
    assert (again.encode_image(photos) - model.encode_image(photos)).abs().max() <= 1e-6


def test_siglip_made_here(tiny_embedder, open_clip_vectors, photos, captions, tmp_path):
    model = own_model(tiny_embedder)
    settings = {key: value for key, value in model.settings().items() if key not in ("logit_scale_init", "logit_bias_init")}
    siglip = FAMILIES.get("siglip").from_settings(settings).eval()
    folder = export_open_clip(siglip, tmp_path / "out")
    theirs = open_clip.create_model(f"local-dir:{folder}")
    assert (theirs.logit_bias.item(), theirs.logit_scale.item()) == (-10.0, pytest.approx(2.302585))
    assert zoo.load(folder).family == "siglip"
    check(siglip, folder, open_clip_vectors, photos, captions)


def test_longclip_reads_248_tokens_there_too(open_clip_writer, layouts, open_clip_vectors, photos, tmp_path):
    cfg = {**layouts["native"][0], "text_cfg": {**layouts["native"][0]["text_cfg"], "context_length": 77}}
    base = open_clip_writer(tmp_path / "base", cfg)
    model = FAMILIES.get("longclip").from_settings({"base": str(base)}).eval()
    model.text.positions_long.data += 0.05 * torch.randn_like(model.text.positions_long)
    folder = export_open_clip(model, tmp_path / "out")
    assert open_clip.create_model(f"local-dir:{folder}").positional_embedding.shape == (248, 24)
    check(model, folder, open_clip_vectors, photos, ["a short one", "many words " * 90])


REFUSED = {
    "norm": ({"image_projector": {"name": "linear", "options": {"norm": True}}}, "image_projector: open_clip has one linear map"),
    "deep": (
        {"image_projector": {"name": "mlp", "options": {"depth": 3, "hidden": 32}}},
        "an mlp of depth 2 whose hidden width is twice",
    ),
    "narrow": ({"image_projector": {"name": "mlp", "options": {"hidden": 8}}}, "an mlp of depth 2 whose hidden width is twice"),
    "crop": (
        {"image": {"name": "timm:test_efficientnet", "pretrained": False}},
        "open_clip cannot resize to 168 and crop to 160",
    ),
    "mobilenet": (
        {"image": {"name": "timm:mobilenetv3_small_050", "image_size": 64, "pretrained": False}},
        "which pools through a wider layer",
    ),
    "text_projector": ({"text_projector": {"name": "linear"}}, "text_projector: open_clip has no further projection"),
    "pooling": (EMBEDDER | {"text_embedder": {"pooling": "last", "max_length": 16}}, "text towers have no pooling 'last'"),
    "prefix": (EMBEDDER | {"text_embedder": {"prefix": "query: ", "max_length": 16}}, "prefix would be lost"),
    "mlp_text": (
        {"text_tower": None, "text_projector": {"name": "mlp"}, "text_embedder": {"max_length": 16}},
        "one linear map without bias or norm",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_open_clip_cannot_express_is_refused(case, tiny_embedder, tmp_path):
    changes, message = REFUSED[case]
    if "text_embedder" in changes:
        changes = {**changes, "text_embedder": {"name": f"local-dir:{tiny_embedder}", **changes["text_embedder"]}}
    with pytest.raises(ReleaseError) as caught:
        export_open_clip(own_model(tiny_embedder, **changes), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_vectors_are_never_left_behind(open_clip_folder, tmp_path, monkeypatch):
    """The export is loaded again by open_clip; here a tower is described as what it is not."""
    real = open_clip_export.describe

    def describe(*arguments, **settings):
        description, state = real(*arguments, **settings)
        description["model_cfg"]["quick_gelu"] = True
        return description, state

    monkeypatch.setattr(open_clip_export, "describe", describe)
    with pytest.raises(ReleaseError, match="open_clip computes other image vectors from what was written"):
        export_open_clip(zoo.load(open_clip_folder("native")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_vision_models_of_transformers_are_refused(tiny_vit, tiny_embedder, tmp_path):
    model = own_model(tiny_embedder, image={"name": str(tiny_vit)})
    with pytest.raises(ReleaseError, match="open_clip has no image tower of the kind HuggingFaceImageEncoder"):
        export_open_clip(model, tmp_path / "out")


def test_a_folder_with_other_things_is_never_replaced(open_clip_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ReleaseError, match="is not empty"):
        export_open_clip(zoo.load(open_clip_folder("native")), tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_command(open_clip_folder, open_clip_vectors, photos, captions, tmp_path, capsys):
    model = zoo.load(open_clip_folder("timm_mlp"))
    release = save_release(model, tmp_path / "release")
    assert main(["export", str(release), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 0
    check(model, tmp_path / "out", open_clip_vectors, photos, captions)
    assert main(["export", str(release), "--to", "open_clip", "--out", str(release)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_hub_name_of_a_transformers_tower(open_clip_folder, tmp_path):
    """For a repository that is to be uploaded, open_clip shall look there and not in this folder."""
    model = zoo.load(open_clip_folder("hf_text"))
    folder = export_open_clip(model, tmp_path / "out", hf_name="org/model")
    text_cfg = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert (text_cfg["hf_model_name"], text_cfg["hf_tokenizer_name"]) == ("org/model", "org/model")
    assert str(tmp_path) not in (folder / "open_clip_config.json").read_text()
    assert (folder / "config.json").is_file()
    shutil.rmtree(folder)
    plain = export_open_clip(model, folder)
    text_cfg = json.loads((plain / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert text_cfg["hf_model_name"] == str(plain)
