"""CALF in and out of releases: full, adapter without the language model's weights, and the slim form for use."""

import json

import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import read_release
from modalign.zoo.checkpoints.weights import weight_names
from modalign.zoo.errors import ReleaseError

from .calf_reference import GPT2, LLAMA, calf

SERIES = {
    "target": ["a", "b", "c"],
    "past": ["p"],
    "known": ["k"],
    "static": ["s", "t"],
    "frequency": "h",
    "scale": {"a": [1.0, 2.0]},
    "static_scale": {"s": [1e6, 1e5], "t": [0.0, 2.0]},
}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    static = torch.tensor([[1.1e6, 0.5], [0.8e6, -3.0]])
    known = torch.randn(2, 48, 1, generator=generator)
    return {"values": torch.randn(2, 32, 4, generator=generator), "known": known, "static": static}


@pytest.fixture(params=["gpt2", "llama"])
def source(request, tmp_path):
    """A folder of a pretrained language model of three blocks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(GPT2 if request.param == "gpt2" else LLAMA)
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).save_pretrained(
        tmp_path / "lm"
    )
    return tmp_path / "lm"


def pretrained(source, **settings):
    language = {"name": f"local-dir:{source}", "blocks": 2}
    model = calf(llm="pretrained", language=language, series=SERIES, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


def trained_names(model):
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def same(model, other, batch):
    model.both_branches = other.both_branches = True
    first, second = model(batch), other(batch)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_the_pretrained_weights_are_those_of_the_first_blocks(source):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(source).base_model.state_dict()
    model = calf(llm="pretrained", language={"name": str(source), "blocks": 2}, dictionary=20)
    own = model.text_language.model.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("pretrained."):
            assert torch.equal(value, theirs[name.removeprefix("pretrained.")])
    assert set(own) <= set(theirs) and not [name for name in theirs if ".2." in name and name in own]


def test_a_full_release_needs_nothing_else(source, tmp_path, batch):
    model = pretrained(source)
    zoo.save_release(model, tmp_path / "full", trained=trained_names(model))
    for file in source.iterdir():
        file.unlink()
    loaded = zoo.load(tmp_path / "full")
    assert same(model, loaded, batch)
    assert loaded.config.series.scale == {"a": [1.0, 2.0]} and loaded.config == loaded.Config(**vars(loaded.config))
    assert torch.equal(loaded.dictionary.rows, model.dictionary.rows)
    settings = json.loads((tmp_path / "full" / "config.json").read_text())["model"]
    assert settings["language"]["name"] == "local-dir:lm"


def test_an_adapter_leaves_the_frozen_weights_out(source, tmp_path, batch):
    model = pretrained(source)
    zoo.save_release(model, tmp_path / "adapter", kind="adapter", trained=trained_names(model), public=False)
    names = weight_names(tmp_path / "adapter" / "model.safetensors")
    assert not [name for name in names if name.startswith("pretrained.")]
    assert {name for name in trained_names(model)} <= set(names)
    assert read_release(tmp_path / "adapter")[1]["parts"]["pretrained"]["included"] is False
    assert same(model, zoo.load(tmp_path / "adapter"), batch)


def test_an_adapter_notices_another_base(source, tmp_path):
    model = pretrained(source)
    zoo.save_release(model, tmp_path / "adapter", kind="adapter", trained=trained_names(model), public=False)
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        next(p for name, p in other.named_parameters() if "mlp" in name).add_(1e-3)
    other.save_pretrained(source)
    with pytest.raises(ReleaseError, match=r"is an adapter on .* but what is there now has"):
        zoo.load(tmp_path / "adapter")


def test_what_was_trained_of_the_frozen_weights_is_included(source, tmp_path, batch):
    model = pretrained(source)
    with torch.no_grad():
        next(model.pretrained.parameters()).add_(0.1)
    names = trained_names(model) | {name for name, _ in model.named_parameters() if name.startswith("pretrained.")}
    zoo.save_release(model, tmp_path / "adapter", kind="adapter", trained=frozenset(names), public=False)
    assert same(model, zoo.load(tmp_path / "adapter"), batch)


def test_inference_form(source, tmp_path, batch):
    model = pretrained(source)
    model.both_branches = False
    slim = model.export_inference()
    assert torch.equal(slim(batch)["prediction"], model(batch)["prediction"])
    gone = ("dictionary", "text_language", "match", "series_features", "text_features")
    assert not [name for name in slim.state_dict() if name.startswith(gone)]
    assert [name for name in model.state_dict() if name.startswith(gone)]  # the model itself keeps them
    assert slim.config.inference_only and not model.config.inference_only
    assert set(slim.train()(batch)) == {"prediction"}
    for kind in ("full", "adapter"):
        zoo.save_release(slim, tmp_path / kind, kind=kind, trained=trained_names(slim), public=False)
        loaded = zoo.load(tmp_path / kind)
        assert set(loaded.state_dict()) == set(slim.state_dict())
        assert torch.equal(loaded(batch)["prediction"], model(batch)["prediction"])
    norms = {name for name in model.state_dict() if name.startswith("pretrained.") and name not in slim.state_dict()}
    assert norms and all("ln_" in name or "norm" in name for name in norms)  # the textual branch's
    left = {name for name in model.state_dict() if not name.startswith(gone)} - norms
    assert set(slim.state_dict()) == left


def test_the_slim_copy_is_one_of_its_own(source, batch):
    model = pretrained(source)
    slim = model.export_inference()
    before = slim(batch)["prediction"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(slim(batch)["prediction"], before)
    slim.load_state_dict({name: torch.zeros_like(value) for name, value in slim.state_dict().items()})
    assert all(parameter.abs().max() == 0 for parameter in slim.parameters())


@pytest.mark.parametrize("switch", ["random", "attention", "none"])
def test_ablations_come_back(source, tmp_path, batch, switch):
    model = calf(llm=switch, language={"name": f"local-dir:{source}", "blocks": 2}, series=SERIES)
    zoo.save_release(model, tmp_path / "release", kind="adapter", trained=trained_names(model))
    assert same(model, zoo.load(tmp_path / "release"), batch)
    assert not read_release(tmp_path / "release")[1]["parts"]


def test_classification_comes_back(tmp_path):
    model = calf(task="classification", series={"target": ["a", "b"], "labels": ["x", "y", "z"]})
    zoo.save_release(model, tmp_path / "release")
    values = {"values": torch.randn(2, 32, 2)}
    assert torch.equal(model(values)["logits"], zoo.load(tmp_path / "release")(values)["logits"])


def test_a_quantile_head_comes_back(tmp_path):
    model = calf(head="quantile", quantiles=[0.25, 0.5, 0.75])
    zoo.save_release(model, tmp_path / "release")
    values = {"values": torch.randn(2, 32, 2)}
    assert torch.equal(model(values)["quantiles"], zoo.load(tmp_path / "release")(values)["quantiles"])
