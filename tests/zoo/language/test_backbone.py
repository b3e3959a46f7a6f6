"""The decoder backbone: any causal language model, first blocks, states of every depth, changes between blocks, adapters."""

import copy

import pytest
import torch

from modalign.zoo.errors import AssemblyError, NameGrammarError, RecipeError, ReleaseError
from modalign.zoo.language.backbone import AttentionBackbone, NoBackbone
from modalign.zoo.language.build import build_language
from modalign.zoo.language.loading import LanguageModelConfig, load_decoder, read_config
from modalign.zoo.language.lora import LoraSettings, add_lora, merge_lora

_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_LLAMA = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 24,
    **_IDS,
}
_NEOX = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
ARCHITECTURES = {
    "gpt2": {"vocab_size": 40, "n_positions": 24, "n_embd": 32, "n_head": 4, "n_layer": 3, **_IDS},
    "llama": {**_LLAMA, "num_hidden_layers": 3},
    "qwen2": {**_LLAMA, "num_hidden_layers": 3},
    "gemma3_text": {**_LLAMA, "num_hidden_layers": 7, "head_dim": 8},
    "opt": {
        "vocab_size": 40,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
        "layerdrop": 0.9,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 1,
    },
    "gpt_neox": {**_NEOX, "num_hidden_layers": 3},
    "bloom": {"vocab_size": 40, "hidden_size": 32, "n_layer": 3, "n_head": 4, **_IDS},
}


def config_of(kind, **changes):
    return LanguageModelConfig(name=None, architecture={"model_type": kind, **ARCHITECTURES[kind], **changes}, blocks=2)


@pytest.fixture(params=ARCHITECTURES)
def kind(request):
    return request.param


@pytest.fixture
def backbone(kind):
    torch.manual_seed(0)
    return build_language(config_of(kind), "random").backbone.eval()


def tokens(rows=2, length=5, seed=1):
    return torch.randn(rows, length, 32, generator=torch.Generator().manual_seed(seed))


def test_states_are_transformers_own(backbone):
    x = tokens()
    states = backbone(x)
    theirs = backbone.model(inputs_embeds=x, output_hidden_states=True).hidden_states
    assert len(states) == len(theirs) == backbone.num_blocks + 1 == 3
    assert all(torch.equal(own, their) for own, their in zip(states, theirs))


def test_the_first_state_has_positions_where_there_is_a_table(backbone, kind):
    added = backbone(tokens())[0] - tokens()
    tables = [name for name, part in backbone.kinds().items() if part == "position"]
    assert bool(tables) == (kind in ("gpt2", "opt"))
    if tables:
        rows = backbone.get_parameter(tables[0])[2 if kind == "opt" else 0 :][:5]
        torch.testing.assert_close(added, rows.expand(2, 5, 32), rtol=1e-5, atol=1e-6)
    elif kind != "bloom":  # which puts a norm behind its embeddings
        assert added.abs().max() == 0


def test_it_is_causal(backbone):
    x = tokens()
    changed = x.clone()
    changed[:, 3] *= -1  # adding a constant would be nothing to a norm
    for before, after in zip(backbone(x), backbone(changed)):
        torch.testing.assert_close(before[:, :3], after[:, :3], rtol=1e-5, atol=1e-6)
        assert (before[:, 3:] - after[:, 3:]).abs().max() > 0.1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_change_between_blocks_by_hand(backbone, place):
    """Before block k the state is what the blocks from k on go on with; behind the last block the norm goes on with it."""
    x, shift = tokens(), tokens(seed=2)
    plain = backbone(x)
    seen = []
    states = backbone(x, {place: lambda state: seen.append(state) or state + shift})
    assert len(seen) == 1
    for number in range(place):
        assert torch.equal(states[number], plain[number])
    if place < 2:
        assert torch.equal(seen[0], plain[place]) and torch.equal(states[place], plain[place] + shift)
        assert (states[2] - plain[2]).abs().max() > 0.1
    else:
        norm = backbone.model.get_submodule(backbone._anatomy.final_norm)
        assert torch.equal(norm(seen[0]), plain[2]) and torch.equal(states[2], norm(seen[0] + shift))
    assert all(torch.equal(again, before) for again, before in zip(backbone(x), plain))  # nothing is left behind


def test_changes_are_taken_back_after_an_error(backbone):
    def fail(state):
        raise KeyError("boom")

    before = backbone(tokens())
    with pytest.raises(KeyError):
        backbone(tokens(), {1: fail})
    assert all(torch.equal(a, b) for a, b in zip(before, backbone(tokens())))


def test_gradients_reach_changes_and_tokens(backbone):
    x, scale = tokens().requires_grad_(), torch.ones((), requires_grad=True)
    backbone(x, {1: lambda state: state * scale})[-1].square().sum().backward()
    assert x.grad.abs().max() > 0 and scale.grad.abs() > 0


def test_the_token_table_is_gone_and_a_copy_works(backbone):
    assert not [name for name, parameter in backbone.named_parameters() if parameter.shape == (40, 32)]
    again = copy.deepcopy(backbone)
    assert all(torch.equal(a, b) for a, b in zip(again(tokens()), backbone(tokens())))


def test_too_many_tokens(backbone, kind):
    if kind == "bloom":  # its positions are slopes, without end
        assert backbone(tokens(1, 40))[-1].shape == (1, 40, 32)
        return
    assert backbone.max_positions == 24 and backbone(tokens(1, 24))[-1].isfinite().all()
    with pytest.raises(AssemblyError, match="25 tokens are more than the 24 positions of the language model"):
        backbone(tokens(1, 25))


def test_a_place_that_is_not_there(backbone):
    with pytest.raises(AssemblyError, match="there is no place 3 between 2 blocks; places are 0 to 2"):
        backbone(tokens(), {3: lambda state: state})


def test_no_block_is_dropped_while_training(kind):
    backbone = build_language(config_of(kind), "random").backbone.train()
    assert all(len(backbone(tokens())) == 3 for _ in range(5))


def test_lists_of_one_entry_per_block_are_cut():
    config = read_config(config_of("gemma3_text"))
    assert config.num_hidden_layers == len(config.layer_types) == 2


def test_parameter_kinds(backbone, kind):
    kinds = backbone.kinds()
    assert set(kinds) == {name for name, _ in backbone.named_parameters()}
    matrices = {name for name, part in kinds.items() if part == "matrix"}
    norms = {name for name, part in kinds.items() if part == "norm"}
    assert all("norm" in name or "ln_" in name for name in norms) and norms
    assert all(backbone.get_parameter(name).ndim == 2 or name.endswith("bias") for name in matrices) and matrices


WANTED = {
    "gpt2": {"c_attn"},
    "llama": {"q_proj", "k_proj", "v_proj"},
    "qwen2": {"q_proj", "k_proj", "v_proj"},
    "gemma3_text": {"q_proj", "k_proj", "v_proj"},
    "opt": {"q_proj", "k_proj", "v_proj"},
    "gpt_neox": {"query_key_value"},
    "bloom": {"query_key_value"},
}


def test_adapters(backbone, kind):
    x = tokens()
    before = backbone(x)
    add_lora(backbone.model, LoraSettings(rank=2, alpha=6, dropout=0.5))
    own = [name for name, part in backbone.kinds().items() if part == "lora"]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in own} == WANTED[kind]
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert all(torch.equal(a, b) for a, b in zip(backbone(x), before))  # B is zero
    for name in own:
        weight = backbone.get_parameter(name).data
        assert (weight.abs().max() == 0) == (".lora_B." in name)
        weight.normal_(std=0.05)
    trained = backbone(x)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(trained[1:], before[1:]))
    with torch.no_grad():  # by hand: W + (alpha / r) B A
        first = next(name for name in own if ".lora_A." in name)
        layer = backbone.get_submodule(first.split(".lora_")[0])
        update = 3 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        base, v = layer.base_layer, torch.randn(1, 32)
        delta = layer(v) - base(v)
        torch.testing.assert_close(delta, v @ update.T, rtol=1e-4, atol=1e-5)
    merge_lora(backbone.model)
    assert "lora" not in set(backbone.kinds().values())
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(backbone(x), trained))


def test_adapters_on_layers_by_name():
    backbone = build_language(config_of("llama"), "random").backbone
    add_lora(backbone.model, LoraSettings(targets=["o_proj"]))
    assert all("o_proj" in name for name, part in backbone.kinds().items() if part == "lora")
    with pytest.raises(AssemblyError, match="no layer 'k_projj'; name its own; did you mean 'k_proj'"):
        add_lora(backbone.model, LoraSettings(targets=["k_projj"]))


def test_one_attention_layer_in_its_place():
    torch.manual_seed(0)
    backbone = build_language(config_of("gpt2"), "attention").backbone
    x = tokens()
    first, last = backbone(x)
    assert torch.equal(first, x) and isinstance(backbone, AttentionBackbone) and backbone.num_blocks == 1
    wanted = backbone.norm(x + backbone.attention(x, x, x)[0])
    torch.testing.assert_close(last, wanted)
    changed = x.clone()
    changed[:, 4] += 1
    assert (backbone(changed)[1][:, 0] - last[:, 0]).abs().max() > 1e-3  # every token sees every other
    shifted = backbone(x, {0: lambda state: 2 * state, 1: lambda state: state + 1})
    again = 2 * x
    torch.testing.assert_close(shifted[1], backbone.norm(again + backbone.attention(again, again, again)[0] + 1))
    with pytest.raises(AssemblyError, match="25 tokens"):
        backbone(tokens(1, 25))
    assert set(backbone.kinds().values()) == {"attention"}


def test_nothing_in_its_place():
    backbone = build_language(config_of("llama"), "none").backbone
    x = tokens()
    assert isinstance(backbone, NoBackbone) and all(torch.equal(state, x) for state in backbone(x))
    states = backbone(x, {0: lambda state: state + 1, 1: lambda state: 2 * state})
    assert torch.equal(states[0], x + 1) and torch.equal(states[1], 2 * (x + 1))
    assert not list(backbone.parameters())


@pytest.fixture
def folder(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    full = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **ARCHITECTURES["llama"]))
    full.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm", full


def test_the_first_blocks_of_a_folder(folder):
    from transformers import LlamaModel

    path, full = folder
    config = LanguageModelConfig(name=f"local-dir:{path}", blocks=2)
    built = build_language(config, table=True)
    x = tokens()
    assert isinstance(full.model, LlamaModel)
    theirs = full.eval().model(inputs_embeds=x, output_hidden_states=True).hidden_states
    own = built.backbone.eval()(x)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(own[:2], theirs[:2]))
    assert torch.equal(built.table, full.get_input_embeddings().weight) and not built.table.requires_grad
    assert len(built.backbone.blocks) == 2 and built.hf_config.num_hidden_layers == 2


@pytest.mark.parametrize("switch", ["random", "attention", "none"])
def test_a_switch_changes_the_blocks_alone(folder, switch):
    path, full = folder
    config = LanguageModelConfig(name=f"local-dir:{path}", blocks=2)
    built = build_language(config, switch, table=True)
    assert torch.equal(built.table, full.get_input_embeddings().weight)
    assert built.backbone.width == 32 and built.backbone.max_positions == 24
    if switch == "random":
        pretrained = build_language(config).backbone.state_dict()
        assert set(pretrained) == set(built.backbone.state_dict())
        assert not torch.equal(pretrained["model.layers.0.mlp.up_proj.weight"], built.backbone.blocks[0].mlp.up_proj.weight)


def test_the_real_model_of_the_cache():
    """SmolLM2-135M's first blocks, where it is on this machine."""
    from modalign.datasets.assets.lookup import folder_of
    from modalign.zoo.errors import AssetError

    try:
        path = folder_of("smollm2-135m-instruct")
    except AssetError:
        pytest.skip("smollm2-135m-instruct is not in the cache")
    from safetensors import safe_open

    backbone = build_language(LanguageModelConfig(blocks=1)).backbone.eval()
    with safe_open(path / "model.safetensors", framework="pt") as stream:
        wanted = stream.get_tensor("model.layers.0.mlp.up_proj.weight").float()
    assert torch.equal(backbone.blocks[0].mlp.up_proj.weight, wanted)
    states = backbone(torch.randn(1, 7, 576))
    assert [state.shape for state in states] == [(1, 7, 576)] * 2 and states[1].isfinite().all()


def test_models_that_do_not_suit(tmp_path):
    bert = dict(_NEOX, num_hidden_layers=3, pad_token_id=0)
    bert_config = LanguageModelConfig(name=None, architecture={"model_type": "bert", **bert}, blocks=2)
    with pytest.raises(AssemblyError, match="no causal language model; take a decoder"):
        build_language(bert_config, "random")
    t5 = LanguageModelConfig(name=None, architecture={"model_type": "t5", "d_model": 32, "vocab_size": 40}, blocks=2)
    with pytest.raises(AssemblyError, match="not a causal language model of one stack"):
        build_language(t5, "random")
    narrow = config_of("opt", word_embed_proj_dim=16)
    with pytest.raises(AssemblyError, match="its embeddings are 16 wide, its states 32"):
        build_language(narrow, "random")
    with pytest.raises(AssemblyError, match=r"model\.language\.blocks: 2, but .* has 1; take 1 or fewer"):
        build_language(config_of("llama", num_hidden_layers=1), "random")
    with pytest.raises(RecipeError, match="transformers cannot build it"):
        read_config(LanguageModelConfig(name=None, architecture={"model_type": "no-such"}))
    with pytest.raises(RecipeError, match="architecture: transformers cannot build it"):
        read_config(config_of("gpt2", n_head="four"))
    with pytest.raises(RecipeError, match=r"architecture: transformers cannot build it .*divisible"):
        build_language(config_of("gpt2", n_head=5), "random")
    with pytest.raises(RecipeError, match="gpt2 has no setting 'n_heat'; did you mean 'n_head'"):
        read_config(config_of("gpt2", n_heat=5))
    with pytest.raises(NameGrammarError):
        read_config(LanguageModelConfig(name="gpt2"))
    with pytest.raises(RecipeError, match="an architecture alone has random weights"):
        config = config_of("gpt2")
        load_decoder(config, read_config(config), pretrained=True)


def test_a_folder_that_asks_for_code_or_lacks_weights(folder):
    path, _ = folder
    config = LanguageModelConfig(name=str(path), blocks=2)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ReleaseError, match=r"damaged|cannot be"):
        build_language(config)
    text = (path / "config.json").read_text().replace("{", '{"auto_map": {"AutoModel": "x.Y"},', 1)
    (path / "config.json").write_text(text)
    with pytest.raises(ReleaseError, match="auto_map asks to run code"):
        build_language(config)
