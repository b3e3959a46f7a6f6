"""The objective of a stage: its losses with weights, built from the recipe, summed and reported term by term."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modalign.zoo.configure import fill
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.losses.base import Loss
from modalign.zoo.registry import LOSSES


class Objective(nn.Module):
    """`Σ_k w_k L_k` over the named losses of a stage.

    Args:
        settings: Label -> {loss: NAME (default: the label), weight: 1.0, ...settings of the loss}.
        where: Dotted place in the recipe, for messages.

    Raises:
        RecipeError: If a loss or one of its settings is unknown.
    """

    def __init__(self, settings: Mapping[str, Mapping[str, Any]], where: str = "losses") -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.terms = nn.ModuleDict()
        for label, options in settings.items():
            _check_label(label, where)
            options = dict(options or {})
            name, weight = options.pop("loss", label), options.pop("weight", 1.0)
            if not is_finite(weight):
                raise RecipeError(f"{where}.{label}.weight: expected a finite number, got {weight!r}")
            self.terms[label] = _build(name, options, f"{where}.{label}")
            self.weights[label] = float(weight)

    def inputs(self) -> frozenset[str]:
        """Names of all entries that some loss reads."""
        losses: list[Loss] = list(self.terms.values())  # type: ignore[arg-type]
        return frozenset().union(*(loss.inputs() for loss in losses))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (total, detached metrics: `loss`, `loss/LABEL` unweighted, `LABEL/METRIC`)."""
        total = torch.zeros((), device=next(value.device for value in outputs.values() if isinstance(value, Tensor)))
        metrics: dict[str, Tensor] = {}
        for label, term in self.terms.items():
            result = term(outputs, batch)
            total = total + self.weights[label] * result.value
            metrics[f"loss/{label}"] = result.value.detach()
            metrics |= {f"{label}/{name}": value for name, value in result.metrics.items()}
        return total, {"loss": total.detach(), **metrics}


def _check_label(label: Any, where: str) -> None:
    """A label becomes the name of a module of torch: one without dots that no method of torch's has."""
    if (
        not isinstance(label, str)
        or not label.strip()
        or not label.isprintable()
        or "." in label
        or hasattr(nn.ModuleDict(), label)
    ):
        raise RecipeError(
            f"{where}: {label!r} cannot be the label of a loss (a text without dots that is no name of torch's own, such as keys or "
            "type); choose another label and name the loss under it, {my_label: {loss: NAME}}"
        )


def is_finite(value: Any) -> bool:
    """Whether a setting is a finite number; true and false are none, nor is a whole number that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _build(name: str, options: Mapping[str, Any], where: str) -> nn.Module:
    """A loss by name; what its constructor refuses is said with its place."""
    try:
        loss: nn.Module = fill(LOSSES.get(name), options, where)
    except AssemblyError as error:
        raise RecipeError(f"{where}: {error}; one of your own comes with --allow_module MODULE") from None
    except RecipeError as error:
        raise RecipeError(str(error) if str(error).startswith(where) else f"{where}.{error}") from None
    return loss


def check_bias(model: Any, objective: Objective, ignore: bool, where: str) -> None:
    """Refuses to train a model of the sigmoid loss by the softmax alone, and a model without a bias by the sigmoid loss.

    A bias cancels in the softmax: the model would learn other logits than those its scale and bias were trained for, and be worth less
    than it was before. Without one the sigmoid loss starts far off, because nearly all pairs are negative.

    Args:
        model: The model.
        objective: The losses of the stage.
        ignore: The stage's `ignore_bias`.
        where: Dotted place of the stage, for messages.

    Raises:
        RecipeError: Naming the losses, and what to do.
    """
    inputs = objective.inputs()
    if "logit_bias" in inputs and hasattr(model, "logit_bias") and model.logit_bias is None:
        labels = _reading(objective, "logit_bias")
        raise RecipeError(
            f"{where}.losses: {labels} reads a logit bias, and this model has no logit bias; use the loss clip "
            "(configs/clip/finetune.yaml does), or a model of family siglip, which has a bias for the sigmoid loss"
        )
    if ignore or getattr(model, "logit_bias", None) is None or "logit_scale" not in inputs or "logit_bias" in inputs:
        return
    labels = _reading(objective, "logit_scale")
    raise RecipeError(
        f"{where}.losses: the model has a logit bias, which the sigmoid loss trains, and {labels} takes a softmax, in which it cancels; "
        f"use the loss siglip (configs/siglip/finetune.yaml does), or set {where}.ignore_bias: true to go on with the softmax"
    )


def _reading(objective: Objective, name: str) -> str:
    """Labels of the losses that read an entry."""
    return ", ".join(label for label, loss in objective.terms.items() if name in loss.inputs())  # type: ignore[operator]
