"""AdamW with CLIP's rules for weight decay, layer-wise learning rates, and the schedule."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from modalign.zoo.errors import RecipeError, nearest

from .recipe import StageConfig
from .roles import TrainedParameter, optional_role


def build_optimizer(
    model: Any, trained: Sequence[TrainedParameter], stage: StageConfig, *, fused: bool = True
) -> torch.optim.AdamW:
    """AdamW with one group per learning rate, decay and schedule; without weight decay it is Adam, group by group.

    Not decayed are vectors and scalars (biases, norms, scales), what an encoder exempts itself (timm's `no_weight_decay`: positional
    embeddings and the like) and the stage's `no_decay`. With `layer_decay` f of a role, a parameter k layers below the output learns at
    `lr · f^k`.

    Raises:
        RecipeError: If `layer_decay` or `schedules` name a role that does not train, or `no_decay` a pattern that matches nothing.
    """
    exempt = _exempt(model, trained, stage)
    scales = _layer_scales(model, trained, stage)
    schedules = _schedules(trained, stage)
    groups: dict[tuple[float, bool, str], list[torch.nn.Parameter]] = {}
    for entry in trained:
        lr, decays = entry.lr * scales.get(entry.name, 1.0), entry.parameter.ndim > 1 and entry.name not in exempt
        groups.setdefault((lr, decays, schedules[entry.role]), []).append(entry.parameter)
    settings = [
        {"params": parameters, "lr": lr, "weight_decay": stage.weight_decay if decays else 0.0, "schedule": schedule}
        for (lr, decays, schedule), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, betas=(stage.betas[0], stage.betas[1]), eps=stage.eps, fused=fused)


def _exempt(model: Any, trained: Sequence[TrainedParameter], stage: StageConfig) -> set[str]:
    """Names of parameters without weight decay, besides vectors and scalars."""
    found = set()
    for path, module in model.named_modules():
        if callable(getattr(module, "no_weight_decay", None)):
            found |= {f"{path}.{name}".lstrip(".") for name in module.no_weight_decay()}
    for pattern in stage.no_decay:
        matched = {entry.name for entry in trained if fnmatch.fnmatchcase(entry.name, pattern)}
        if not matched:
            raise RecipeError(f"no_decay: {pattern!r} matches no trained parameter{nearest(pattern, [e.name for e in trained])}")
        found |= matched
    return found


def _layer_scales(model: Any, trained: Sequence[TrainedParameter], stage: StageConfig) -> dict[str, float]:
    """Parameter name -> factor of its learning rate, for the roles with layer decay."""
    roles, factors = {entry.role for entry in trained}, {}
    for key, factor in stage.layer_decay.items():
        role, optional = optional_role(key)
        if optional and role not in roles:
            continue
        factors[role] = factor
        if role not in roles or not 0 < factor <= 1:
            raise RecipeError(
                f"layer_decay: {role}: {factor} (the role must train: {', '.join(sorted(roles))}; the factor is above 0, at most 1)"
            )
    return {entry.name: factors[entry.role] ** _layers_above(model, entry) for entry in trained if entry.role in factors}


def _layers_above(model: Any, entry: TrainedParameter) -> int:
    """How many layers of its encoder work on what a parameter's layer gives."""
    part, _, inner = entry.name.partition(".")
    encoder = getattr(model, part)
    if not hasattr(encoder, "layer_of"):
        raise RecipeError(f"layer_decay: {entry.role}: {entry.name} lies in no encoder with numbered layers; take the role out")
    return encoder.num_layers - 1 - encoder.layer_of(inner)


def _schedules(trained: Sequence[TrainedParameter], stage: StageConfig) -> dict[str, str]:
    """Role -> schedule."""
    roles: dict[str, str] = dict.fromkeys((entry.role for entry in trained), stage.schedule)
    for key, schedule in stage.schedules.items():
        role, optional = optional_role(key)
        if role in roles:
            roles[role] = schedule
        elif not optional:
            raise RecipeError(f"schedules: {role!r} does not train here{nearest(role, roles)} (what trains: {', '.join(roles)})")
    return roles


def build_schedule(
    optimizer: torch.optim.Optimizer, stage: StageConfig, steps: int, steps_per_epoch: int | None = None
) -> LambdaLR:
    """Linear warm-up `(step+1)/warmup`, then the schedule of each group (see `StageConfig.schedule`) from its own rate.

    Args:
        optimizer: Of `build_optimizer`.
        stage: The stage.
        steps: Its length.
        steps_per_epoch: For the schedules that change once per epoch; default the whole stage.
    """
    warmup, epoch = round(stage.warmup * steps), steps_per_epoch or steps

    def factor_of(group: dict[str, Any]) -> Callable[[int], float]:
        schedule, lr = group.get("schedule", stage.schedule), float(group["lr"])

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            if schedule == "cosine":
                return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
            if schedule == "cosine_by_epoch":
                least = min(stage.least_lr / lr, 1.0)
                return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * (step // epoch) / stage.period))
            return 0.5 ** (step // epoch) if schedule == "halved_by_epoch" else 1.0

        return factor

    return LambdaLR(optimizer, [factor_of(group) for group in optimizer.param_groups])
