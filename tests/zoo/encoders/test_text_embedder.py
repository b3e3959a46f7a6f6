"""Text embedders of transformers: pooling against slow oracles, padding, prefix, length, refusals."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from modalign.zoo.encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from modalign.zoo.encoders.text.pooling import pool
from modalign.zoo.errors import AssemblyError, NameGrammarError, ReleaseError


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
        "max": [torch.stack(tokens).max(0).values for tokens in real],
        "mean_sqrt": [sum(tokens) / len(tokens) ** 0.5 for tokens in real],
        "weighted_mean": [
            sum(t * token for t, token in enumerate(tokens, 1)) / sum(range(1, len(tokens) + 1)) for tokens in real
        ],
    }
    for pooling, wanted in oracles.items():
        torch.testing.assert_close(pool(states, mask, pooling), torch.stack(wanted), rtol=1e-6, atol=1e-6)
    padded = torch.where(mask[..., None].bool(), states, torch.full_like(states, 1e4))
    for pooling in oracles:
        assert torch.equal(pool(padded, mask, pooling), pool(states, mask, pooling)), "what is padded has no say"


def embedder_of(folder, **settings):
    return build_text_encoder(TextEmbedderConfig(name=f"local-dir:{folder}", **({"max_length": 16} | settings))).eval()


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


def without_tokens(source, folder, *absent):
    """A copy of a folder whose tokenizer lacks some special tokens."""
    shutil.copytree(source, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k not in absent}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    return folder


def test_wrong_embedders_are_refused(tiny_embedder, tmp_path):
    with pytest.raises(NameGrammarError, match="a text encoder is asset:NAME, hf:ORG/NAME, open_clip:MODEL/TAG or a folder"):
        build_text_encoder(TextEmbedderConfig("timm:resnet18"))
    folder = without_tokens(tiny_embedder, tmp_path / "no_pad", "pad_token", "sep_token")
    with pytest.raises(NameGrammarError, match="its tokenizer has no pad token and no end token"):
        build_text_encoder(TextEmbedderConfig(str(folder)))
    with pytest.raises(AssemblyError, match="max_length: 64, but the model takes at most 32 tokens"):
        embedder_of(tiny_embedder, max_length=64)
    with pytest.raises(AssemblyError, match="prompt: only sentence-transformers folders have prompts"):
        embedder_of(tiny_embedder, prompt="query")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NameGrammarError, match=r"empty holds no text encoder; looked for modules\.json"):
        build_text_encoder(TextEmbedderConfig(str(tmp_path / "empty")))
    with pytest.raises(AssemblyError, match=r"there is no encoder named 'text.transformer'; did you mean 'text.transformers'"):
        embedder_of(tiny_embedder, kind="transformer")


def test_missing_weights_are_named(tiny_embedder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_embedder, tmp_path / "holes")
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ReleaseError, match=r"its weights lack encoder\.layer\.1\.output\.dense\.weight"):
        embedder_of(folder)


def test_padding_with_the_end_token_changes_nothing(tiny_embedder, tmp_path):
    """Without a padding token the end token pads; masks say what is text, so the vectors are the same."""
    folder = without_tokens(tiny_embedder, tmp_path / "no_pad", "pad_token")
    bare, whole = embedder_of(folder), embedder_of(tiny_embedder)
    assert bare.tokenizer()(TEXTS)["ids"][1, -1] == 3, "padded with [SEP]"
    torch.testing.assert_close(bare.embed(TEXTS), whole.embed(TEXTS), rtol=1e-6, atol=1e-6)


def test_default_length_is_what_the_model_takes(tiny_embedder):
    assert build_text_encoder(TextEmbedderConfig(str(tiny_embedder))).max_length == 32


def test_layers_number_the_depth(tiny_embedder):
    embedder = embedder_of(tiny_embedder)
    layers = {name: embedder.layer_of(name) for name, _ in embedder.named_parameters()}
    assert embedder.num_layers == 4
    assert {layer for name, layer in layers.items() if ".embeddings." in name} == {0}
    assert {layer for name, layer in layers.items() if ".layer.1." in name} == {2}


def test_gradient_checkpointing_gives_the_same_gradients(tiny_embedder):
    plain, saving = embedder_of(tiny_embedder).train(), embedder_of(tiny_embedder).train()
    saving.set_grad_checkpointing(True)
    calls = []
    saving.model.encoder.layer[0].attention.register_forward_pre_hook(lambda *_: calls.append(1))
    tokens = plain.tokenizer()(TEXTS)
    for embedder in (plain, saving):
        (embedder(tokens["ids"], tokens["mask"]) ** 2).sum().backward()
    assert len(calls) == 2, "run forward, and once more for the backward pass"
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
