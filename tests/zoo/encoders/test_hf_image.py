"""Image encoders from transformers: their vectors, their processors' pixels, and what cannot be followed."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.errors import AssemblyError, NameGrammarError, ReleaseError
from modalign.zoo.registry import FAMILIES

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
SQUASH = {"size": {"height": 32, "width": 32}}
CROP = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
CLIP_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60}
NO_TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}

#: configuration, processor, and how the model's own vector is read off
MODELS = {
    "vit": (transformers.ViTConfig(**TINY), transformers.ViTImageProcessor(**SQUASH), lambda out: out.last_hidden_state[:, 0]),
    "deit": (transformers.DeiTConfig(**TINY), transformers.DeiTImageProcessor(**CROP), lambda out: out.last_hidden_state[:, 0]),
    "dinov2": (
        transformers.Dinov2Config(**{**TINY, "image_size": 56}, mlp_ratio=2),
        transformers.BitImageProcessor(**CROP),
        lambda out: out.pooler_output,
    ),
    "siglip": (
        transformers.SiglipVisionConfig(**TINY),
        transformers.SiglipImageProcessor(**SQUASH),
        lambda out: out.pooler_output,
    ),
    "clip": (transformers.CLIPVisionConfig(**TINY), transformers.CLIPImageProcessor(**CROP), lambda out: out.pooler_output),
    "clip_whole": (
        transformers.CLIPConfig(vision_config=TINY, text_config={**CLIP_TEXT, **NO_TOKENS}, projection_dim=8),
        transformers.CLIPImageProcessor(**CROP),
        lambda out: out.pooler_output,
    ),
    "convnext": (
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 64}),
        lambda out: out.pooler_output,
    ),
    "convnext_384": (
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
        lambda out: out.pooler_output,
    ),
    "resnet": (
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], layer_type="basic"),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 64}),
        lambda out: out.pooler_output.flatten(1),
    ),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, vision_writer):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = vision_writer(tmp_path_factory.mktemp("vision") / name, *MODELS[name][:2])
        return made[name]

    return folder


def encoder_of(folder, **settings):
    return build_image_encoder(ImageEncoderConfig(f"local-dir:{folder}", **settings)).eval()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_vectors_are_the_models_own(name, folder_of, photos):
    """Through transformers' own classes, from the picture to the vector; its PIL processor, which ours follows."""
    folder = folder_of(name)
    encoder = encoder_of(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "vision_model", model)
    colour = photos[:6]
    pixels = torch.stack([torch.as_tensor(processor(photo, return_tensors="np")["pixel_values"][0]) for photo in colour])
    ours = encoder.normalise(torch.stack([encoder.preprocess(photo) for photo in colour]))
    torch.testing.assert_close(ours, pixels, rtol=0, atol=1e-5)
    if name == "vit":
        model = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    wanted = MODELS[name][2](model(pixel_values=pixels))
    found = encoder.pooled(torch.stack([encoder.preprocess(photo) for photo in colour]))
    assert found.shape == (6, encoder.width)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3
    tokens, mask = encoder(torch.stack([encoder.preprocess(photo) for photo in colour]))
    assert tokens.shape == (6, encoder.num_tokens((encoder.preprocess.size,) * 2), encoder.token_width)
    assert mask.all()


@pytest.mark.parametrize("name", MODELS)
def test_contract(name, folder_of, tmp_path):
    encoder = encoder_of(folder_of(name))
    assert encoder.cuts() == ["output"]
    names = [parameter for parameter, _ in encoder.named_parameters()]
    layers = [encoder.layer_of(parameter) for parameter in names]
    assert max(layers) <= encoder.num_layers - 1
    assert min(layers) == 0
    assert sorted(set(layers)) == list(range(max(layers) + 1))
    assert layers[names.index(names[0])] == 0, "the first parameter of these models is of the embeddings"
    assert all(encoder.lies_below(parameter, "output") for parameter in names)
    (tmp_path / "shape").mkdir()
    encoder.save_processor(tmp_path / "shape")
    again = build_image_encoder(
        encoder.config, load_weights=False, preprocess=encoder.preprocess.to_dict(), folder=tmp_path / "shape"
    ).eval()
    again.load_state_dict(encoder.state_dict())
    pixels = torch.randint(0, 256, (2, 3, *(encoder.preprocess.size,) * 2), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again.pooled(pixels), encoder.pooled(pixels))
    bare = encoder_of(folder_of(name), pretrained=False)
    assert not torch.equal(next(bare.parameters()), next(encoder.parameters()))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_pooling_of_ones_own(pooling, folder_of):
    encoder = encoder_of(folder_of("dinov2"), pooling=pooling)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = encoder(pixels)[0]
    assert torch.equal(encoder.pooled(pixels), tokens[:, 0] if pooling == "cls" else tokens.mean(1))
    with pytest.raises(AssemblyError, match="pooling: 'max' is neither cls nor mean"):
        encoder_of(folder_of("dinov2"), pooling="max")


def test_own_image_size(folder_of):
    encoder = encoder_of(folder_of("vit"), image_size=48)
    assert encoder.preprocess.size == 48
    assert encoder.num_tokens((48, 48)) == 37
    assert encoder_of(folder_of("clip"), image_size=64).preprocess.resized_side == 72, "the crop keeps its share"


@pytest.mark.parametrize("name", ["vit", "siglip", "dinov2"])
def test_gradient_checkpointing_gives_the_same_gradients(name, folder_of):
    encoder = encoder_of(folder_of(name)).train()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inner = next(module for path, module in encoder.named_modules() if path.endswith((".0.attention", ".0.self_attn")))
    calls, gradients = [], []
    inner.register_forward_pre_hook(lambda *_: calls.append(1))
    for enable in (False, True):
        encoder.set_grad_checkpointing(enable)
        encoder.zero_grad(set_to_none=True)
        encoder.pooled(pixels).pow(2).sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert len(calls) == 3
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_in_a_release(folder_of, tiny_embedder, photos, tmp_path):
    source = shutil.copytree(folder_of("siglip"), tmp_path / "source")
    settings = {"embed_dim": 16, "image": {"name": str(source)}, "text_embedder": {"name": str(tiny_embedder), "max_length": 16}}
    model = FAMILIES.get("clip").from_settings(settings).eval()
    wanted = model.encode_image(photos)
    adapter = save_release(model, tmp_path / "adapter", kind="adapter", public=False)
    assert torch.equal(zoo.load(adapter).encode_image(photos), wanted)
    full = save_release(model, tmp_path / "full")
    for path in full.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
    shutil.rmtree(source)
    assert torch.equal(zoo.load(full).encode_image(photos), wanted)
    with pytest.raises(ReleaseError, match="which cannot be had"):
        zoo.load(adapter)


# what cannot be followed


def edit(path, **changes):
    values = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resize": False}, "does not resize"),
        ({"do_rescale": False}, "scales pixels by"),
        ({"rescale_factor": 1 / 127.5}, "scales pixels by"),
        ({"do_pad": True}, "fills pictures to a common size"),
        ({"size": {"height": 32, "width": 48}}, "not squares"),
        ({"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 24}, "do_center_crop": True}, "not to a square"),
        ({"resample": 4}, "resizes by filter 4"),
    ],
)
def test_processors_that_cannot_be_followed(changes, message, folder_of, tmp_path):
    folder = shutil.copytree(folder_of("clip"), tmp_path / "clip")
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ReleaseError) as caught:
        encoder_of(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (transformers.LevitImageProcessor, "does more than its settings say: its pixels are"),
        (transformers.MobileViTImageProcessor, "takes blue before red"),
    ],
)
def test_steps_that_settings_do_not_tell(processor, message, folder_of, tmp_path):
    """LeViT's class resizes to 256/224 of what its settings say: a probe picture finds out. MobileViT's swaps red and blue."""
    folder = shutil.copytree(folder_of("clip"), tmp_path / "clip")
    processor(**CROP).save_pretrained(folder)
    with pytest.raises(ReleaseError, match=message):
        encoder_of(folder)


def test_preprocessing_is_never_a_default(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("vit"), tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ReleaseError, match=r"has no preprocessor_config\.json, so nothing says how pictures are prepared"):
        encoder_of(folder)


def test_sizes_that_do_not_fit(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("vit"), tmp_path / "vit")
    edit(folder / "preprocessor_config.json", size={"height": 48, "width": 48})
    with pytest.raises(
        AssemblyError, match="the network takes 32 pixels, its preprocessing gives 48; give image_size to resample"
    ):
        encoder_of(folder)


def test_weights_that_are_not_all_there(folder_of, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folder_of("vit"), tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if "attention" in key)
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ReleaseError, match="its weights lack"):
        encoder_of(folder)


def test_settings_that_mean_nothing(folder_of, tiny_embedder):
    with pytest.raises(AssemblyError, match=r"drop_path: 0\.1 has no meaning for a transformers model"):
        encoder_of(folder_of("vit"), drop_path=0.1)
    with pytest.raises(NameGrammarError, match="holds no image encoder"):
        encoder_of(tiny_embedder)


def test_grey_and_transparent_pictures(folder_of):
    """Pictures of other modes become RGB first, here as everywhere in this project; transparent is white."""
    preprocess = encoder_of(folder_of("clip")).preprocess
    clear = Image.new("RGBA", (50, 40), (255, 0, 0, 0))
    assert bool((preprocess(clear) == 255).all())
    grey = Image.fromarray(np.full((40, 50), 77, dtype=np.uint8))
    assert bool((preprocess(grey) == 77).all())
