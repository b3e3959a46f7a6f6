"""One direction, fixed scale: each query finds its positive among all positives and all explicit negatives.

Source: `HardNegativeNLLLoss` of LLM2Vec (arXiv 2404.05961), as LLM2CLIP uses it with s = 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .base import Loss, LossValue
from .parts.candidates import candidates_loss, gathered_negatives
from .parts.pairs import gathered_pairs
from .parts.precision import at_least_float32
from .parts.rows import check_chunk, check_number


def explicit_negatives_loss(
    query: Tensor, positive: Tensor, negative: Tensor, logit_scale: Tensor | float = 50.0, *, chunk: int | None = None
) -> Tensor:
    """`mean_i -log exp(s q_i·d_i) / (Σ_j exp(s q_i·d_j) + Σ_j exp(s q_i·n_j))`, one direction.

    Args:
        query: q (B, D) unit vectors.
        positive: d (B, D) unit vectors; row i belongs to query i.
        negative: n (B, K, D) or (B·K, D) unit vectors; every query is scored against all of them.
        logit_scale: s.
        chunk: Rows of logits at a time.

    Returns:
        Scalar. Over ranks: local; `ExplicitNegativesLoss` gathers.
    """
    labels = torch.arange(len(query), device=query.device)
    candidates = torch.cat((at_least_float32(positive), at_least_float32(negative).reshape(-1, negative.shape[-1])))
    return candidates_loss(query, candidates, labels, logit_scale, chunk=chunk)[0]


class ExplicitNegativesLoss(Loss):
    """Each query finds its positive among all positives and all explicit negatives; see `explicit_negatives_loss`.

    Over ranks: positives and negatives of all ranks are candidates; mean value and averaged gradients are those of one process.

    Args:
        scale: s, a number, or the name of the entry that holds it exponentiated.
        chunk: Rows of logits at a time, computed again in the backward pass.
        query: Name of the queries (B, D).
        positive: Name of the positives (B, D).
        negative: Name of the negatives (B, K, D) or (B·K, D).
    """

    def __init__(
        self,
        scale: float | str = 50.0,
        chunk: int | None = None,
        query: str = "image_embedding",
        positive: str = "text_embedding",
        negative: str = "negative_text_embedding",
    ) -> None:
        super().__init__()
        check_number(None if isinstance(scale, str) else scale, "scale", open_end=True)
        self.scale, self.chunk = scale, check_chunk(chunk)
        self.query, self.positive, self.negative = query, positive, negative

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.query, self.positive, self.negative} | ({self.scale} if isinstance(self.scale, str) else set()))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `explicit_negatives_loss`; also reports the top-1 accuracy."""
        pairs = gathered_pairs(self.entry(self.query, outputs, batch), self.entry(self.positive, outputs, batch))
        candidates = torch.cat((pairs.all_text, gathered_negatives(self.entry(self.negative, outputs, batch))))
        scale = self.entry(self.scale, outputs, batch) if isinstance(self.scale, str) else self.scale
        value, accuracy = candidates_loss(pairs.image, candidates, pairs.labels, scale, chunk=self.chunk)
        return LossValue(value, {"accuracy": accuracy})
