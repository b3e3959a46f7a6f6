"""Tokens of a layer, of changed pictures and of the grid alone, for every kind of image encoder: against each library's own."""

import open_clip
import pytest
import timm
import torch
import transformers

from modalign.zoo.encoders.image.base import ImageEncoder
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.errors import AssemblyError

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
SQUARE = {"size": {"height": 32, "width": 32}}
CROP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
#: transformers' models: configuration, processor, tokens in front of the grid
THEIRS = {
    "clip": (transformers.CLIPVisionConfig(**TINY), transformers.CLIPImageProcessor(**CROP), 1),
    "siglip": (transformers.SiglipVisionConfig(**TINY), transformers.SiglipImageProcessor(**SQUARE), 0),
    "vit": (transformers.ViTConfig(**TINY), transformers.ViTImageProcessor(**SQUARE), 1),
    "deit": (transformers.DeiTConfig(**TINY), transformers.DeiTImageProcessor(**CROP), 2),
    "dinov2": (transformers.Dinov2Config(**TINY, mlp_ratio=2), transformers.BitImageProcessor(**CROP), 1),
    "dinov2_registers": (
        transformers.Dinov2WithRegistersConfig(**TINY, mlp_ratio=2, num_register_tokens=3),
        transformers.BitImageProcessor(**CROP),
        4,
    ),
}
TIMM = {"timm:test_vit": (1, 100), "timm:test_vit2": (1, 100), "timm:test_vit3": (1, 100), "timm:test_efficientnet": (0, 25)}
LAYOUTS = {"native": (1, 16), "timm_vit": (1, 100), "resnet": (0, 4)}


@pytest.fixture(scope="module")
def theirs(vision_writer, tmp_path_factory):
    made = {}

    def encoder(kind):
        if kind not in made:
            config, processor, _ = THEIRS[kind]
            folder = vision_writer(tmp_path_factory.mktemp("seen") / kind, config, processor)
            model = build_image_encoder(ImageEncoderConfig(name=f"local-dir:{folder}")).eval()
            made[kind] = (model, transformers.AutoModel.from_pretrained(folder).eval())
        return made[kind]

    return encoder


def pictures(side, count=2):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("kind", THEIRS)
def test_transformers_layers_are_its_hidden_states(theirs, kind):
    model, plain = theirs(kind)
    images = model.normalise(pictures(32))
    found = plain(pixel_values=images, output_hidden_states=True)
    for layer in range(-4, 4):
        assert torch.equal(model.tokens_of(images, layer), found.hidden_states[layer])
    assert torch.equal(model.tokens_of(images), found.last_hidden_state)
    assert torch.equal(model.tokens(pictures(32)), found.last_hidden_state)
    with pytest.raises(AssemblyError, match=r"there is no layer 4; it has 4 hidden states, 0 to 3 or -1 back"):
        model.tokens_of(images, 4)


@torch.no_grad()
@pytest.mark.parametrize("kind", THEIRS)
def test_the_grid_is_what_is_left_of_the_tokens_in_front(theirs, kind):
    model, _ = theirs(kind)
    prefix = THEIRS[kind][2]
    assert model.prefix_tokens == prefix and model.num_tokens((32, 32)) == prefix + 16
    for layer in (None, -2):
        whole = model.grid_tokens(pictures(32), layer, prefix=True)
        assert torch.equal(model.grid_tokens(pictures(32), layer), whole[:, prefix:])
        assert whole.shape == (2, prefix + 16, 16)


@torch.no_grad()
@pytest.mark.parametrize("kind", THEIRS)
def test_tokens_of_the_grid_stand_row_by_row(theirs, kind):
    """A patch that differs moves its own token most, before any block mixes them."""
    model, _ = theirs(kind)
    for row, column in ((0, 3), (2, 1)):
        other = pictures(32)
        other[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] ^= 255
        moved = (model.grid_tokens(other, 0) - model.grid_tokens(pictures(32), 0)).abs().sum(-1)
        assert moved.argmax(1).tolist() == [4 * row + column] * 2 and (moved > 0).sum().item() == 2


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in TIMM if "vit" in name])
def test_timms_layers_are_its_blocks_outputs(name):
    torch.manual_seed(0)
    model = build_image_encoder(ImageEncoderConfig(name=name, pretrained=False)).eval()
    side = model.preprocess.size
    images, seen = model.normalise(pictures(side)), []
    hooks = [block.register_forward_hook(lambda *args: seen.append(args[-1])) for block in model.trunk.blocks]
    whole = model.trunk.forward_features(images)
    for hook in hooks:
        hook.remove()
    assert torch.equal(model.tokens_of(images), whole) and len(seen) == len(model.trunk.blocks)
    for number, wanted in enumerate(seen):
        assert torch.equal(model.tokens_of(images, number + 1), wanted)
        assert torch.equal(model.tokens_of(images, number - len(seen)), wanted)
    for layer in (0, len(seen) + 1, -len(seen) - 1):
        with pytest.raises(AssemblyError, match=rf"feature_layer {layer}: it has layers 1 to {len(seen)}, or -1 to -{len(seen)}"):
            model.tokens_of(images, layer)


@torch.no_grad()
@pytest.mark.parametrize("name", TIMM)
def test_timms_grid(name):
    prefix, grid = TIMM[name]
    model = build_image_encoder(ImageEncoderConfig(name=name, pretrained=False)).eval()
    side = model.preprocess.size
    expected = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    assert model.prefix_tokens == prefix == getattr(expected, "num_prefix_tokens", 0)
    found = model.grid_tokens(pictures(side))
    assert found.shape == (2, grid, model.token_width) and torch.equal(found, model.tokens(pictures(side))[:, prefix:])


@pytest.mark.parametrize(
    ("name", "told"), [("timm:test_efficientnet", "feature_layer -2: it is no plain transformer; leave it out")]
)
def test_networks_without_blocks_of_one_width_give_their_output_alone(name, told):
    model = build_image_encoder(ImageEncoderConfig(name=name, pretrained=False))
    with pytest.raises(AssemblyError, match=told):
        model.grid_tokens(pictures(model.preprocess.size), -2)


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_open_clips_grid(open_clip_folder, layout):
    prefix, grid = LAYOUTS[layout]
    model = build_image_encoder(ImageEncoderConfig(name=f"local-dir:{open_clip_folder(layout)}")).eval()
    side = model.preprocess.size
    assert model.prefix_tokens == prefix and model.num_tokens((side, side)) == prefix + grid
    assert torch.equal(model.grid_tokens(pictures(side)), model.tokens(pictures(side))[:, prefix:])


@torch.no_grad()
def test_open_clips_layers_are_its_blocks_outputs(open_clip_folder):
    folder = open_clip_folder("native")
    model = build_image_encoder(ImageEncoderConfig(name=f"local-dir:{folder}")).eval()
    plain = open_clip.create_model(f"local-dir:{folder}").visual.eval()
    images, seen = model.normalise(pictures(32)), []
    for block in plain.transformer.resblocks:
        block.register_forward_hook(lambda *args: seen.append(args[-1]))
    plain.transformer.resblocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    plain(images)
    for layer, wanted in enumerate(seen):
        torch.testing.assert_close(model.tokens_of(images, layer), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.tokens_of(images, layer - len(seen)), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(AssemblyError, match="feature_layer 3: there are 2 blocks to count; leave it out"):
        model.tokens_of(images, 3)
    resnet = build_image_encoder(ImageEncoderConfig(name=f"local-dir:{open_clip_folder('resnet')}"))
    with pytest.raises(AssemblyError, match="feature_layer -1: there are 0 blocks to count"):
        resnet.grid_tokens(pictures(64), -1)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_changed_pictures_are_normalised_ones(theirs, kind):
    model, plain = theirs(kind)
    seen = []

    def change(images):
        seen.append(images)
        return images * 0.5

    found = model.grid_tokens(pictures(32), change=change, prefix=True)
    assert torch.equal(seen[0], model.normalise(pictures(32)))
    assert torch.equal(found, plain(pixel_values=0.5 * seen[0]).last_hidden_state)


class Own(ImageEncoder):
    """An encoder that gives its output alone."""

    def tokens(self, pixels):
        return self.normalise(pixels).flatten(2).transpose(1, 2)


def test_an_encoder_that_gives_its_output_alone_says_so():
    model = Own(ImageEncoderConfig(name="timm:own"), ImagePreprocess(4, (0.5,) * 3, (0.5,) * 3))
    assert model.grid_tokens(pictures(4)).shape == (2, 16, 3)
    for given in ({"layer": -1}, {"change": lambda images: images}):
        with pytest.raises(AssemblyError, match="image encoder timm:own gives no tokens of a layer or of changed pictures"):
            model.grid_tokens(pictures(4), **given)
