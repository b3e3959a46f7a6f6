"""One direction, positives and negatives in one entry: each positive is followed by its h negatives.

The data makes such groups of a sample's caption and of h texts of its field `negatives` (`data.negatives: h`).

Source: `SimpleContrastiveLoss` of GradCache (arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import AssemblyError, RecipeError
from .base import Loss, LossValue
from .parts.candidates import candidates_loss
from .parts.distributed import gather, rank
from .parts.precision import at_least_float32
from .parts.rows import check_chunk, check_number


def grouped_negatives_loss(
    query: Tensor, grouped: Tensor, negatives: int, logit_scale: Tensor | float = 1.0, *, chunk: int | None = None
) -> Tensor:
    """`mean_i CE(s q_i Yᵀ, i (h + 1))`, one direction; Y holds each query's positive followed by its h negatives.

    Args:
        query: q (B, D) unit vectors.
        grouped: Y (B·(h + 1), D) unit vectors.
        negatives: h.
        logit_scale: s.
        chunk: Rows of logits at a time.

    Returns:
        Scalar. Over ranks: local; `GroupedNegativesLoss` gathers.
    """
    labels = torch.arange(len(query), device=query.device) * (negatives + 1)
    return candidates_loss(query, grouped, labels, logit_scale, chunk=chunk)[0]


class GroupedNegativesLoss(Loss):
    """Each query finds its positive among groups of one positive and h negatives; see `grouped_negatives_loss`.

    Over ranks: the groups of all ranks are candidates; mean value and averaged gradients are those of one process.

    Args:
        negatives: h, negatives behind each positive.
        scale: s, a number, or the name of the entry that holds it exponentiated.
        chunk: Rows of logits at a time, computed again in the backward pass.
        query: Name of the queries (B, D).
        grouped: Name of the texts (B·(h + 1), D), each positive followed by its negatives.
    """

    def __init__(
        self,
        negatives: int,
        scale: float | str = "logit_scale",
        chunk: int | None = None,
        query: str = "image_embedding",
        grouped: str = "grouped_text_embedding",
    ) -> None:
        super().__init__()
        if negatives < 0:
            raise RecipeError(f"negatives: {negatives} negatives behind each positive are not possible; give 0 or more")
        check_number(None if isinstance(scale, str) else scale, "scale", open_end=True)
        self.negatives, self.scale, self.chunk = negatives, scale, check_chunk(chunk)
        self.query, self.grouped = query, grouped

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.query, self.grouped} | ({self.scale} if isinstance(self.scale, str) else set()))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `grouped_negatives_loss`; also reports the top-1 accuracy.

        Raises:
            AssemblyError: If the texts are not h + 1 times as many as the queries.
        """
        query, grouped = self.entry(self.query, outputs, batch), self.entry(self.grouped, outputs, batch)
        size = self.negatives + 1
        if len(grouped) != len(query) * size:
            raise AssemblyError(
                f"{len(query)} queries in groups of 1 positive and {self.negatives} negatives need {len(query) * size} rows of "
                f"{self.grouped!r}, not {len(grouped)}; set negatives here and data.negatives to the same number"
            )
        labels = torch.arange(rank() * len(query), (rank() + 1) * len(query), device=query.device) * size
        candidates = gather(at_least_float32(grouped))
        scale = self.entry(self.scale, outputs, batch) if isinstance(self.scale, str) else self.scale
        value, accuracy = candidates_loss(query, candidates, labels, scale, chunk=self.chunk)
        return LossValue(value, {"accuracy": accuracy})
