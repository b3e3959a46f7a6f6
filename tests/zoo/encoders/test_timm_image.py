"""Image encoders from timm: the contract, cuts, names, preprocessing."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.image.timm import checkpoint_trunk
from modalign.zoo.errors import AssemblyError, NameGrammarError, ReleaseError

CUTTABLE = ["test_efficientnet", "test_efficientnet_gn", "test_vit", "test_vit3", "test_vit4", "mobilenetv3_small_050"]
UNCUTTABLE = ["test_resnet", "test_convnext", "test_mambaout", "test_byobnet", "test_vit_relpos"]
#: forms of a vision transformer that no tiny model has by itself: CLIP's norm before the blocks, SigLIP's attention pooling
VIT_FORMS = {
    "pre_norm": {"pre_norm": True},
    "attention_pool": {"global_pool": "map", "class_token": False},
    "mean_pool": {"global_pool": "avg", "class_token": False},
    "register_tokens": {"reg_tokens": 2},
}
SIZE = 160


def own_model(folder, architecture, **arguments):
    """A local timm folder, weights included."""
    folder.mkdir()
    torch.manual_seed(3)
    model = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
    config = {"architecture": architecture, "num_classes": 0, "model_args": arguments, "pretrained_cfg": model.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory):
    """Name of a timm model or of a form of `VIT_FORMS` -> its encoder, made once, with weights and statistics that are not trivial."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("own") / name
            source = own_model(folder, "test_vit", **VIT_FORMS[name]) if name in VIT_FORMS else f"timm:{name}"
            torch.manual_seed(0)
            encoder = build_image_encoder(ImageEncoderConfig(name=source, pretrained=False))
            for parameter in encoder.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
            for key, buffer in encoder.trunk.named_buffers():
                if key.endswith("running_mean"):
                    buffer.normal_(0, 0.1)
            made[name] = encoder.eval()
        return made[name]

    return make


@pytest.fixture(scope="module")
def pixels():
    """Coarse patterns, not fine noise: pooling would average noise to the same vector for every picture."""
    coarse = torch.randint(0, 256, (3, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return coarse.repeat_interleave(SIZE // 5, 2).repeat_interleave(SIZE // 5, 3)


@pytest.mark.parametrize("name", CUTTABLE + UNCUTTABLE + list(VIT_FORMS))
@torch.no_grad()
def test_image_encoder_contract(name, encoder_of, pixels):
    encoder = encoder_of(name)
    assert encoder.preprocess(Image.new("RGB", (300, 200))).shape == (3, encoder.preprocess.size, encoder.preprocess.size)
    features, mask = encoder(pixels)
    assert features.ndim == 3
    assert features.shape[0] == 3
    assert features.shape[2] == encoder.token_width == encoder.trunk.num_features
    assert mask.shape == features.shape[:2]
    assert mask.dtype == torch.bool
    assert bool(mask.all())
    assert encoder.num_tokens((SIZE, SIZE)) == features.shape[1]
    pooled = encoder.pooled(pixels)
    assert pooled.shape == (3, encoder.width)
    assert torch.isfinite(pooled).all()


@pytest.mark.parametrize("name", CUTTABLE + UNCUTTABLE + list(VIT_FORMS))
@torch.no_grad()
def test_pooled_is_timms_own_output_on_normalised_input(name, encoder_of, pixels):
    encoder = encoder_of(name)
    if name in VIT_FORMS:
        timm_model = timm.create_model("test_vit", pretrained=False, num_classes=0, **VIT_FORMS[name]).eval()
    else:
        timm_model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    timm_model.load_state_dict(encoder.trunk.state_dict())
    mean, std = torch.tensor(timm_model.pretrained_cfg["mean"]), torch.tensor(timm_model.pretrained_cfg["std"])
    images = (pixels.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    wanted = timm_model(images)
    difference_between_pictures = (wanted[0] - wanted[1]).abs().max()  # untrained nets tell pictures apart by very little
    assert difference_between_pictures > 1e-4
    assert (encoder.pooled(pixels) - wanted).abs().max() < 0.01 * difference_between_pictures


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_mambaout"])
@torch.no_grad()
def test_a_token_is_one_place_of_the_picture(name, encoder_of, pixels):
    """Whether timm keeps channels first or last, the mean over tokens is the global average pool's input."""
    encoder = encoder_of(name)
    grid = encoder.trunk.forward_features(encoder.normalise(pixels))
    last = getattr(encoder.trunk, "output_fmt", "NCHW") == "NHWC"
    tokens = encoder(pixels)[0]
    side = grid.shape[2]
    for row, column in ((0, 0), (1, 3), (side - 1, side - 1)):
        wanted = grid[:, row, column] if last else grid[:, :, row, column]
        assert torch.equal(tokens[:, row * side + column], wanted)


@pytest.mark.parametrize("name", CUTTABLE + list(VIT_FORMS))
@torch.no_grad()
def test_below_then_above_is_the_whole_at_every_cut(name, encoder_of, pixels):
    encoder = encoder_of(name)
    cuts = encoder.cuts()
    assert cuts == [f"blocks.{i}" for i in range(len(encoder.trunk.blocks))] + ["output"]
    whole = encoder.pooled(pixels)
    for cut in cuts:
        assert torch.equal(encoder.above(encoder.below(pixels, cut), cut), whole), cut


@pytest.mark.parametrize("name", CUTTABLE + list(VIT_FORMS))
def test_lies_below_is_exactly_what_gets_no_gradient_from_above(name, encoder_of, pixels):
    encoder = encoder_of(name)
    names = dict(encoder.named_parameters())
    for cut in encoder.cuts()[:-1]:
        encoder.zero_grad(set_to_none=True)
        hidden = encoder.below(pixels, cut).detach()
        (encoder.above(hidden, cut) ** 2).sum().backward()
        reached = {name for name, parameter in names.items() if parameter.grad is not None}
        assert reached, cut
        assert reached == {name for name in names if not encoder.lies_below(name, cut)}, cut
    encoder.zero_grad(set_to_none=True)
    assert all(encoder.lies_below(name, "output") for name in names)


@pytest.mark.parametrize("name", UNCUTTABLE)
@torch.no_grad()
def test_models_without_blocks_offer_only_the_output(name, encoder_of, pixels):
    encoder = encoder_of(name)
    assert encoder.cuts() == ["output"]
    assert torch.equal(encoder.above(encoder.below(pixels, "output"), "output"), encoder.pooled(pixels))
    calls = (
        lambda: encoder.below(pixels, "blocks.0"),
        lambda: encoder.above(pixels, "blocks.0"),
        lambda: encoder.lies_below("trunk.stem.weight", "blocks.0"),
    )
    for refuse in calls:
        with pytest.raises(AssemblyError, match=rf"timm:{name} cannot be cut at 'blocks.0'.*output"):
            refuse()


def test_a_cut_that_is_not_there_names_the_nearest(encoder_of, pixels):
    with pytest.raises(AssemblyError, match=r"cannot be cut at 'block.1'; did you mean 'blocks.1'\?"):
        encoder_of("test_efficientnet").below(pixels, "block.1")
    with pytest.raises(AssemblyError, match=r"cannot be cut at 'blocks\.99'"):
        encoder_of("test_efficientnet").lies_below("trunk.blocks.0.0.conv.weight", "blocks.99")


def test_names_of_image_encoders(tmp_path):
    with pytest.raises(NameGrammarError, match=r"timm:test_vitt: timm knows no model of that name; did you mean 'test_vit'"):
        build_image_encoder(ImageEncoderConfig("timm:test_vitt", pretrained=False))
    with pytest.raises(NameGrammarError, match=r"holds no image encoder; looked for config\.json"):
        build_image_encoder(ImageEncoderConfig(str(tmp_path)))
    with pytest.raises(AssemblyError, match=r"there is no encoder named 'image.tim'; did you mean 'image.timm'"):
        build_image_encoder(ImageEncoderConfig("timm:test_vit", pretrained=False, kind="tim"))


@pytest.mark.parametrize("absent", ["mean", "std", "input_size", "interpolation"])
def test_preprocessing_is_never_a_default(tmp_path, absent):
    """A folder that does not say how its pictures were prepared is refused: timm itself would take ImageNet's values."""
    name = own_model(tmp_path / "mine", "test_vit")
    path = tmp_path / "mine" / "config.json"
    config = json.loads(path.read_text())
    del config["pretrained_cfg"][absent]
    path.write_text(json.dumps(config))
    with pytest.raises(ReleaseError, match=f"does not say how pictures are prepared .{absent} under pretrained_cfg"):
        build_image_encoder(ImageEncoderConfig(name))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(90, 60), (61, 97), (300, 41), (64, 64), (20, 31)])
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_every_crop_mode_of_timm(tmp_path, mode, shape, crop):
    name = own_model(tmp_path / "mine", "test_efficientnet")
    path = tmp_path / "mine" / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= {"crop_mode": mode, "crop_pct": crop, "interpolation": "bilinear", "input_size": [3, 64, 64]}
    path.write_text(json.dumps(config))
    encoder = build_image_encoder(ImageEncoderConfig(name))
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(shape, Image.Resampling.BICUBIC)
    theirs = timm.data.create_transform(**timm.data.resolve_data_config({}, model=encoder.trunk))(picture)
    assert torch.equal(encoder.normalise(encoder.preprocess(picture)[None])[0], theirs), "to the last bit, normalisation too"


def test_patch_dropout_and_drop_path_are_the_networks(tmp_path):
    encoder = build_image_encoder(ImageEncoderConfig("timm:test_vit", pretrained=False, drop_path=0.2, patch_dropout=0.5))
    assert encoder.trunk.patch_drop.prob == 0.5
    assert encoder.trunk.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    with pytest.raises(AssemblyError, match="takes no such setting"):
        build_image_encoder(ImageEncoderConfig("timm:test_efficientnet", pretrained=False, patch_dropout=0.5))


def test_own_image_size_resamples_positions(pixels):
    encoder = build_image_encoder(ImageEncoderConfig("timm:test_vit", pretrained=False, image_size=96)).eval()
    assert encoder.preprocess.size == 96
    assert encoder.num_tokens((96, 96)) == 37
    assert encoder.pooled(pixels[:, :, :96, :96]).shape == (3, encoder.width)


@pytest.mark.parametrize("name", CUTTABLE + UNCUTTABLE)
def test_layers_go_from_input_to_output(name, encoder_of):
    encoder = encoder_of(name)
    layers = [encoder.layer_of(parameter) for parameter, _ in encoder.named_parameters()]
    assert set(layers) == set(range(encoder.num_layers))
    for cut in encoder.cuts()[:-1]:
        below = [encoder.layer_of(p) for p, _ in encoder.named_parameters() if encoder.lies_below(p, cut)]
        above = [encoder.layer_of(p) for p, _ in encoder.named_parameters() if not encoder.lies_below(p, cut)]
        assert max(below) <= min(above), f"what lies below {cut} is not deeper than what lies above"


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext"])
def test_gradient_checkpointing_gives_the_same_gradients(name, encoder_of, pixels):
    encoder = encoder_of(name)
    gradients, calls = [], []
    blocks = [m for n, m in encoder.trunk.named_modules() if n.endswith(("blocks.0", "blocks.0.0", "stages.0.blocks.0"))]
    hook = blocks[-1].register_forward_pre_hook(lambda *_: calls.append(1))
    for enable in (False, True):
        encoder.set_grad_checkpointing(enable)
        encoder.zero_grad(set_to_none=True)
        (encoder.pooled(pixels) ** 2).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None})
    if "blocks.0" in encoder.cuts():
        hidden = encoder.below(pixels, "blocks.0")
        before = len(calls)
        encoder.above(hidden, "blocks.0").sum().backward()
        assert len(calls) == before + 2, "above a cut too"
    encoder.set_grad_checkpointing(False)
    encoder.zero_grad(set_to_none=True)
    hook.remove()
    assert len(calls) >= 3, "once, then twice"
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient, rtol=1e-4, atol=1e-5)


def test_a_network_that_cannot_recompute_says_so():
    class Rigid(torch.nn.Module):
        def set_grad_checkpointing(self, enable):
            raise AssertionError("not supported")

    for rigid in (Rigid(), torch.nn.Identity()):
        with pytest.raises(AssemblyError, match="timm:x cannot recompute activations"):
            checkpoint_trunk(rigid, "timm:x", True)


def test_local_folder_gives_its_weights_and_size(tmp_path, pixels):
    name = own_model(tmp_path / "mine", "test_vit", pre_norm=True)
    encoder = build_image_encoder(ImageEncoderConfig(name)).eval()
    torch.manual_seed(3)
    wanted = timm.create_model("test_vit", pretrained=False, num_classes=0, pre_norm=True).state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in encoder.trunk.state_dict().items())
    assert encoder.preprocess.size == wanted_size("test_vit")
    other = build_image_encoder(ImageEncoderConfig(name, pretrained=False))
    assert not torch.equal(other.trunk.blocks[0].attn.qkv.weight, wanted["blocks.0.attn.qkv.weight"])


def wanted_size(name):
    return timm.create_model(name, pretrained=False).pretrained_cfg["input_size"][-1]


def test_saved_shape_builds_without_the_source(tmp_path, pixels):
    name = own_model(tmp_path / "mine", "test_vit", pre_norm=True)
    encoder = build_image_encoder(ImageEncoderConfig(name, drop_path=0.1)).eval()
    (tmp_path / "shape").mkdir()
    encoder.save_processor(tmp_path / "shape")
    shutil.rmtree(tmp_path / "mine")
    again = build_image_encoder(
        encoder.config, load_weights=False, preprocess=encoder.preprocess.to_dict(), folder=tmp_path / "shape"
    )
    again.load_state_dict(encoder.state_dict())
    assert again.preprocess == encoder.preprocess
    assert torch.equal(again.eval().pooled(pixels), encoder.pooled(pixels))
    assert [type(m).__name__ for m in again.modules()] == [type(m).__name__ for m in encoder.modules()]


def test_own_image_size_keeps_the_whole_picture():
    theirs = build_image_encoder(ImageEncoderConfig("timm:test_vit", pretrained=False)).preprocess
    ours = build_image_encoder(ImageEncoderConfig("timm:test_efficientnet", image_size=64, pretrained=False)).preprocess
    assert theirs.crop_fraction == timm.create_model("test_vit", pretrained=False).pretrained_cfg["crop_pct"]
    assert (ours.size, ours.crop_fraction) == (64, 1.0)
