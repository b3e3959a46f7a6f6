"""Cross entropy of a linear head without its logits: a vocabulary of 128 k makes them the largest tensor of a step.

Source: the identity is elementary; the form (gradients computed with the value, a chunk of rows at a time) is that of fused linear
cross-entropy kernels such as Liger's (arXiv 2410.10989), here in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import at_least_float32, no_autocast


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    chunk: int = 1024,
) -> Tensor:
    """`Σ_i CE(W h_i + c, label_i) / #{label_i != ignore}`, exact, holding only (chunk, V) logits.

    Gradients are computed together with the value, so that logits are made once; the price is that of one (V, D) and one (N, D)
    tensor kept until the backward pass. Computed in float32 at least, whatever the autocast. Differentiable once.

    Args:
        hidden: h (..., D).
        weight: W (V, D), the head.
        labels: (...) int64.
        bias: c (V,).
        ignore_index: Label of rows that do not count.
        chunk: Rows at a time.

    Returns:
        Scalar, the mean over the rows that count; 0, with a graph, if none does. Over ranks: local.
    """
    total = linear_cross_entropy_sum(hidden, weight, labels, bias=bias, ignore_index=ignore_index, chunk=chunk)
    return total / (labels != ignore_index).sum().clamp(min=1)


def linear_cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    chunk: int = 1024,
    shares: Tensor | None = None,
) -> Tensor:
    """`linear_cross_entropy` before the division; arguments as there, and `shares` (...), what each row's loss is multiplied with."""
    rows = at_least_float32(hidden).reshape(-1, hidden.shape[-1])
    offset = None if bias is None else at_least_float32(bias)
    each = None if shares is None else shares.detach().reshape(-1).to(rows.dtype)
    with no_autocast(hidden):
        return _LinearCrossEntropy.apply(rows, at_least_float32(weight), offset, labels.reshape(-1), ignore_index, chunk, each)


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum over rows; see `linear_cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        ignore_index: int,
        chunk: int,
        shares: Tensor | None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:3]
        grads = [torch.zeros_like(t) if t is not None and need else None for t, need in zip((hidden, weight, bias), wanted)]
        total = hidden.new_zeros(())
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            logits = hidden[rows] @ weight.T if bias is None else torch.addmm(bias, hidden[rows], weight.T)
            total += _loss_and_logit_gradient(logits, labels[rows], ignore_index, None if shares is None else shares[rows])
            _accumulate(grads, rows, logits, hidden, weight)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if kept is None else kept * grad for kept in ctx.saved_tensors)
        return (*scaled, None, None, None, None)


def _loss_and_logit_gradient(logits: Tensor, labels: Tensor, ignore_index: int, shares: Tensor | None) -> Tensor:
    """Sum of the rows' losses times their shares; the logits are overwritten with its gradient, softmax minus one-hot."""
    counts = labels != ignore_index
    places = torch.arange(len(labels), device=labels.device), labels.masked_fill(~counts, 0)
    lse = logits.logsumexp(1)
    each = torch.where(counts, lse - logits[places], 0.0)
    logits.sub_(lse[:, None]).exp_()
    logits[places] -= 1.0
    logits.masked_fill_(~counts[:, None], 0.0)
    if shares is None:
        return each.sum()
    logits.mul_(shares[:, None])
    return (each * shares).sum()


def _accumulate(grads: list[Tensor | None], rows: slice, logits: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """Adds what one chunk's logit gradients give to hidden states, weight and bias."""
    of_hidden, of_weight, of_bias = grads
    if of_hidden is not None:
        of_hidden[rows] = logits @ weight
    if of_weight is not None:
        of_weight.addmm_(logits.T, hidden[rows])
    if of_bias is not None:
        of_bias += logits.sum(0)
