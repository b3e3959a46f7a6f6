"""A whole language model: its states and logits are transformers' own, packed rows are separate sequences, and what is refused."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from modalign.zoo.errors import AssemblyError, RecipeError, ReleaseError
from modalign.zoo.language.causal import CausalConfig, CausalLanguageModel, build_causal

from ..stack import written

KINDS = ("llama", "gpt2", "opt", "qwen2", "mistral", "cohere", "gemma2")
ATTENTIONS = [(kind, how) for kind in KINDS for how in ("sdpa", "eager") if (kind, how) != ("gemma2", "sdpa")]
LENGTHS = (7, 3, 9)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made = {}

    def folder(kind, **more):
        key = (kind, *sorted(more.items()))
        if key not in made:
            made[key] = written.write_language(tmp_path_factory.mktemp(kind), kind, **more)
        return made[key]

    return folder


def built(folder, **settings):
    return build_causal(CausalConfig(name=f"local-dir:{folder}", **settings)).eval()


def some_ids(*shape, seed=0):
    return torch.randint(6, 300, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def states_of(model, ids, **given):
    return model.states(model.embed(ids), **given)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_transformers_own(folder_of, kind):
    model, theirs = built(folder_of(kind)), AutoModelForCausalLM.from_pretrained(folder_of(kind)).eval()
    ids = some_ids(2, 8)
    with torch.no_grad():
        assert torch.equal(model.logits(states_of(model, ids)), theirs(ids).logits)
    assert model.plain_head == (kind not in ("cohere", "gemma2"))
    assert (model.vocabulary, model.width) == tuple(model.table.shape) == (336, 16)
    assert model.max_positions == 512


@pytest.mark.parametrize("kind", KINDS)
def test_finding_out_about_the_head_leaves_the_model_as_it_was(folder_of, kind):
    model, theirs = built(folder_of(kind)), AutoModelForCausalLM.from_pretrained(folder_of(kind))
    model.logits(torch.zeros(1, 2, 16))
    assert [name for name, _ in model.model.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert [*model.model.state_dict()] == [*theirs.state_dict()]
    tied = theirs.get_input_embeddings().weight is theirs.get_output_embeddings().weight
    assert (model.head()[0] is model.table) == tied


@pytest.mark.parametrize("kind", ["llama", "cohere", "gemma2"])
def test_a_larger_head_takes_the_place_of_the_models_own_with_all_it_does(folder_of, kind):
    model = built(folder_of(kind))
    weight, bias = model.head()
    states = torch.randn(2, 5, 16, requires_grad=True)
    more = torch.randn(4, 16, requires_grad=True)
    grown = model.logits(states, (torch.cat([weight, more]), bias))
    torch.testing.assert_close(grown[..., :336], model.logits(states))
    scale = {"llama": lambda x: x, "cohere": lambda x: x * 0.25, "gemma2": lambda x: 0.5 * torch.tanh(x / 0.5)}[kind]
    torch.testing.assert_close(grown[..., 336:], scale(states @ more.T))
    grown.sum().backward()
    assert more.grad.abs().max() > 0 and states.grad.abs().max() > 0
    assert model.head()[0] is weight


@pytest.mark.parametrize(("kind", "attention"), ATTENTIONS)
def test_padding_on_either_side_changes_no_state(folder_of, kind, attention):
    model = built(folder_of(kind), attention=attention)
    rows = [some_ids(1, length, seed=length) for length in LENGTHS]
    for left in (False, True):
        ids, mask = torch.full((3, max(LENGTHS)), 3), torch.zeros(3, max(LENGTHS), dtype=torch.bool)
        for number, row in enumerate(rows):
            place = slice(max(LENGTHS) - row.shape[1], None) if left else slice(0, row.shape[1])
            ids[number, place], mask[number, place] = row[0], True
        states = states_of(model, ids, mask=mask)
        assert torch.isfinite(states).all()
        for number, row in enumerate(rows):
            torch.testing.assert_close(states[number, mask[number]], states_of(model, row)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "attention"), [pair for pair in ATTENTIONS if pair[0] != "opt"])
def test_packed_rows_are_separate_sequences(folder_of, kind, attention):
    model = built(folder_of(kind), attention=attention)
    assert model.model.config._attn_implementation == attention
    rows = [some_ids(1, length, seed=length) for length in LENGTHS]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    packed = states_of(model, torch.cat(rows, dim=1), positions=positions)
    alone = torch.cat([states_of(model, row) for row in rows], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    together = states_of(model, torch.cat(rows, dim=1))
    assert (together - alone).abs().max() > 1e-3, "otherwise nothing would have been seen across"


@pytest.mark.parametrize("training", [False, True])
def test_a_model_that_lets_packed_sequences_see_each_other_is_refused(folder_of, training):
    model = built(folder_of("opt")).train(training)
    ids, positions = some_ids(1, 6), torch.arange(3).repeat(2)[None]
    with pytest.raises(AssemblyError, match="sequences of a packed row see each other in a model of this kind; turn packing off"):
        states_of(model, ids, positions=positions)
    assert model.body.training == training
    mask = torch.ones(1, 6, dtype=torch.bool)
    assert torch.isfinite(states_of(model, ids, positions=torch.arange(6)[None], mask=mask)).all(), (
        "positions alone are no packing"
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_two_packed_rows_of_different_cuts(folder_of, kind):
    model = built(folder_of(kind))
    ids = some_ids(2, 10)
    positions = torch.stack([torch.cat([torch.arange(4), torch.arange(6)]), torch.cat([torch.arange(7), torch.arange(3)])])
    packed = states_of(model, ids, positions=positions)
    for row, cut in ((0, 4), (1, 7)):
        alone = torch.cat([states_of(model, ids[row : row + 1, :cut]), states_of(model, ids[row : row + 1, cut:])], dim=1)
        torch.testing.assert_close(packed[row], alone[0], rtol=1e-5, atol=1e-5)


def test_a_real_model(real_data):
    folder = real_data / "weights_stories260K" / "hf"
    model = built(folder)
    ids = model.tokenizer("Once upon a time, there was a little girl named Lily.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model.logits(states_of(model, ids))
        assert torch.equal(logits, AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits)
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    assert loss < 1.5, "it knows such stories; chance is 6.2"
    assert model.head()[0] is model.table


# settings


def test_an_architecture_with_random_weights_and_a_tokenizer_of_its_own(folder_of):
    folder = folder_of("llama")
    values = {"model_type": "llama", **written.LLAMA_LIKE, "vocab_size": 336, "max_position_embeddings": 64}
    model = build_causal(CausalConfig(name=None, architecture=values, tokenizer=f"local-dir:{folder}"))
    assert model.max_positions == 64 and len(model.tokenizer) <= 336
    names = {name for name, _ in built(folder).named_parameters()}
    assert {name for name, _ in model.named_parameters()} == names
    random = built(folder, pretrained=False)
    assert {name for name, _ in random.named_parameters()} == names and not torch.equal(random.table, built(folder).table)


def test_the_first_blocks_alone(folder_of):
    model, whole = built(folder_of("llama"), blocks=1), built(folder_of("llama"))
    assert len(model.body.layers) == 1 and torch.equal(
        model.body.layers[0].mlp.up_proj.weight, whole.body.layers[0].mlp.up_proj.weight
    )
    with pytest.raises(AssemblyError, match=r"blocks: 3, but local-dir:.* has 2; take 2 or fewer"):
        built(folder_of("llama"), blocks=3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"blocks": 0}, "blocks: 0 must be 1 or more"),
        ({"name": None}, "give either name or architecture"),
        ({"architecture": {"model_type": "llama"}}, "give either name or architecture"),
        ({"name": None, "architecture": {"model_type": "llama"}}, "an architecture alone has no tokenizer"),
    ],
)
def test_wrong_settings(settings, told):
    with pytest.raises(RecipeError, match=told):
        CausalConfig(**settings)


def test_a_tokenizer_with_more_tokens_than_the_table_has_rows(tmp_path):
    written.write_language(tmp_path / "small", vocab_size=300)
    with pytest.raises(AssemblyError, match=r"the tokenizer knows 319 tokens, the token table has 300 rows"):
        built(tmp_path / "small")


def test_attention_that_the_model_does_not_have(folder_of):
    with pytest.raises(AssemblyError, match=r"transformers has no sdpa for local-dir:.*; take eager, or leave it out"):
        built(folder_of("gemma2"), attention="sdpa")


def test_what_is_no_causal_language_model(tiny_vit):
    with pytest.raises(AssemblyError, match="a vit is no causal language model; take one such as Llama"):
        built(tiny_vit)


def test_a_missing_weight_is_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = written.write_language(tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ReleaseError, match=r"up_proj"):
        built(folder)


def test_more_tokens_than_positions_are_an_error(folder_of):
    model = built(folder_of("gpt2", n_positions=8))
    with pytest.raises(AssemblyError, match="9 tokens are more than the 8 positions of local-dir:"):
        states_of(model, some_ids(1, 9))
    positions = torch.cat([torch.arange(5), torch.arange(4)])[None]
    assert states_of(model, some_ids(1, 9), positions=positions).shape == (1, 9, 16), "packed, none is too long"


def test_recomputed_activations_give_the_same_gradients(folder_of):
    grads = []
    for recompute in (False, True):
        model = built(folder_of("llama")).train()
        model.set_grad_checkpointing(recompute)
        model.states(model.embed(some_ids(2, 6))).square().sum().backward()
        grads.append(model.table.grad)
    torch.testing.assert_close(*grads)


def test_what_a_release_needs_is_written(folder_of, tmp_path):
    model = built(folder_of("llama"))
    (tmp_path / "language").mkdir()
    model.save_processor(tmp_path / "language")
    shape = build_causal(model.config, tmp_path)
    assert {name: p.shape for name, p in shape.named_parameters()} == {name: p.shape for name, p in model.named_parameters()}
    assert shape.tokenizer("What is it?")["input_ids"] == model.tokenizer("What is it?")["input_ids"]
    assert isinstance(shape, CausalLanguageModel) and not any(p.is_meta for p in shape.parameters())
