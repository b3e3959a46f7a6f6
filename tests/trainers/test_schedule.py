"""The learning rates of every step, of each group from its own rate."""

from typing import get_args, get_type_hints

import pytest
import torch

from modalign.trainers.optim import build_schedule
from modalign.trainers.recipe.settings import StageConfig

RATES = (1e-3, 3e-5)
STEPS = 50  # 10 of warm-up and 40 after it
#: step -> factor: the first, the last of the warm-up, the first after it, a quarter, the middle and three quarters of the rest, the last
FACTORS = {
    "cosine": {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 20: 0.8535534, 30: 0.5, 40: 0.1464466, 49: 0.0015413},
    "constant": {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 20: 1.0, 30: 1.0, 40: 1.0, 49: 1.0},
}


def rates(schedule, warmup, steps=STEPS):
    """(steps, groups) what each step of training uses."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in RATES]
    optimizer = torch.optim.AdamW(groups)
    found = build_schedule(optimizer, StageConfig(train={}, losses={}, schedule=schedule, warmup=warmup), steps)
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


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0009866), ("constant", 1.0)])
def test_without_a_warm_up_it_starts_at_the_full_rate(schedule, last):
    used = rates(schedule, 0.0)
    assert used[0] == pytest.approx(RATES) and used[-1] == pytest.approx([last * rate for rate in RATES], rel=1e-3)


@pytest.mark.parametrize("schedule", FACTORS)
def test_a_warm_up_of_all_steps_ends_at_the_full_rate(schedule):
    used = rates(schedule, 1.0, steps=4)
    assert [first for first, _ in used] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
