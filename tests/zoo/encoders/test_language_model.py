"""Causal language models as text embedders: which way their tokens look, padding on either side, and what is refused."""

import json
import shutil

import pytest
import torch
import transformers

from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from modalign.zoo.errors import AssemblyError, ReleaseError

SIZE = {"vocab_size": 80, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
LLAMA = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": transformers.LlamaConfig(**SIZE, **LLAMA, num_key_value_heads=1),
    "gpt2": transformers.GPT2Config(
        **SIZE, n_embd=24, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    ),
    "qwen2": transformers.Qwen2Config(**SIZE, **LLAMA, num_key_value_heads=1),
    "qwen3": transformers.Qwen3Config(**SIZE, **LLAMA, num_key_value_heads=1, head_dim=12),
    "mistral": transformers.MistralConfig(**SIZE, **LLAMA, num_key_value_heads=1, sliding_window=16),
    "stablelm": transformers.StableLmConfig(**SIZE, **{**LLAMA, "hidden_size": 32}, num_key_value_heads=2),
}
TEXTS = ["thing number 3", "Ding", "item number 1 2 3 4 5", "thing thing", "7"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tiny_embedder):
    """Name -> folder of a random causal language model with a word tokenizer."""
    made = {}

    def folder(name):
        if name not in made:
            place = tmp_path_factory.mktemp("lm") / name
            torch.manual_seed(0)
            transformers.AutoModelForCausalLM.from_config(MODELS[name]).save_pretrained(place)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(tiny_embedder / file, place / file)
            made[name] = place
        return made[name]

    return folder


def embedder(folder, **settings):
    return build_text_encoder(TextEmbedderConfig(f"local-dir:{folder}", **settings)).eval()


@torch.no_grad()
def first_state_moves(encoder, mask=None):
    """How far the first token's state moves when the last token changes."""
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    other = torch.tensor([[5, 6, 7, 8, 40]])
    mask = torch.ones_like(ids) if mask is None else mask
    states = [encoder.model(input_ids=row, attention_mask=mask).last_hidden_state[0, mask[0].argmax()] for row in (ids, other)]
    return (states[0] - states[1]).abs().max().item()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bidirectional", [True, False, None])
@pytest.mark.parametrize("padded", [False, True])
def test_which_way_tokens_look(name, bidirectional, padded, folder_of):
    """With and without padding: transformers drops the mask where there is none, and fused kernels have a flag of their own."""
    encoder = embedder(folder_of(name), bidirectional=bidirectional)
    mask = torch.tensor([[0, 1, 1, 1, 1]]) if padded else None
    moved = first_state_moves(encoder, mask)
    assert moved > 1e-4 if bidirectional else moved == 0.0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls", "weighted_mean"])
def test_padding_on_either_side_changes_nothing(name, bidirectional, pooling, folder_of):
    encoder = embedder(folder_of(name), bidirectional=bidirectional, pooling=pooling)
    alone = torch.cat([encoder.embed([text]) for text in TEXTS])
    torch.testing.assert_close(encoder.embed(TEXTS), alone, rtol=1e-4, atol=1e-5)
    tokens = encoder.tokenizer()(TEXTS)
    assert tokens["mask"][1, -1] == 0
    encoder._tokenizer.padding_side = "left"
    left = encoder.tokenizer()(TEXTS)
    assert left["mask"][1, 0] == 0
    with torch.no_grad():
        torch.testing.assert_close(encoder(left["ids"], left["mask"]), alone, rtol=1e-4, atol=1e-5)
        noise = torch.where(left["mask"].bool(), left["ids"], torch.full_like(left["ids"], 33))
        torch.testing.assert_close(encoder(noise, left["mask"]), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@torch.no_grad()
def test_states_are_the_language_models_own(name, folder_of):
    encoder = embedder(folder_of(name), pooling="last")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder_of(name)).eval()
    for text in TEXTS:
        tokens = encoder.tokenizer()([text])
        states = model(input_ids=tokens["ids"], output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(encoder.embed([text])[0], states[0, -1], rtol=1e-5, atol=1e-5)


def test_saved_and_built_again(folder_of, tmp_path):
    encoder = embedder(folder_of("llama"), bidirectional=True)
    encoder.save_processor(tmp_path)
    again = build_text_encoder(encoder.config, load_weights=False, folder=tmp_path).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.embed(TEXTS), encoder.embed(TEXTS))
    assert first_state_moves(again) > 1e-4
    assert encoder.identity()["bidirectional"] is True
    assert "bidirectional" not in embedder(folder_of("llama")).identity()


def test_a_configuration_that_says_it_is_bidirectional(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("llama"), tmp_path / "llama")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "is_causal": False}))
    assert first_state_moves(embedder(folder)) > 1e-4, "as the checkpoint was trained"
    with pytest.raises(AssemblyError, match=r"its config\.json says is_causal: false"):
        embedder(folder, bidirectional=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            transformers.GPTNeoConfig(
                **SIZE,
                hidden_size=24,
                num_layers=2,
                num_heads=2,
                attention_types=[[["global", "local"], 1]],
                max_position_embeddings=64,
            ),
            "its layers are causal by themselves",
        ),
        (
            transformers.MambaConfig(**SIZE, hidden_size=24, num_hidden_layers=1, state_size=4),
            "its layers are causal by themselves",
        ),
    ],
)
def test_models_that_stay_causal_are_refused(config, message, tmp_path, tiny_embedder):
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "lm")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_embedder / file, tmp_path / "lm" / file)
    with pytest.raises(AssemblyError, match=message):
        embedder(tmp_path / "lm", bidirectional=True)
    assert first_state_moves(embedder(tmp_path / "lm")) == 0.0


def test_bert_looks_both_ways_already(tiny_embedder):
    assert first_state_moves(embedder(tiny_embedder, bidirectional=True)) > 1e-4
    with pytest.raises(AssemblyError, match="its layers look both ways; leave it out"):
        embedder(tiny_embedder, bidirectional=False)


def test_an_empty_text_without_any_token(folder_of, tmp_path):
    """A tokenizer that adds nothing gives an empty text no token; one padding token stands for it."""
    folder = shutil.copytree(folder_of("llama"), tmp_path / "llama")
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**values, "post_processor": None}))
    encoder = embedder(folder)
    tokens = encoder.tokenizer()(["", "thing"])
    assert tokens["ids"].tolist() == [[0], [4]]
    assert tokens["mask"].tolist() == [[1], [1]]
    alone = encoder.tokenizer()([""])
    assert (alone["ids"].tolist(), alone["mask"].tolist()) == ([[0]], [[1]])
    torch.testing.assert_close(encoder.embed(["", "thing"])[0], encoder.embed([""])[0], rtol=1e-5, atol=1e-6)
    assert torch.isfinite(encoder.embed(["", "thing"])).all()


def test_stories_260k(real_data):
    """A real, tiny Llama."""
    folder = real_data / "weights_stories260K" / "hf"
    texts = ["Once upon a time there was a dog.", "A cat sat on the mat.", "One day"]
    causal, both = embedder(folder, bidirectional=False), embedder(folder, bidirectional=True)
    assert first_state_moves(causal) == 0.0
    assert first_state_moves(both) > 1e-5
    for encoder in (causal, both):
        alone = torch.cat([encoder.embed([text]) for text in texts])
        torch.testing.assert_close(encoder.embed(texts), alone, rtol=1e-3, atol=1e-4)
    assert (causal.embed(texts) - both.embed(texts)).abs().max() > 1e-2
    near = torch.nn.functional.cosine_similarity(*causal.embed(["A big red ball.", "A large red ball."]), dim=0)
    far = torch.nn.functional.cosine_similarity(*causal.embed(["A big red ball.", "He was sad and ran home."]), dim=0)
    assert near > far


def test_encoders_of_models_with_a_decoder(tmp_path, tiny_embedder):
    config = transformers.T5Config(vocab_size=80, d_model=24, d_kv=12, d_ff=48, num_layers=2, num_heads=2, pad_token_id=0)
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_embedder / file, tmp_path / "t5" / file)
    encoder = embedder(tmp_path / "t5")
    model = transformers.T5EncoderModel.from_pretrained(tmp_path / "t5").eval()
    tokens = encoder.tokenizer()(TEXTS[:1])
    with torch.no_grad():
        wanted = model(input_ids=tokens["ids"]).last_hidden_state[0].mean(0)
    torch.testing.assert_close(encoder.embed(TEXTS[:1])[0], wanted, rtol=1e-5, atol=1e-6)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())


# code that comes with weights


PAYLOAD = "open({marker!r}, 'w').write('ran')\n"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("model_type", ["llama", "my_own_model"])
def test_code_that_comes_with_weights_never_runs(file, model_type, folder_of, tmp_path):
    folder = shutil.copytree(folder_of("llama"), tmp_path / "llama")
    marker = tmp_path / "marker"
    for module in ("configuration_mine.py", "modeling_mine.py", "tokenization_mine.py"):
        (folder / module).write_text(PAYLOAD.format(marker=str(marker)))
    values = json.loads((folder / file).read_text())
    asked = {
        "AutoConfig": "configuration_mine.Config",
        "AutoModel": "modeling_mine.Model",
        "AutoTokenizer": ["tokenization_mine.T", None],
    }
    (folder / file).write_text(
        json.dumps({**values, "auto_map": asked, **({"model_type": model_type} if file == "config.json" else {})})
    )
    with pytest.raises(ReleaseError, match="auto_map asks to run code that comes with the weights"):
        embedder(folder)
    with pytest.raises(ReleaseError, match="auto_map asks to run code that comes with the weights"):
        build_image_encoder(ImageEncoderConfig(f"local-dir:{folder}"))
    assert not marker.exists()
