"""Queries that look for their positive among given candidates: the common part of the losses with hard negative texts.

Three losses use negatives that come with the data, each in its own way:

| loss | negatives come as | logits | directions |
|---|---|---|---|
| `explicit_negatives` | an entry of their own | scale 50 | query to text |
| `grouped_negatives` | behind each positive, in one entry with it | learned scale | query to text |
| `negclip` | an entry of their own | learned scale | both; negatives in image to text only |

`reweighted_negatives` asks nothing of the data: it weights the batch's own negatives.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .distributed import gather
from .precision import at_least_float32, no_autocast
from .rows import hits, row_means


def candidates_loss(
    query: Tensor, candidates: Tensor, labels: Tensor, logit_scale: Tensor | float, *, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`mean_i CE(s q_i Cᵀ, label_i)`: each query finds its positive among all candidates.

    Computed in float32 at least, whatever the autocast.

    Args:
        query: q (B, D) unit vectors.
        candidates: C (M, D) unit vectors, positives and negatives.
        labels: (B,) row of each query's positive among the candidates.
        logit_scale: s.
        chunk: Rows of logits at a time; the same value and gradients.

    Returns:
        (loss, share of queries whose positive scores highest). Over ranks: the mean is that of one process if the candidates are those
        of all ranks.
    """
    query, candidates = at_least_float32(query), at_least_float32(candidates)

    def term(rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        logits = logit_scale * rows @ candidates.T
        return F.cross_entropy(logits, places, reduction="sum"), hits(logits, places)

    with no_autocast(query):
        loss, accuracy = row_means(term, query, labels, chunk=chunk)
    return loss, accuracy


def gathered_negatives(negative: Tensor) -> Tensor:
    """(B, K, D) or (B·K, D) of each rank -> (W·B·K, D)."""
    return gather(at_least_float32(negative).reshape(-1, negative.shape[-1]))
