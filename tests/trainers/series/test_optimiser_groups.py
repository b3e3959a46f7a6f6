"""The two optimisers of the reference, as groups of one: what is in them, at which rate, and how each goes on."""

import pytest
import torch

from modalign.trainers import load_recipe
from modalign.trainers.build import build_family
from modalign.trainers.optim import build_optimizer, build_schedule
from modalign.trainers.roles import select
from modalign.zoo.series.description import SeriesDescription

TINY = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 32, "n_embd": 24, "n_head": 2, "n_layer": 2}


@pytest.fixture(scope="module")
def shipped():
    """The shipped recipe of ETTh1 with a tiny language model and the authors' schedule, and its model as the stage begins."""
    language = {"name": None, "architecture": TINY, "blocks": 2}
    small = {"model.language": language, "model.llm": "random", "model.heads": 2, "model.dictionary": 8, "model.ffn": 32}
    small |= {"stages.forecast.schedule": "cosine_by_epoch", "stages.forecast.period": 6}
    recipe = load_recipe("calf/etth1", small)
    model = build_family(recipe.model, "model")
    model.describe(SeriesDescription(["a", "b"], scale={"a": [0.0, 1.0], "b": [0.0, 1.0]}))
    return recipe, model


def test_the_second_group_is_what_the_reference_names_proj(shipped):
    """Feature maps and the match module's attention projections at a constant 1e-4; all else on the cosine per epoch."""
    recipe, model = shipped
    stage = recipe.stages["forecast"]
    trained = select(model, stage.train, "stages.forecast")
    optimizer = build_optimizer(model, trained, stage, fused=False)
    names = {id(entry.parameter): entry.name for entry in trained}
    group_of = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    second = {name for name, group in group_of.items() if group["initial_lr" if "initial_lr" in group else "lr"] == 1e-4}
    wanted = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("series_features.", "text_features.")) or (name.startswith(("tokens.", "match.")) and "_proj" in name)
    }
    assert second == wanted and len(wanted) == 2 * 3 + 2 * 4
    assert set(names.values()) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["eps"] == 1e-8 and stage.clip_norm is None

    period, per_epoch = int(stage.period), 3
    schedule = build_schedule(optimizer, stage, 100 * per_epoch, per_epoch)
    plain = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(plain, T_max=period, eta_min=1e-8)
    for epoch in range(2 * period + 2):
        for _ in range(per_epoch):
            rates = {name: group["lr"] for name, group in group_of.items()}
            assert {rates[name] for name in second} == {1e-4}
            for name in set(rates) - second:
                assert rates[name] == pytest.approx(plain.param_groups[0]["lr"], rel=1e-6), (epoch, name)
            optimizer.step()
            schedule.step()
        plain.step()
        reference.step()


def test_one_step_is_that_of_two_adams(shipped):
    """AdamW without decay, group by group, moves every parameter as the reference's two optimisers do."""
    recipe, model = shipped
    stage = recipe.stages["forecast"]
    trained = select(model, stage.train, "stages.forecast")
    torch.manual_seed(0)
    first = [entry.parameter.detach().clone().requires_grad_() for entry in trained]
    groups = [[p for p, entry in zip(first, trained, strict=True) if (entry.role == "aux") is second] for second in (False, True)]
    theirs = [torch.optim.Adam(groups[0], lr=5e-4), torch.optim.Adam(groups[1], lr=1e-4)]
    ours = build_optimizer(model, trained, stage, fused=False)
    for _ in range(3):
        for entry, copy in zip(trained, first, strict=True):
            entry.parameter.grad = torch.randn_like(entry.parameter)
            copy.grad = entry.parameter.grad.clone()
        for optimizer in (ours, *theirs):
            optimizer.step()
    for entry, copy in zip(trained, first, strict=True):
        torch.testing.assert_close(entry.parameter, copy, rtol=1e-6, atol=1e-9)
