"""MEXA: how far a language's sentences lie where their English translations lie (Kargaran et al. 2024, cisnlp/Mexa)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError
from .rows import check_choice, check_paired, unit

#: cosines closer than this are equal; the products of equal vectors may differ in their last bits
TIE = 1e-12


def mexa(pivot: Tensor, other: Tensor, chunk: int = 1024) -> float:
    """Share of sentences that are nearest to their translation, and their translation to them, among all n.

    `(1/n) #{i : c_ii > max_{j != i} c_ij and c_ii > max_{j != i} c_ji}`, c_ij the cosine of pivot_i and other_j, in [0, 1].
    Strictly greater: where two sentences are the same, both fail. The expectation for unrelated vectors is 1 / (2n - 1), so scores of
    different n are not comparable; the paper takes n = 100. Computed in float64, `chunk` rows at a time.

    Args:
        pivot: (n, D) vectors of the pivot language's sentences (the paper: English), of any length.
        other: (n, D) of their translations.
        chunk: Rows at a time.

    Raises:
        DataError: If rows are not paired.
    """
    check_paired("MEXA", pivot, other)
    pivot, other = unit(pivot.double()), unit(other.double())
    n = len(pivot)
    own, in_row = pivot.new_empty(n), pivot.new_empty(n)
    in_column = pivot.new_full((n,), float("-inf"))
    for start in range(0, n, chunk):
        scores = pivot[start : start + chunk] @ other.T
        here = torch.arange(start, start + len(scores), device=scores.device)
        own[here] = scores[here - start, here]
        scores[here - start, here] = float("-inf")
        in_row[here] = scores.amax(1)
        in_column = torch.maximum(in_column, scores.amax(0))
    return (own - torch.maximum(in_row, in_column) > TIE).double().mean().item()


def chance_mexa(sentences: int) -> float:
    """What unrelated vectors give: the chance that one entry is the largest of its row and column."""
    return 1 / (2 * sentences - 1)


def mexa_by_layer(pivot: Tensor, other: Tensor, chunk: int = 1024) -> list[float]:
    """MEXA of every layer, the embedding layer first.

    Args:
        pivot: (L, n, D) sentence vectors of the pivot language, one set per layer (`sentence_vectors`).
        other: (L, n, D) of their translations.
        chunk: Rows at a time.

    Raises:
        DataError: If shapes differ.
    """
    if pivot.ndim != 3 or pivot.shape != other.shape:
        raise DataError(f"MEXA by layer compares (layers, sentences, width); got {tuple(pivot.shape)} and {tuple(other.shape)}")
    return [mexa(one, two, chunk) for one, two in zip(pivot, other, strict=True)]


def over_layers(scores: list[float], pooling: Literal["mean", "max"] = "mean") -> float:
    """One score of the scores of all layers.

    Args:
        scores: From `mexa_by_layer`.
        pooling: Their `mean`, or the best layer's (`max`).
    """
    check_choice("pooling", pooling, ("mean", "max"))
    return max(scores) if pooling == "max" else sum(scores) / len(scores)
