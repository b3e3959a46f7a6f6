"""SigLIP's scale and bias; LiT's lock."""

import math

import pytest
import torch

from modalign.trainers.roles import select
from modalign.zoo.errors import RecipeError
from modalign.zoo.registry import FAMILIES


def test_siglips_start(family_settings):
    model = FAMILIES.get("siglip").from_settings(family_settings("siglip"))
    assert model.logit_scale.item() == pytest.approx(math.log(10))
    assert model.logit_bias.item() == -10.0
    outputs = model({})
    assert outputs["logit_scale"].item() == pytest.approx(10.0)
    assert outputs["logit_bias"].requires_grad
    small = FAMILIES.get("siglip").from_settings({**family_settings("siglip"), "logit_bias_init": -2.71})
    assert small.logit_bias.item() == pytest.approx(-2.71)
    with pytest.raises(RecipeError, match="siglip needs logit_bias_init"):
        FAMILIES.get("siglip").from_settings({**family_settings("siglip"), "logit_bias_init": None})


def test_the_loss_of_the_registry_reads_its_outputs(family_settings, photos, captions):
    """At scale 10 and bias -10, with one matching pair, the loss is ln 2 per pair and what the others add: spec's value."""
    from modalign.zoo.registry import LOSSES

    model = FAMILIES.get("siglip").from_settings(family_settings("siglip"))
    loss = LOSSES.get("siglip")()
    outputs = {**model({}), "image_embedding": torch.eye(2), "text_embedding": torch.eye(2)}
    assert loss.inputs() <= set(outputs)
    value = loss(outputs, {}).value
    assert value.item() == pytest.approx(0.6931925794591621, abs=1e-6)
    value.backward()
    assert model.logit_bias.grad.abs() > 0
    assert model.logit_scale.grad.abs() > 0


def test_lit_does_not_train_its_image_encoder(family_settings):
    model = FAMILIES.get("lit").from_settings(family_settings("lit"))
    assert not any(parameter.requires_grad for parameter in model.image.parameters())
    with pytest.raises(
        RecipeError, match=r"family lit keeps its image encoder locked, so the role 'encoder' cannot be trained; train head"
    ):
        select(model, {"encoder": 1e-4}, "stages.tune")
    with pytest.raises(RecipeError, match="keeps its image encoder locked"):
        select(model, {"head": 1e-3, "encoder:transformer.resblocks.1.*": 1e-4}, "stages.tune")
    chosen = select(model, {"head": 1e-3, "embedder": 1e-5, "projector": 1e-3, "aux": 1e-2}, "stages.tune")
    assert {entry.role for entry in chosen} == {"head", "embedder", "projector", "aux"}
    assert model.locked("image.model.conv1.weight")
    assert model.locked("text_projector.linear.weight") is None


def test_lit_from_random_weights_makes_no_sense(family_settings):
    settings = family_settings("lit")
    settings["image"]["pretrained"] = False
    with pytest.raises(RecipeError, match=r"image\.pretrained must not be off"):
        FAMILIES.get("lit").from_settings(settings)
