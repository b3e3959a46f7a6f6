"""What trains: by role, exactly what is asked for, and everything else stands still."""

import pytest
import torch
from torch import nn

from modalign.trainers.build import build_family
from modalign.trainers.roles import freeze, select, set_modes, table
from modalign.zoo.errors import RecipeError


@pytest.fixture
def model(tiny_model):
    return build_family(tiny_model, "model")


def test_every_parameter_has_one_role(model):
    roles = {model.role_of(name) for name, _ in model.named_parameters()}
    assert roles == {"encoder", "embedder", "head", "projector", "aux"}
    assert sum(total for _, total, _, _ in table(model, [])) == sum(p.numel() for p in model.parameters())


def test_a_role_or_part_of_one(model):
    chosen = {entry.name: entry.lr for entry in select(model, {"projector": 1e-3, "encoder:conv_head.*|bn2.*": 1e-4}, "s")}
    assert {name.split(".")[0] for name in chosen} == {"text_projector", "image"}
    assert all(name.split(".")[2] in ("conv_head", "bn2") for name in chosen if name.startswith("image."))
    assert chosen["text_projector.out.1.weight"] == 1e-3 and chosen["image.trunk.conv_head.weight"] == 1e-4


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"projektor": 1e-3}, r"no role 'projektor'; did you mean 'projector'"),
        ({"encoder:nothing.*": 1e-3}, r"'encoder:nothing.\*' matches no parameter of role 'encoder' \(they are named like"),
        ({"encoder": 1e-3, "encoder:conv_head.*": 1e-3}, r"two keys claim parameter 'image.trunk.conv_head.weight'"),
    ],
)
def test_what_matches_nothing_or_twice_is_an_error(model, train, message):
    with pytest.raises(RecipeError, match=message):
        select(model, train, "stages.s")


def test_frozen_means_no_gradient_and_eval_mode(model):
    trained = select(model, {"projector": 1e-3, "encoder:bn2.*": 1e-3}, "s")
    freeze(model, trained)
    set_modes(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {entry.name for entry in trained}
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes["text_projector"] and modes["text_projector.blocks.0.3"], "dropout of the trained projector is on"
    assert not modes["text.model.embeddings.dropout"], "dropout of the frozen embedder is off"
    assert not modes["image.trunk.bn2"], "batch norm statistics stay, though its parameters train"
    set_modes(model, "train")
    assert model.image.trunk.bn2.training and not model.image.trunk.bn1.training


def test_modes_of_a_stand_alone_dropout():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    net.requires_grad_(False)
    set_modes(net)
    assert not net[1].training
    net.requires_grad_(True)
    set_modes(net)
    assert net[1].training


def test_scale_is_clamped_after_a_step(model):
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model.after_step()
    assert model.logit_scale.exp().item() == pytest.approx(100.0)
