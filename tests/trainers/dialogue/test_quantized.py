"""Matrices in 4 bits with LoRA beside them: trained, released as an adapter, loaded again; refused where the matrices are needed."""

import json

import pytest
import torch

from modalign import zoo
from modalign.trainers import train
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.language.quantized import is_quantized


def test_without_bitsandbytes_it_says_what_to_install(model_settings, recipe_of, tmp_path, parts, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = recipe_of(tmp_path / "run", model_settings(language={"name": str(parts / "lm"), "quantize": "nf4"}))
    with pytest.raises(RecipeError, match=r"pip install 'modalign\[quantized\]'"):
        train(recipe)


def test_only_a_pretrained_model_is_quantized(model_settings, recipe_of, tmp_path, parts):
    recipe = recipe_of(
        tmp_path / "run", model_settings(language={"name": str(parts / "lm"), "quantize": "nf4", "pretrained": False})
    )
    with pytest.raises(RecipeError, match="only a pretrained model by name can be held in 4 bits"):
        train(recipe)


def test_qlora(model_settings, recipe_of, tmp_path, parts):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'modalign[quantized]')")
    settings = model_settings(language={"name": str(parts / "lm"), "quantize": "nf4"}, lora={"rank": 2})
    run = train(recipe_of(tmp_path / "run", settings))
    about = json.loads((run / "release" / "release.json").read_text())
    assert about["kind"] == "adapter" and not about["parts"]["language_base"]["included"]
    first, second = zoo.load(run), zoo.load(run / "stages" / "tune" / "release")
    assert is_quantized(first.language) and any(
        value.abs().sum() > 0 for name, value in first.state_dict().items() if "lora_B" in name
    )
    batch = {"ids": torch.arange(5, 25)[None], "mask": torch.ones(1, 20, dtype=torch.bool)}
    with torch.no_grad():
        assert torch.equal(first(batch)["logits"], second(batch)["logits"])
    roles = {first.role_of(name) for name, _ in first.named_parameters()}
    assert {"quantized", "adapter", "language", "projector", "encoder"} <= roles
    with pytest.raises(AssemblyError, match="held in 4 bits"):
        zoo.save_release(first, tmp_path / "whole")
