"""What trains: by role, exactly what is asked for, and everything else stands still."""

import pytest
import torch
from torch import nn

from modalign.trainers.build import build_family
from modalign.trainers.optim import build_optimizer
from modalign.trainers.recipe import StageConfig
from modalign.trainers.roles import freeze, select, set_dropout, set_grad_checkpointing, set_modes, table
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


def test_a_role_with_a_question_mark_is_left_out_where_there_is_none(model):
    train = {"head?": 1e-3, "language?": 1e-3, "encoder?:attn_pool.*": 1e-3, "encoder?:bn2.*": 1e-4, "aux": 1e-3}
    chosen = {entry.name: (entry.role, entry.lr) for entry in select(model, train, "s")}
    assert {role for role, _ in chosen.values()} == {"head", "encoder", "aux"}
    assert chosen["image.trunk.bn2.weight"] == ("encoder", 1e-4), "and is a role like any other where there is one"
    with pytest.raises(RecipeError, match=r"no role 'language'.*write 'language\?' to train it only where there is one"):
        select(model, {"language": 1e-3, "aux": 1e-3}, "s")
    with pytest.raises(RecipeError, match="two keys claim"):
        select(model, {"head?": 1e-3, "head": 1e-3}, "s")


def test_nothing_but_scalars_is_not_worth_a_stage_that_hoped_for_more(model):
    with pytest.raises(
        RecipeError, match=r"this model has nothing of language\?, aux but scalars; name a role it has \(aux, embed"
    ):
        select(model, {"language?": 1e-3, "aux": 1e-3}, "s")
    assert select(model, {"aux": 1e-3}, "s"), "asked for by name it is"


def test_optional_roles_in_the_other_settings(model):
    set_dropout(model, {"language?": 0.5, "head?": 0.0, "projector?": 0.25}, "s")
    assert {m.p for m in model.text_projector.modules() if isinstance(m, nn.Dropout)} == {0.25}
    set_grad_checkpointing(model, ["language?"], "s")
    stage = StageConfig(train={"encoder": 1.0}, losses={"clip": {}}, layer_decay={"language?": 0.5, "encoder?": 0.5})
    rates = {group["lr"] for group in build_optimizer(model, select(model, stage.train, "s"), stage).param_groups}
    assert len(rates) > 2 and max(rates) == 1.0
    for call, key in ((set_dropout, {"language": 0.5}), (set_grad_checkpointing, ["language"])):
        with pytest.raises(RecipeError, match="language"):
            call(model, key, "s")


def test_no_dropout_is_no_chance_of_any_kind(tiny_model):
    """Branches and patches that are left out at random too, so that a copy gives the same vectors in training mode."""
    image = {"name": "timm:test_vit", "pretrained": False, "drop_path": 0.5, "patch_dropout": 0.5}
    model = build_family(tiny_model | {"image": image}, "model")
    freeze(model, select(model, {"encoder": 1e-3}, "s"))
    set_modes(model)
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        assert not torch.equal(model.image.pooled(pixels), model.image.pooled(pixels))
        set_dropout(model, {"encoder": 0.0}, "s")
        assert model.image.training and torch.equal(model.image.pooled(pixels), model.image.pooled(pixels))


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
