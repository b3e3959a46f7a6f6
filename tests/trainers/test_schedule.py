"""The learning rates of every step, of each group from its own rate."""

from typing import get_args, get_type_hints

import pytest
import torch

from modalign.trainers.optim import build_optimizer, build_schedule
from modalign.trainers.recipe.settings import StageConfig
from modalign.trainers.roles import TrainedParameter
from modalign.zoo.errors import RecipeError

RATES = (1e-3, 3e-5)
STEPS = 50  # 10 of warm-up and 40 after it
#: step -> factor: the first, the last of the warm-up, the first after it, a quarter, the middle and three quarters of the rest, the last
FACTORS = {
    "cosine": {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 20: 0.8535534, 30: 0.5, 40: 0.1464466, 49: 0.0015413},
    "constant": {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 20: 1.0, 30: 1.0, 40: 1.0, 49: 1.0},
    # these two change with the epoch, which has 8 steps here, counted from the start: after 0, 1, 2, 3, 5 and 6 whole epochs
    "cosine_by_epoch": {0: 0.1, 7: 0.8, 10: 0.9938442, 20: 0.9755283, 30: 0.9455033, 40: 0.8535534, 49: 0.7938926},
    "halved_by_epoch": {0: 0.1, 7: 0.8, 10: 0.5, 20: 0.25, 30: 0.125, 40: 0.03125, 49: 0.015625},
}


def rates(schedule, warmup, steps=STEPS, per_epoch=8, **settings):
    """(steps, groups) what each step of training uses."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in RATES]
    optimizer = torch.optim.AdamW(groups)
    stage = StageConfig(train={}, losses={}, schedule=schedule, warmup=warmup, **settings)
    found = build_schedule(optimizer, stage, steps, per_epoch)
    used = []
    for _ in range(steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        found.step()
    return used


def test_every_schedule_of_the_settings_is_tested():
    assert set(get_args(get_type_hints(StageConfig)["schedule"])) == set(FACTORS)


@pytest.mark.parametrize("schedule", FACTORS)
def test_rates_step_by_step(schedule):
    used = rates(schedule, 0.2)
    for step, factor in FACTORS[schedule].items():
        assert used[step] == pytest.approx([factor * rate for rate in RATES], rel=1e-4), step


@pytest.mark.parametrize(
    ("schedule", "last"),
    [("cosine", 0.0009866), ("constant", 1.0), ("cosine_by_epoch", 0.7938926), ("halved_by_epoch", 0.015625)],
)
def test_without_a_warm_up_it_starts_at_the_full_rate(schedule, last):
    used = rates(schedule, 0.0)
    assert used[0] == pytest.approx(RATES) and used[-1] == pytest.approx([last * rate for rate in RATES], rel=1e-3)


@pytest.mark.parametrize("schedule", FACTORS)
def test_a_warm_up_of_all_steps_ends_at_the_full_rate(schedule):
    used = rates(schedule, 1.0, steps=4)
    assert [first for first, _ in used] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])


@pytest.mark.parametrize("period", [3, 10, 20])
@pytest.mark.parametrize("least", [1e-8, 1e-5, 0.0])
def test_cosine_by_epoch_is_torchs_cosine_annealing_stepped_once_per_epoch(period, least):
    """Down to the smallest rate over the period, and up again after it, as the reference's 100 epochs with a period of 20 have it."""
    epochs, per_epoch = 45, 4
    ours = rates("cosine_by_epoch", 0.0, epochs * per_epoch, per_epoch, period=float(period), least_lr=least)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in RATES]
    optimizer = torch.optim.AdamW(groups)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=period, eta_min=least)
    lowest = {}
    for epoch in range(epochs):
        wanted = [group["lr"] for group in optimizer.param_groups]
        for step in range(per_epoch):
            assert ours[epoch * per_epoch + step] == pytest.approx(wanted, rel=1e-6, abs=1e-12), (epoch, step)
        lowest[epoch] = wanted[0]
        optimizer.step()
        theirs.step()
    assert ours[period * per_epoch][0] == pytest.approx(least, abs=1e-12) and ours[2 * period * per_epoch][0] == pytest.approx(
        RATES[0]
    )


def test_halved_by_epoch_is_the_usual_loaders_type1():
    ours = rates("halved_by_epoch", 0.0, 40, 4)
    assert [first for first, _ in ours] == pytest.approx([RATES[0] * 0.5 ** (step // 4) for step in range(40)])


def test_an_epoch_is_the_whole_stage_where_nobody_says_how_long_it_is():
    assert rates("halved_by_epoch", 0.0, 6, None) == [list(RATES)] * 6


def test_a_role_has_its_own_schedule():
    """As the reference's second optimiser: constant beside a cosine; two roles of one rate and two schedules are two groups."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("encoder", "head", "aux")})
    trained = [
        TrainedParameter(name, role, parameter, 1e-4 if role == "aux" else 1e-3)
        for name, parameter in model.named_parameters()
        for role in (name.split(".")[0],)
    ]
    settings = {"train": {}, "losses": {}, "warmup": 0.0, "weight_decay": 0.0, "schedule": "halved_by_epoch"}
    stage = StageConfig(**settings, schedules={"head": "cosine", "aux": "constant", "language?": "cosine"})
    optimizer = build_optimizer(model, trained, stage, fused=False)
    schedule = build_schedule(optimizer, stage, 20, 5)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    used = []
    for _ in range(20):
        used.append({role: group_of[id(model[role].weight)]["lr"] for role in model})
        optimizer.step()
        schedule.step()
    assert [rate["encoder"] for rate in used] == pytest.approx([1e-3 * 0.5 ** (step // 5) for step in range(20)])
    assert [rate["head"] for rate in used][::10] == pytest.approx([1e-3, 0.5e-3]) and used[19]["head"] < 1e-5
    assert {rate["aux"] for rate in used} == {1e-4}
    with pytest.raises(RecipeError, match=r"schedules: 'hed' does not train here; did you mean 'head'\?"):
        build_optimizer(model, trained, StageConfig(**settings, schedules={"hed": "cosine"}), fused=False)
