"""The objective of a stage: its losses with weights, built from the recipe, summed and reported term by term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modalign.zoo.configure import fill
from modalign.zoo.errors import RecipeError
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
            options = dict(options or {})
            name, weight = options.pop("loss", label), options.pop("weight", 1.0)
            if not isinstance(weight, int | float):
                raise RecipeError(f"{where}.{label}.weight: expected a number, got {weight!r}")
            self.terms[label] = fill(LOSSES.get(name), options, f"{where}.{label}")
            self.weights[label] = float(weight)

    def inputs(self) -> frozenset[str]:
        """Names of all entries that some loss reads."""
        losses: list[Loss] = list(self.terms.values())  # type: ignore[arg-type]
        return frozenset().union(*(loss.inputs() for loss in losses))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (total, detached metrics: `loss`, `loss/LABEL` unweighted, `LABEL/METRIC`)."""
        total = torch.zeros((), device=outputs["logit_scale"].device)
        metrics: dict[str, Tensor] = {}
        for label, term in self.terms.items():
            result = term(outputs, batch)
            total = total + self.weights[label] * result.value
            metrics[f"loss/{label}"] = result.value.detach()
            metrics |= {f"{label}/{name}": value for name, value in result.metrics.items()}
        return total, {"loss": total.detach(), **metrics}
