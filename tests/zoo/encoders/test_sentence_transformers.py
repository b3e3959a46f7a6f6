"""Folders of sentence-transformers, old layout and new, against an oracle written out step by step.

The same comparisons were made once with the library itself (6.2.0; six poolings by five heads, with prompts): equal to the last bit.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from modalign.zoo.errors import AssemblyError, ReleaseError
from modalign.zoo.registry import FAMILIES

TEXTS = ["thing number 3", "Ding", "item number 1 2 3 4 5 6 7 8 9", "", "7"]
OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def sentence_folder(source, folder, *, pooling, modules=("Transformer", "Pooling"), old=True, length=8, prompts=None, inner=""):
    """A folder as the library writes it; `inner` is where old versions put the transformer."""
    shutil.copytree(source, folder / inner, dirs_exist_ok=True)
    entries = []
    for number, kind in enumerate(modules):
        place = inner if kind == "Transformer" else f"{number}_{kind}"
        entries.append(
            {"idx": number, "name": str(number), "path": place, "type": f"{OLD}{kind}" if old else NEW.get(kind, kind)}
        )
    write(folder / "modules.json", entries)
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 24, **pooling})
    write(folder / inner / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    write(folder / "config_sentence_transformers.json", {"prompts": prompts or {}, "default_prompt_name": None})
    for number, kind in enumerate(modules):
        if kind == "Dense":
            torch.manual_seed(0)
            about = {
                "in_features": 24,
                "out_features": 10,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            }
            write(folder / f"{number}_Dense" / "config.json", about)
            dense = torch.nn.Linear(24, 10)
            save_file({f"linear.{k}": v for k, v in dense.state_dict().items()}, folder / f"{number}_Dense" / "model.safetensors")
    return folder


def embedder(folder, **settings):
    return build_text_encoder(TextEmbedderConfig(f"local-dir:{folder}", **settings)).eval()


@torch.no_grad()
def oracle(source, texts, pooling, length=8, prefix=""):
    """One text at a time through transformers' own classes."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    vectors = []
    for text in texts:
        tokens = tokenizer(prefix + text, return_tensors="pt", truncation=True, max_length=length)
        states = model(**tokens).last_hidden_state[0]
        vectors.append(pooling(states))
    return torch.stack(vectors)


def weighted(states):
    steps = torch.arange(1, len(states) + 1.0)[:, None]
    return (states * steps).sum(0) / steps.sum()


POOLINGS = {
    "mean": ("pooling_mode_mean_tokens", lambda s: s.mean(0)),
    "cls": ("pooling_mode_cls_token", lambda s: s[0]),
    "max": ("pooling_mode_max_tokens", lambda s: s.max(0).values),
    "lasttoken": ("pooling_mode_lasttoken", lambda s: s[-1]),
    "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", lambda s: s.sum(0) / len(s) ** 0.5),
    "weightedmean": ("pooling_mode_weightedmean_tokens", weighted),
}


@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("old", [True, False])
def test_every_pooling_in_both_layouts(mode, old, tiny_embedder, tmp_path):
    key, by_hand = POOLINGS[mode]
    pooling = {other: other == key for other, _ in POOLINGS.values()} if old else {"pooling_mode": mode}
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling=pooling, old=old, inner="0_Transformer" if old else "")
    found = embedder(folder)
    torch.testing.assert_close(found.embed(TEXTS), oracle(tiny_embedder, TEXTS, by_hand), rtol=1e-5, atol=1e-6)
    assert found.max_length == 8
    assert found.tokenizer()(["thing " * 20])["ids"].shape[1] == 8


def test_dense_and_normalize_follow_in_order(tiny_embedder, tmp_path):
    modules = ("Transformer", "Pooling", "Dense", "Normalize")
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "mean"}, modules=modules, old=False)
    torch.manual_seed(0)
    dense = torch.nn.Linear(24, 10)
    wanted = torch.nn.functional.normalize(torch.tanh(dense(oracle(tiny_embedder, TEXTS, lambda s: s.mean(0)))), dim=-1)
    found = embedder(folder)
    torch.testing.assert_close(found.embed(TEXTS), wanted.detach(), rtol=1e-5, atol=1e-6)
    assert found.width == 10
    layers = {found.layer_of(name) for name, _ in found.named_parameters()}
    assert layers == {0, 1, 2, 3}


@pytest.mark.parametrize("width", [10, 24])
def test_dense_layers_that_add_their_input(width, tiny_embedder, tmp_path):
    modules = ("Transformer", "Pooling", "Dense")
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "mean"}, modules=modules, old=False)
    about = {"in_features": 24, "out_features": width, "bias": False, "use_residual": True}
    write(folder / "2_Dense" / "config.json", {**about, "activation_function": "torch.nn.modules.linear.Identity"})
    torch.manual_seed(0)
    state = {"linear.weight": torch.randn(width, 24)} | ({"residual.weight": torch.randn(width, 24)} if width == 10 else {})
    save_file(state, folder / "2_Dense" / "model.safetensors")
    pooled = oracle(tiny_embedder, TEXTS, lambda s: s.mean(0))
    wanted = pooled @ state["linear.weight"].T + (pooled @ state["residual.weight"].T if width == 10 else pooled)
    torch.testing.assert_close(embedder(folder).embed(TEXTS), wanted, rtol=1e-4, atol=1e-4)


def test_prompts(tiny_embedder, tmp_path):
    prompts = {"query": "query : ", "plain": ""}
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "mean"}, prompts=prompts)
    bare, asked = (
        oracle(tiny_embedder, TEXTS, lambda s: s.mean(0)),
        oracle(tiny_embedder, TEXTS, lambda s: s.mean(0), 8, "query : "),
    )
    torch.testing.assert_close(embedder(folder).embed(TEXTS), bare, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(embedder(folder, prompt="query").embed(TEXTS), asked, rtol=1e-5, atol=1e-6)
    write(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})
    torch.testing.assert_close(embedder(folder).embed(TEXTS), asked, rtol=1e-5, atol=1e-6)
    assert embedder(folder).identity()["prefix"] == "query : "
    with pytest.raises(ReleaseError, match="has no prompt 'querry'; did you mean 'query'"):
        embedder(folder, prompt="querry")
    with pytest.raises(AssemblyError, match="give prefix or prompt, not both"):
        embedder(folder, prompt="query", prefix="x")


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_in_a_release(kind, tiny_embedder, tmp_path, photos):
    modules = ("Transformer", "Pooling", "Dense", "Normalize")
    folder = sentence_folder(
        tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "cls"}, modules=modules, old=False, prompts={"query": "query : "}
    )
    settings = {
        "embed_dim": 12,
        "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
        "text_embedder": {"name": f"local-dir:{folder}", "prompt": "query"},
    }
    model = FAMILIES.get("clip").from_settings(settings).eval()
    wanted = model.encode_text(TEXTS)
    release = save_release(model, tmp_path / "release", kind=kind, public=kind == "full")
    if kind == "full":
        shutil.rmtree(folder)
    again = zoo.load(release)
    assert torch.equal(again.encode_text(TEXTS), wanted)
    assert {"text.head.0.linear.weight", "text.head.0.linear.bias"} <= set(again.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: write(f / "modules.json", [{"type": OLD + "WordEmbeddings", "path": ""}]), "its modules are WordEmbeddings"),
        (
            lambda f: write(f / "modules.json", [{"type": "my_code.Transformer", "path": ""}]),
            "is code of its own, which is never run",
        ),
        (lambda f: write(f / "modules.json", {"a": 1}), "cannot be read"),
        (
            lambda f: write(
                f / "modules.json",
                [{"type": OLD + k, "path": p} for k, p in (("Transformer", ""), ("Pooling", "1_Pooling"), ("LSTM", "2"))],
            ),
            "its module LSTM cannot be used here",
        ),
        (lambda f: write(f / "modules.json", [{"type": OLD + "Transformer", "path": "../../etc"}]), "lies outside the folder"),
        (lambda f: write(f / "1_Pooling" / "config.json", {"pooling_mode": ["mean", "cls"]}), "pools by mean and cls; one of"),
        (lambda f: write(f / "1_Pooling" / "config.json", {}), "pools by nothing"),
        (lambda f: write(f / "sentence_bert_config.json", {"transformer_task": "fill-mask"}), "is for 'fill-mask'"),
        (
            lambda f: write(
                f / "sentence_bert_config.json", {"modality_config": {"text": {"method_output_name": "pooler_output"}}}
            ),
            "read off at 'pooler_output'",
        ),
        (lambda f: (f / "1_Pooling" / "config.json").unlink(), "cannot be read"),
    ],
)
def test_what_cannot_be_expressed_is_refused(change, message, tiny_embedder, tmp_path):
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "mean"})
    change(folder)
    with pytest.raises(ReleaseError) as caught:
        embedder(folder)
    assert message in str(caught.value)


def test_dense_layers_that_cannot_be_expressed(tiny_embedder, tmp_path):
    folder = sentence_folder(
        tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "mean"}, modules=("Transformer", "Pooling", "Dense")
    )
    path = folder / "2_Dense" / "config.json"
    about = json.loads(path.read_text())
    write(path, {**about, "activation_function": "os.system"})
    with pytest.raises(ReleaseError, match="its dense layer uses 'system'; known: Tanh"):
        embedder(folder)
    write(path, {**about, "out_features": 11})
    with pytest.raises(ReleaseError, match="2_Dense: the weights are not those of the description"):
        embedder(folder)
    write(path, about)
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ReleaseError, match="the dense layer in 2_Dense has no weights"):
        embedder(folder)


def test_a_setting_that_contradicts_the_folder(tiny_embedder, tmp_path):
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "cls"})
    with pytest.raises(AssemblyError, match="pooling: mean, but its folder says cls; leave it out"):
        embedder(folder, pooling="mean")
    assert embedder(folder, pooling="cls", max_length=5).max_length == 5, "a shorter length is the user's choice"


def test_lower_case(tiny_embedder, tmp_path):
    folder = sentence_folder(tiny_embedder, tmp_path / "st", pooling={"pooling_mode": "mean"})
    write(folder / "sentence_bert_config.json", {"max_seq_length": 8, "do_lower_case": True})
    found = embedder(folder)
    assert torch.equal(found.embed(["THING Number"]), found.embed(["thing number"]))
    assert found.identity()["lower"] is True
