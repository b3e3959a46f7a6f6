"""Which parameters a stage trains: by role, never by luck of a name.

A key of a stage's `train` is a role (`projector`) or part of one (`encoder:blocks.6.*`, a shell pattern over the parameter's name within
its encoder). A key that matches nothing is an error, and so is a parameter that two keys claim. A question mark behind a role (`head?`,
`encoder?:attn_pool.*`) makes it optional, for recipes that start from models of any make: it is left out where a model has no such thing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from modalign.zoo.errors import RecipeError, nearest


@dataclass
class TrainedParameter:
    """A parameter that trains.

    Attributes:
        name: As in `named_parameters`.
        role: Its role.
        parameter: The tensor.
        lr: Its learning rate.
    """

    name: str
    role: str
    parameter: nn.Parameter
    lr: float


def select(model: Any, train: Mapping[str, float], where: str) -> list[TrainedParameter]:
    """The parameters a stage trains; every other one is frozen by `freeze`.

    Raises:
        RecipeError: If a key matches nothing (the message lists roles) or two keys claim one parameter.
    """
    chosen: dict[str, TrainedParameter] = {}
    roles = {name: model.role_of(name) for name, _ in model.named_parameters()}
    for key, lr in train.items():
        role, _ = optional_role(key.partition(":")[0])
        for name in _matched(roles, key, where):
            if name in chosen:
                raise RecipeError(f"{where}.train: two keys claim parameter {name!r}; make their patterns exclusive")
            chosen[name] = TrainedParameter(name, role, model.get_parameter(name), float(lr))
    if not any(entry.role != "aux" for entry in chosen.values()) and any("?" in key.partition(":")[0] for key in train):
        have = ", ".join(sorted(set(roles.values())))
        raise RecipeError(f"{where}.train: this model has nothing of {', '.join(train)} but scalars; name a role it has ({have})")
    return list(chosen.values())


def optional_role(text: str) -> tuple[str, bool]:
    """`head?` -> (`head`, True): whether a role may be missing."""
    return text.removesuffix("?"), text.endswith("?")


def roles_of(model: Any) -> set[str]:
    """The roles of a model's parameters."""
    return {model.role_of(name) for name, _ in model.named_parameters()}


def _matched(roles: Mapping[str, str], key: str, where: str) -> list[str]:
    """Names of the parameters a key of `train` stands for."""
    before, _, pattern = key.partition(":")
    role, optional = optional_role(before)
    matched = [name for name in roles if roles[name] == role and _matches(name, pattern)]
    if matched or optional:
        return matched
    if role not in roles.values():
        raise RecipeError(
            f"{where}.train: the model has no role {role!r}{nearest(role, set(roles.values()))}; "
            f"write '{role}?' to train it only where there is one"
        )
    examples = ", ".join(sorted({_inner(name) for name in roles if roles[name] == role})[:3])
    raise RecipeError(f"{where}.train: {key!r} matches no parameter of role {role!r} (they are named like {examples})")


def _inner(name: str) -> str:
    """Name within its part: `image.trunk.blocks.6.0.conv.weight` -> `blocks.6.0.conv.weight`."""
    return name.split(".", 1)[-1].removeprefix("trunk.").removeprefix("model.")


def _matches(name: str, pattern: str) -> bool:
    return not pattern or any(fnmatch.fnmatchcase(_inner(name), option) for option in pattern.split("|"))


def freeze(model: nn.Module, trained: list[TrainedParameter]) -> None:
    """Leaves gradients on for the trained parameters and off for all others."""
    model.requires_grad_(False)
    for entry in trained:
        entry.parameter.requires_grad_(True)


def set_modes(model: nn.Module, batch_norm: str = "frozen") -> None:
    """Puts every module that trains nothing into eval mode: batch norm and dropout too.

    A module without parameters (dropout) follows the nearest module around it that has some.

    Args:
        model: The model, after `freeze`.
        batch_norm: `frozen` keeps batch norms in eval mode even where their parameters train.
    """
    _set_mode(model, False, batch_norm)


def _set_mode(module: nn.Module, around: bool, batch_norm: str) -> None:
    parameters = list(module.parameters())
    trains = any(parameter.requires_grad for parameter in parameters) if parameters else around
    module.training = trains and not (batch_norm == "frozen" and isinstance(module, nn.modules.batchnorm._BatchNorm))
    for child in module.children():
        _set_mode(child, trains, batch_norm)


def set_dropout(model: Any, dropout: Mapping[str, float], where: str) -> None:
    """Sets the probability of every dropout of a role; 0 also turns off dropped paths and patches.

    Raises:
        RecipeError: If a role has no dropout, or a probability is none.
    """
    for key, probability in dropout.items():
        role, optional = optional_role(key)
        there = [m for name, m in model.named_modules() if name and _role_of_module(model, name) == role]
        found = [module for module in there if isinstance(module, nn.Dropout)]
        if probability == 0:
            _keep_all(there)
        if not found and (optional or (probability == 0 and role in roles_of(model))):
            continue  # there is none to turn off
        if not found or not 0 <= probability < 1:
            raise RecipeError(f"{where}.dropout: {role}: {probability} (the role must have dropouts, the value be in [0, 1))")
        for module in found:
            module.p = float(probability)


def _role_of_module(model: Any, name: str) -> str | None:
    try:
        return str(model.role_of(name))
    except KeyError:  # a module of a family's own without parameters
        return None


#: class -> its probability: whole branches (timm, transformers), patches of a picture (open_clip, timm)
_DROPPING = {"DropPath": "drop_prob", "PatchDropout": "prob"}


def _keep_all(modules: Sequence[nn.Module]) -> None:
    """Nothing random is left in the forward pass, so that a copy gives the same."""
    for module in modules:
        attribute = next((name for kind, name in _DROPPING.items() if kind in type(module).__name__), None)
        if attribute is not None and hasattr(module, attribute):
            setattr(module, attribute, 0.0)


def set_grad_checkpointing(model: Any, roles: Sequence[str], where: str) -> None:
    """Makes the encoders of some roles recompute their activations in the backward pass instead of keeping them.

    Raises:
        RecipeError: If a role has no encoder that can.
    """
    for key in roles:
        role, optional = optional_role(key)
        runs = getattr(model, "runs", {})  # part that holds weights -> part that computes with them
        names = {name.split(".")[0] for name, _ in model.named_parameters() if model.role_of(name) == role}
        names = {runs.get(name, name) for name in names}
        if optional and not names:
            continue
        able = [getattr(model, name) for name in names if hasattr(getattr(model, name), "set_grad_checkpointing")]
        if not able:
            raise RecipeError(f"{where}.grad_checkpointing: {role!r} is no role of an encoder; take it out")
        for encoder in able:
            encoder.set_grad_checkpointing(True)


def table(model: Any, trained: list[TrainedParameter]) -> list[tuple[str, int, int, str]]:
    """Rows (role, parameters, of which trained, learning rates) for the table printed at the start of a stage."""
    rows: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        rows.setdefault(model.role_of(name), [0, 0])[0] += parameter.numel()
    rates: dict[str, set[float]] = {}
    for entry in trained:
        rows[entry.role][1] += entry.parameter.numel()
        rates.setdefault(entry.role, set()).add(entry.lr)
    return [
        (role, total, training, ", ".join(f"{lr:g}" for lr in sorted(rates.get(role, ()))) or "frozen")
        for role, (total, training) in rows.items()
    ]
