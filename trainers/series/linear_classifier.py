"""Multinomial logistic regression on raw values: the plain baseline of classification."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 100


def fit_linear(rows: Tensor, labels: Tensor, classes: int, decay: float = 1e-2) -> Callable[[Tensor], Tensor]:
    """Fits by L-BFGS, from zero, so that there is no seed.

    Args:
        rows: (N, D).
        labels: (N,) int64.
        classes: How many.
        decay: Weight of the squared norm of the matrix (rows are standardised first).

    Returns:
        Rows (M, D) -> their classes (M,).
    """
    mean, std = rows.mean(0), rows.std(0).clamp(min=1e-6)
    scaled = (rows - mean) / std
    weight, bias = (torch.zeros(shape, requires_grad=True) for shape in ((classes, rows.shape[1]), (classes,)))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scaled @ weight.T + bias, labels) + 0.5 * decay * weight.square().sum() / len(rows)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]

    def predict(more: Tensor) -> Tensor:
        return (((more - mean) / std) @ weight.detach().T + bias.detach()).argmax(-1)

    return predict
