"""The detector: transformers' own DETR, with its backbone's activations, its frozen norms, and no name that fetches anything."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import DetrConfig, DetrForObjectDetection, DetrModel

from modalign.zoo.errors import AssemblyError, NameGrammarError, RecipeError, ReleaseError
from modalign.zoo.stack.methods.detector import build_detector
from modalign.zoo.stack.methods.detector_config import BackboneConfig, DetectorConfig

SMALL = {"width": 16, "queries": 5, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "ffn": 24}


def small(backbone="timm:test_resnet", pretrained=False, **more):
    return DetectorConfig(backbone=BackboneConfig(backbone, pretrained), **{**SMALL, **more})


@pytest.fixture(scope="module")
def network_folder(tmp_path_factory):
    """A network whose batch norms hold its activations, in timm's layout."""
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=0)
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5) if name.endswith("var") else buffer.normal_(0, 0.1)
    save_file(network.state_dict(), folder / "model.safetensors")
    about = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 1.0}
    values = {"architecture": "test_efficientnet", "num_classes": 0, "pretrained_cfg": about}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(class, settings) -> a folder with a tiny DETR as transformers saves it, and its states of two pictures."""

    def make(cls, **more):
        folder = tmp_path_factory.mktemp("detr")
        torch.manual_seed(0)
        sizes = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        sizes |= {"d_model": 16, "num_queries": 7, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.2, **more}
        model = cls(DetrConfig(backbone="test_resnet", **sizes)).eval()
        model.save_pretrained(folder)
        return f"local-dir:{folder}", getattr(model, "model", model)

    return make


@pytest.mark.parametrize("cls", [DetrModel, DetrForObjectDetection])
def test_a_published_detr_gives_its_own_states(published, cls):
    name, theirs = published(cls)
    ours = build_detector(DetectorConfig(name=name)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(pixel_values=images).last_hidden_state, atol=1e-5)
    found = ours.config
    assert (found.width, found.queries, found.encoder_layers, found.decoder_layers, found.heads) == (16, 7, 1, 2, 2)
    assert (found.ffn, found.dropout, found.backbone.network) == (24, 0.2, "test_resnet")


@pytest.mark.parametrize(
    "more", [{"decoder_attention_heads": 4}, {"activation_function": "gelu"}, {"position_embedding_type": "learned"}]
)
def test_a_detr_that_would_compute_something_else_is_refused(published, more):
    name, _ = published(DetrModel, **more)
    with pytest.raises(ReleaseError, match="take another"):
        build_detector(DetectorConfig(name=name))


def test_states_do_not_depend_on_other_pictures():
    detector, images = build_detector(small()).eval(), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(detector(images)[1:2], detector(images[1:2]), atol=1e-5)
    assert detector(images).shape == (3, 5, 16)


def test_the_backbones_weights_and_activations_are_kept(network_folder):
    detector = build_detector(small(f"local-dir:{network_folder}", pretrained=True)).eval()
    whole = timm.create_model(f"local-dir:{network_folder}", pretrained=True, num_classes=0).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = whole.forward_intermediates(images, intermediates_only=True)[-1]
        assert torch.allclose(detector.detr.backbone.model(images)[-1], wanted, atol=1e-5)


def test_a_backbone_that_is_not_pretrained_is_only_named(network_folder):
    torch.manual_seed(3)
    detector = build_detector(small(f"local-dir:{network_folder}"))
    assert detector.config.backbone.network == "test_efficientnet"
    saved = timm.create_model(f"local-dir:{network_folder}", pretrained=True, num_classes=0).state_dict()
    assert not torch.equal(detector.detr.backbone.model.state_dict()["conv_stem.weight"], saved["conv_stem.weight"])


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet"])
def test_batch_norms_never_change(network):
    detector = build_detector(small(f"timm:{network}")).train()
    before = {name: value.clone() for name, value in detector.named_buffers()}
    assert any("running_mean" in name for name in before)
    detector(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in detector.named_buffers())
    norms = [name for name, _ in detector.detr.backbone.named_parameters() if "bn" in name]
    assert not norms


@pytest.mark.parametrize(("dilation", "memory"), [(False, 400), (True, 1600)])
def test_memory_tokens_of_640_pixels(dilation, memory):
    detector = build_detector(small(dilation=dilation)).eval()
    with torch.no_grad():
        assert detector.detr.backbone.model(torch.zeros(1, 3, 640, 640))[-1].shape[-2:].numel() == memory


def test_dilation_needs_no_other_weights():
    plain, dilated = build_detector(small()), build_detector(small(dilation=True))
    assert {n: v.shape for n, v in plain.state_dict().items()} == {n: v.shape for n, v in dilated.state_dict().items()}


def test_a_release_is_built_without_sources(network_folder, tmp_path):
    found = build_detector(small(f"local-dir:{network_folder}", pretrained=True)).config
    found.backbone.name = "local-dir:nowhere"
    shape = build_detector(found, release=tmp_path)
    assert shape.config.backbone.network == "test_efficientnet"


@pytest.mark.parametrize("name", ["hf-hub:someone/network", "local-dir:./x", "no_such_network"])
def test_a_network_is_one_that_timm_builds_itself(name, tmp_path):
    config = small()
    config.backbone.network = name
    with pytest.raises(NameGrammarError, match="timm has no network"):
        build_detector(config, release=tmp_path)


@pytest.mark.parametrize("name", ["mixer_s32_224", "swin_tiny_patch4_window7_224"])
def test_a_network_without_a_grid_of_any_size_is_refused(name):
    with pytest.raises(AssemblyError, match=r"no grid of features for pictures of any size .* take a convolutional network"):
        build_detector(small(f"timm:{name}"))


def test_weights_of_another_network_are_refused(network_folder, tmp_path):
    values = json.loads((network_folder / "config.json").read_text()) | {"architecture": "test_efficientnet_gn"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").write_bytes((network_folder / "model.safetensors").read_bytes())
    with pytest.raises(ReleaseError):
        build_detector(small(f"local-dir:{tmp_path}", pretrained=True))


def test_a_folder_of_something_else_is_refused(clip_folder):
    with pytest.raises(ReleaseError, match="is no DETR on a network of timm"):
        build_detector(DetectorConfig(name=f"local-dir:{clip_folder}"))
    with pytest.raises(AssemblyError, match="no network of timm"):
        build_detector(small(f"local-dir:{clip_folder}"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"queries": 0}, "queries: 0"),
        ({"width": 18}, "multiple of 4"),
        ({"width": 20, "heads": 3}, "heads 3"),
        ({"dropout": 1}, "dropout"),
    ],
)
def test_what_is_refused(more, said):
    with pytest.raises(RecipeError, match=said):
        small(**more)
