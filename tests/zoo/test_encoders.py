"""Encoders: the contract of image encoders, their cuts, text pooling against slow oracles, CLIP's tower against open_clip."""

import json
import pickle
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from modalign.zoo.encoders.clip_text import ClipTextConfig, ClipTextTower
from modalign.zoo.encoders.image import ImageEncoder, ImageEncoderConfig
from modalign.zoo.encoders.text_embedder import TextEmbedder, TextEmbedderConfig, pool
from modalign.zoo.errors import AssemblyError, NameGrammarError

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
            encoder = ImageEncoder(ImageEncoderConfig(name=source, pretrained=False))
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
    assert features.shape[2] == encoder.trunk.num_features
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
        ImageEncoder(ImageEncoderConfig("timm:test_vitt", pretrained=False))
    with pytest.raises(NameGrammarError, match="an image encoder is timm:NAME"):
        ImageEncoder(ImageEncoderConfig("open_clip:ViT-B-32"))
    with pytest.raises(NameGrammarError, match=r"has no config\.json"):
        ImageEncoder(ImageEncoderConfig(str(tmp_path)))


def test_local_folder_gives_its_weights_and_size(tmp_path, pixels):
    name = own_model(tmp_path / "mine", "test_vit", pre_norm=True)
    encoder = ImageEncoder(ImageEncoderConfig(name)).eval()
    torch.manual_seed(3)
    wanted = timm.create_model("test_vit", pretrained=False, num_classes=0, pre_norm=True).state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in encoder.trunk.state_dict().items())
    assert encoder.preprocess.size == wanted_size("test_vit")
    other = ImageEncoder(ImageEncoderConfig(name, pretrained=False))
    assert not torch.equal(other.trunk.blocks[0].attn.qkv.weight, wanted["blocks.0.attn.qkv.weight"])


def wanted_size(name):
    return timm.create_model(name, pretrained=False).pretrained_cfg["input_size"][-1]


def test_saved_shape_builds_without_the_source(tmp_path, pixels):
    name = own_model(tmp_path / "mine", "test_vit", pre_norm=True)
    encoder = ImageEncoder(ImageEncoderConfig(name, drop_path=0.1)).eval()
    (tmp_path / "shape").mkdir()
    encoder.save_processor(tmp_path / "shape")
    shutil.rmtree(tmp_path / "mine")
    again = ImageEncoder(encoder.config, load_weights=False, preprocess=encoder.preprocess.to_dict(), folder=tmp_path / "shape")
    again.load_state_dict(encoder.state_dict())
    assert again.preprocess == encoder.preprocess
    assert torch.equal(again.eval().pooled(pixels), encoder.pooled(pixels))
    assert [type(m).__name__ for m in again.modules()] == [type(m).__name__ for m in encoder.modules()]


def test_own_image_size_keeps_the_whole_picture():
    theirs = ImageEncoder(ImageEncoderConfig("timm:test_vit", pretrained=False)).preprocess
    ours = ImageEncoder(ImageEncoderConfig("timm:test_efficientnet", image_size=64, pretrained=False)).preprocess
    assert theirs.crop_fraction == timm.create_model("test_vit", pretrained=False).pretrained_cfg["crop_pct"]
    assert (ours.size, ours.crop_fraction) == (64, 1.0)


# text


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_against_a_slow_oracle(side):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(5, 7, 4, generator=generator)
    lengths = [7, 1, 3, 6, 2]
    mask = torch.zeros(5, 7, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(7 - length, 7)] = 1
    real = [[states[row, t] for t in range(7) if mask[row, t]] for row in range(5)]
    oracles = {
        "mean": [sum(tokens) / len(tokens) for tokens in real],
        "last": [tokens[-1] for tokens in real],
        "cls": [tokens[0] for tokens in real],
    }
    for pooling, wanted in oracles.items():
        torch.testing.assert_close(pool(states, mask, pooling), torch.stack(wanted), rtol=1e-6, atol=1e-6)
    padded = torch.where(mask[..., None].bool(), states, torch.full_like(states, 1e4))
    for pooling in oracles:
        assert torch.equal(pool(padded, mask, pooling), pool(states, mask, pooling)), "what is padded has no say"


def embedder_of(folder, **settings):
    return TextEmbedder(TextEmbedderConfig(name=f"local-dir:{folder}", **({"max_length": 16} | settings))).eval()


TEXTS = ["thing number 3", "Ding", "item number 1 2 3 4 5", "query : thing", "", "thing thing", "Nummer 59 item", "7"]


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_embedding_is_the_pooled_transformer_alone(tiny_embedder, pooling):
    """One text at a time, without padding, through transformers' own classes."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(tiny_embedder).eval(), AutoTokenizer.from_pretrained(tiny_embedder)
    for prefix in ("", "query: "):
        found = embedder_of(tiny_embedder, pooling=pooling, prefix=prefix).embed(TEXTS)
        for text, vector in zip(TEXTS, found, strict=True):
            with torch.no_grad():
                states = model(**tokenizer(prefix + text, return_tensors="pt")).last_hidden_state[0]
            wanted = {"mean": states.mean(0), "last": states[-1], "cls": states[0]}[pooling]
            torch.testing.assert_close(vector, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_left_padding_pools_the_same_tokens(tiny_embedder, pooling):
    """Position ids move with the padding in BERT, so only the tokens that are pooled are compared, not the vectors."""
    embedder = embedder_of(tiny_embedder, pooling=pooling)
    embedder._tokenizer.padding_side = "left"
    tokens = embedder.tokenizer()(TEXTS)
    assert tokens["mask"][1, 0] == 0
    states = torch.nn.functional.one_hot(tokens["ids"], 80).float()
    embedder._tokenizer.padding_side = "right"
    straight = embedder.tokenizer()(TEXTS)
    wanted = pool(torch.nn.functional.one_hot(straight["ids"], 80).float(), straight["mask"], pooling)
    torch.testing.assert_close(pool(states, tokens["mask"], pooling), wanted)


def test_prefix_and_length(tiny_embedder):
    tokenize = embedder_of(tiny_embedder, prefix="query: ", max_length=6).tokenizer()
    tokens = tokenize(["thing", "thing number 1 2 3 4 5 6"])
    assert tokens["ids"].tolist() == [[2, 9, 10, 4, 3, 0], [2, 9, 10, 4, 6, 3]], "cut to six tokens, the end token kept"
    assert tokens["mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert tokens["ids"].dtype == tokens["mask"].dtype == torch.int64
    again = pickle.loads(pickle.dumps(tokenize))
    assert torch.equal(again(["thing"])["ids"], tokenize(["thing"])["ids"]), "it travels to worker processes"


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_embed_is_independent_of_order_and_batch_size(tiny_embedder, pooling):
    embedder = embedder_of(tiny_embedder, pooling=pooling)
    whole = embedder.embed(TEXTS)
    assert whole.shape == (len(TEXTS), embedder.width)
    assert (whole.dtype, whole.device.type) == (torch.float32, "cpu")
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for batch_size in (1, 3, 100):
        shuffled = embedder.embed([TEXTS[i] for i in order], batch_size)
        torch.testing.assert_close(shuffled, whole[order], rtol=1e-5, atol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-3
    assert embedder.embed([]).shape == (0, embedder.width)


def test_embedder_without_weights_has_the_shape_only(tiny_embedder):
    full, bare = embedder_of(tiny_embedder), embedder_of(tiny_embedder, pretrained=False)
    assert {k: v.shape for k, v in full.state_dict().items()} == {k: v.shape for k, v in bare.state_dict().items()}
    assert not torch.equal(full.model.embeddings.word_embeddings.weight, bare.model.embeddings.word_embeddings.weight)
    assert not any("pooler" in name for name in full.state_dict()), "an unused part never gets a gradient"


def test_embedder_identity_is_what_changes_vectors(tiny_embedder):
    one = embedder_of(tiny_embedder, pooling="cls", prefix="q", max_length=9).identity()
    assert one == {"pooling": "cls", "prefix": "q", "max_length": 9}


def test_wrong_embedders_are_refused(tiny_embedder, tmp_path):
    with pytest.raises(NameGrammarError, match="a text embedder is asset:NAME, hf:ORG/NAME or a Hugging Face folder"):
        TextEmbedder(TextEmbedderConfig("timm:resnet18"))
    folder = tmp_path / "no_pad"
    shutil.copytree(tiny_embedder, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "pad_token"}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(NameGrammarError, match="its tokenizer has no pad token"):
        TextEmbedder(TextEmbedderConfig(str(folder)))


# CLIP's tower

SMALL = ClipTextConfig(context_length=12, width=16, heads=2, layers=2, embed_dim=10)
CLIP_TEXTS = [
    "a red apple",
    "",
    "A Photo of  two birds, sitting on the very long wire between the houses of the town",
    "Straße 東京",
]


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return ClipTextTower(SMALL).eval()


def test_clip_tokenizer_is_open_clips(tower):
    import open_clip

    tokens = tower.tokenizer()(CLIP_TEXTS)
    assert torch.equal(tokens["ids"], open_clip.SimpleTokenizer(context_length=12)(CLIP_TEXTS))
    assert tokens["ids"].shape == tokens["mask"].shape == (4, 12)
    for ids, mask in zip(tokens["ids"].tolist(), tokens["mask"].tolist(), strict=True):
        assert ids[0] == 49406
        end = ids.index(49407)
        assert mask == [1] * (end + 1) + [0] * (11 - end)
    assert tokens["ids"][2, -1] == 49407, "a text that is cut still ends"
    assert pickle.loads(pickle.dumps(tower.tokenizer()))(CLIP_TEXTS)["ids"].equal(tokens["ids"])


@torch.no_grad()
def test_clip_tower_equals_open_clips_text_transformer(tower):
    from open_clip.transformer import TextTransformer

    theirs = TextTransformer(context_length=12, vocab_size=49408, width=16, heads=2, layers=2, output_dim=10).eval()
    theirs.load_state_dict(tower.model.state_dict())
    tokens = tower.tokenizer()(CLIP_TEXTS)
    out = tower(tokens["ids"], tokens["mask"])
    assert out.shape == (4, tower.width) == (4, 10)
    assert torch.equal(out, theirs(tokens["ids"]))


@torch.no_grad()
def test_clip_tower_reads_the_end_token_and_nothing_after_it(tower):
    tokens = tower.tokenizer()(CLIP_TEXTS)
    out = tower(tokens["ids"], tokens["mask"])
    changed = torch.where(tokens["mask"].bool(), tokens["ids"], torch.full_like(tokens["ids"], 77))
    torch.testing.assert_close(tower(changed, tokens["mask"]), out, rtol=1e-5, atol=1e-6)
    states = {}
    hook = tower.model.ln_final.register_forward_hook(lambda module, inputs, output: states.update(final=output))
    tower(tokens["ids"], tokens["mask"])
    hook.remove()
    ends = tokens["mask"].sum(1) - 1
    for row, end in enumerate(ends.tolist()):
        torch.testing.assert_close(out[row], states["final"][row, end] @ tower.model.text_projection, rtol=1e-5, atol=1e-6)


def test_clip_tower_embed_and_identity(tower):
    whole = tower.embed(CLIP_TEXTS)
    one_by_one = torch.cat([tower.embed([text]) for text in CLIP_TEXTS])
    torch.testing.assert_close(tower.embed(CLIP_TEXTS[::-1], 3), whole.flip(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-5, atol=1e-5)
    assert tower.identity() == {"context_length": 12, "width": 16, "heads": 2, "layers": 2, "embed_dim": 10}
