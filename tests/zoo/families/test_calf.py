"""What CALF keeps: which weights train and count, which outputs depend on what, ablations, limits."""

import math

import pytest
import torch

from modalign.trainers.objective import Objective
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.language.lora import merge_lora
from modalign.zoo.series.description import SeriesDescription

from .calf_reference import GPT2, LLAMA, calf

LANGUAGE = {"name": None, "architecture": GPT2, "blocks": 2}
LLAMA_LANGUAGE = {"name": None, "architecture": LLAMA, "blocks": 2}


def windows(rows=3, channels=5, seed=7):
    generator = torch.Generator().manual_seed(seed)
    return {
        "values": torch.randn(rows, 32, channels, generator=generator),
        "target": torch.randn(rows, 16, channels, generator=generator),
    }


def objective(**weights):
    losses = {"task": "series_error", "output": "output_consistency", "feature": "layerwise_alignment"}
    return Objective(
        {name: {"loss": loss, "weight": weights.get(name, 1.0)} for name, loss in losses.items() if weights.get(name, 1)}
    )


def by_role(model):
    found = {}
    for name, parameter in model.named_parameters():
        found[model.role_of(name)] = found.get(model.role_of(name), 0) + parameter.numel()
    return found


@pytest.fixture(scope="module")
def at_gpt2_width():
    """GPT-2's own shape but for its table of words, which is no part of what is counted."""
    architecture = {"model_type": "gpt2", "vocab_size": 600, "bos_token_id": None, "eos_token_id": None}
    language = {"name": None, "architecture": architecture, "blocks": 6}
    return calf(look_back=96, horizon=96, language=language, lora={}, heads=12, dictionary=500)


def test_the_count_of_the_paper(at_gpt2_width):
    count = by_role(at_gpt2_width)
    trainable = sum(p.numel() for p in at_gpt2_width.parameters() if p.requires_grad)
    assert trainable == 18_022_496 == sum(count.values()) - count["frozen"]
    assert count["aux"] == 12_982_272  # the second optimiser's
    text_norms = 13 * 2 * 768
    both_tables = 2 * 50257 * 768
    matrices = count["frozen"] - text_norms  # which both branches have, and are held once here
    assert trainable + 2 * matrices + text_norms + both_tables == 180_254_816


def test_the_clean_groups(at_gpt2_width):
    at_gpt2_width.config.strict_reference = False
    assert by_role(at_gpt2_width) == {
        "frozen": 42_528_768,
        "encoder": 74_496 + 5_513_984,
        "projector": 2_362_368,
        "aux": 14 * 768 * 768,
        "head": 73_824,
        "adapter": 147_456,
        "language": 19_968 + 2 * 786_432,
    }


def test_both_branches_hold_the_frozen_matrices_once():
    model = calf()
    time, text = model.language.model.h[1], model.text_language.model.h[1]
    assert time.mlp.c_fc.weight is text.mlp.c_fc.weight is model.pretrained.get_parameter("h.1.mlp.c_fc.weight")
    assert time.attn.c_attn.base_layer.weight is text.attn.c_attn.weight
    assert (
        time.ln_1.weight is not text.ln_1.weight and model.language.model.wpe.weight is not model.text_language.model.wpe.weight
    )
    assert not [name for name in model.state_dict() if "language" in name and "mlp" in name]


def test_the_temporal_branch_is_independent_of_the_other():
    model, batch = calf(), windows()
    model.both_branches = True
    before = model(batch)
    with torch.no_grad():
        for part in (model.match, model.text_language.model.wpe, model.series_features, model.text_features):
            for parameter in part.parameters():
                parameter.normal_()
        model.dictionary.rows.normal_()
    after = model(batch)
    assert torch.equal(before["prediction"], after["prediction"])
    assert (before["text_prediction"] - after["text_prediction"]).abs().max() > 0.01


def test_the_other_branch_runs_in_training_or_when_asked():
    model, batch = calf(), windows()
    assert set(model(batch)) == {"prediction"}
    assert set(model.train()(batch)) == {"prediction", "text_prediction", "series_layers", "text_layers"}
    model.eval().both_branches = True
    found = model(batch)
    assert found["series_layers"].shape == found["text_layers"].shape == (3, 3, 5, 64)


def test_without_consistency_no_gradient_reaches_the_text_side():
    model, batch = calf().train(), windows()
    objective(output=0, feature=0)(model(batch), batch)[0].backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"tokens", "language", "head"}
    model.zero_grad(set_to_none=True)
    objective()(model(batch), batch)[0].backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert not [name for name, p in model.named_parameters() if name.startswith("pretrained.") and p.grad is not None]


def test_losses_are_zero_where_both_branches_agree():
    model, batch = calf(), windows()
    model.both_branches = True
    found = model(batch)
    same = found | {"text_prediction": found["prediction"], "text_layers": found["series_layers"]}
    _, metrics = objective()(same, batch)
    assert metrics["loss/output"] == 0 and metrics["loss/feature"] == 0 and metrics["loss/task"] > 0


@pytest.mark.parametrize(("factor", "shift"), [(3.0, 7.0), (0.5, -2.0)])
def test_affine_equivariance(factor, shift):
    model, batch = calf(), windows()
    moved = model({"values": factor * batch["values"] + shift})["prediction"]
    torch.testing.assert_close(moved, factor * model(batch)["prediction"] + shift, rtol=1e-3, atol=1e-3)


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does():
    batch = windows()
    plain, adapted = calf(lora=None), calf()
    fresh = [name for name, _ in adapted.named_parameters() if ".lora_" in name]
    assert fresh and not [name for name, _ in plain.named_parameters() if ".lora_" in name]
    adapted.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(adapted(batch)["prediction"], plain(batch)["prediction"])
    with torch.no_grad():
        for name in fresh:
            adapted.get_parameter(name).normal_(std=0.05)
    trained = adapted(batch)["prediction"]
    assert (trained - plain(batch)["prediction"]).abs().max() > 1e-3
    merge_lora(adapted.language.model)
    assert not [name for name, _ in adapted.named_parameters() if ".lora_" in name]
    torch.testing.assert_close(adapted(batch)["prediction"], trained, rtol=0, atol=1e-5)
    assert {name.split(".")[0] for name, _ in adapted.text_language.named_parameters()} == {"model"}


@pytest.mark.parametrize("language", [LANGUAGE, LLAMA_LANGUAGE])
def test_a_row_does_not_depend_on_the_others(language):
    model, batch = calf(language=language), windows(rows=7)
    whole = model(batch)["prediction"]
    for rows in (1, 2, 5):
        parts = torch.cat([model({"values": part})["prediction"] for part in batch["values"].split(rows)])
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_a_model_with_rotary_positions():
    """Norms and q, k, v adapters train; there is no table of positions, so the textual branch trains nothing."""
    model, batch = calf(language=LLAMA_LANGUAGE).train(), windows()
    names = {name for name, p in model.named_parameters() if p.requires_grad and "language" in name.split(".")[0]}
    assert not [name for name in names if name.startswith("text_language")]
    inner = {name.removeprefix("language.model.") for name in names}
    adapted = {f"layers.{i}.self_attn.{x}_proj.lora_{side}.default.weight" for i in (0, 1) for x in "qkv" for side in "AB"}
    norms = {f"layers.{i}.{norm}.weight" for i in (0, 1) for norm in ("input_layernorm", "post_attention_layernorm")}
    assert inner == adapted | norms | {"norm.weight"}
    found = model(batch)
    assert found["series_layers"].shape == (3, 3, 5, 32)
    objective()(found, batch)[0].backward()
    assert all(model.get_parameter(name).grad is not None for name in names)


@pytest.mark.parametrize(
    ("switch", "layers", "roles"),
    [
        ("attention", 2, {"encoder", "projector", "aux", "head", "language"}),
        ("none", 2, {"encoder", "projector", "aux", "head"}),
        ("random", 3, {"encoder", "projector", "aux", "head", "language", "adapter", "frozen"}),
    ],
)
def test_ablations(switch, layers, roles):
    model, batch = calf(llm=switch, strict_reference=False).train(), windows()
    found = model(batch)
    assert found["series_layers"].shape == (3, layers, 5, 64) and len(model.series_features) == layers
    assert set(by_role(model)) == roles
    objective()(found, batch)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert model.sources() == {}


def test_nothing_in_its_place_is_the_identity():
    model, batch = calf(llm="none"), windows()
    values, statistics = model.norm(batch["values"])
    tokens = model.tokens(values)
    wanted = model.norm.inverse(model.head(2 * tokens), statistics)
    assert torch.equal(model(batch)["prediction"], wanted)


def test_the_dictionary_of_an_ablation_is_that_of_the_embeddings():
    assert torch.equal(calf(llm="none").dictionary.rows, calf(llm="attention").dictionary.rows)


def test_more_channels_than_positions():
    model = calf()
    assert model({"values": torch.randn(1, 32, 64)})["prediction"].shape == (1, 16, 64)
    with pytest.raises(AssemblyError, match="65 tokens are more than the 64 positions of the language model"):
        model({"values": torch.randn(1, 32, 65)})
    with pytest.raises(AssemblyError, match="66 channels are more than the 64 positions"):
        model.describe(SeriesDescription(target=[f"c{i}" for i in range(66)]))


def test_a_shorter_context_is_refused():
    with pytest.raises(AssemblyError, match=r"the window has 31 steps, model\.look_back is 32"):
        calf()({"values": torch.randn(1, 31, 2)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "model.heads: 5 do not divide the language model's width 64"),
        ({"dictionary": 64}, "model.dictionary: 64 must be from 1 to 63"),
        ({"language": LANGUAGE | {"blocks": 4}}, "model.language.blocks: 4, but .*gpt2.* has 3"),
        ({"task": "retrieval"}, "task"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises((AssemblyError, RecipeError), match=message):
        calf(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"llm": "pretrained"}, "pretrained needs model.language.name"),
        ({"language": {"name": None, "blocks": 2}}, "give either name or architecture"),
        ({"language": {"architecture": GPT2}}, "give either name or architecture"),
        ({"language": LANGUAGE | {"blocks": 0}}, "blocks: 0 must be 1 or more"),
        ({"lora": {"rank": 0}}, "rank 0 must be 1 or more"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"language": {"name": None, "architecture": {"model_type": "gpt2", "auto_map": {}}}}, "auto_map has no place here"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(RecipeError, match=message):
        calf(**settings)


def test_training_moves_what_trains_and_nothing_else():
    model, batch = calf().train(), windows()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    values = []
    for _ in range(8):
        optimiser.zero_grad()
        loss, _ = objective(feature=0.01)(model(batch), batch)
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0] and math.isfinite(values[-1])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
