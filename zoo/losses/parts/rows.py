"""Means over the rows of a batch, optionally a chunk of rows at a time.

A contrastive loss is a mean over rows of a function of one row of logits, so its memory need not exceed one chunk of logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...errors import RecipeError

Sums = tuple[Tensor, ...]


def row_means(term: Callable[..., Sums], *by_row: Tensor, chunk: int | None = None) -> Sums:
    """`(1/B) Σ_i term(row i)`, exact for every chunk size.

    With a chunk the backward pass computes each chunk's logits again instead of keeping them: memory O(c N) instead of O(B N), for
    one more forward product.

    Args:
        term: Takes slices of `by_row` and returns sums over their rows; what does not depend on the row is in its closure.
        by_row: Tensors of B rows each, cut together.
        chunk: c rows at a time; None takes all at once.

    Returns:
        One mean per sum that `term` returns; 0, with a graph, if there are no rows.
    """
    count = len(by_row[0])
    if chunk is None or chunk >= count:
        sums = term(*by_row)
    else:
        pieces = zip(*(tensor.split(chunk) for tensor in by_row), strict=True)
        parts = [checkpoint(term, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
        sums = tuple(torch.stack(column).sum(0) for column in zip(*parts, strict=True))
    return tuple(total / max(count, 1) for total in sums)


def check_chunk(chunk: int | None, name: str = "chunk") -> int | None:
    """The setting, if it makes sense.

    Raises:
        RecipeError: If it is not positive.
    """
    if chunk is not None and chunk < 1:
        raise RecipeError(f"{name}: {chunk} rows at a time is not possible; give 1 or more, or leave it out for all at once")
    return chunk


def check_number(value: float | None, name: str, *, least: float = 0.0, most: float = math.inf, open_end: bool = False) -> None:
    """Refuses a setting that is not a finite number in a range; None is a setting that is not given.

    Args:
        value: The setting.
        name: Its name, for the message.
        least: Smallest value.
        most: Largest value.
        open_end: Whether `least` itself is excluded.

    Raises:
        RecipeError: If it is not.
    """
    if value is None:
        return
    fine = math.isfinite(value) and (least < value if open_end else least <= value) and value <= most
    if not fine:
        bounds = f"{'above' if open_end else 'at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
        raise RecipeError(f"{name}: {value} is not a finite number {bounds}")


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of rows whose largest logit is at their label; a metric, without gradient."""
    if logits.numel() == 0:
        return logits.new_zeros(())
    return (logits.detach().argmax(1) == labels).sum().to(logits.dtype)
