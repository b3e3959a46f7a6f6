"""CoCa's captioning term: the cross entropy of a caption's next tokens.

Source: Yu et al. 2022 (arXiv 2205.01917); as in open_clip's `CoCaLoss`, whose default weight of 2.0 beside a contrastive
term of 1.0 belongs into the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .base import Loss, LossValue
from .parts.distributed import world_size
from .parts.linear_cross_entropy import linear_cross_entropy_sum
from .parts.precision import at_least_float32, no_autocast
from .parts.rows import check_chunk


def caption_loss(logits: Tensor, labels: Tensor, pad_id: int = 0) -> Tensor:
    """`-(1/#tokens) Σ log softmax(logits)[label]` over the labels that are not padding.

    Computed in float32 at least, whatever the autocast.

    Args:
        logits: (B, T, V); position t predicts label t, the shift is done.
        labels: (B, T) int64.
        pad_id: Label that does not count.

    Returns:
        Scalar; 0, with a graph, if every label is padding. Over ranks: local; `CaptionLoss` makes it global.
    """
    return _cross_entropy_sum(logits, labels, pad_id) / (labels != pad_id).sum().clamp(min=1)


def _cross_entropy_sum(logits: Tensor, labels: Tensor, pad_id: int) -> Tensor:
    with no_autocast(logits):
        rows = at_least_float32(logits).reshape(-1, logits.shape[-1])
        return F.cross_entropy(rows, labels.reshape(-1), ignore_index=pad_id, reduction="sum")


class CaptionLoss(Loss):
    """Caption cross entropy, mean over the tokens of the global batch.

    Over ranks: each rank's sum is divided by the mean number of tokens per rank, so that the mean of the ranks' values is the value of
    one process even where captions differ in length.

    Args:
        pad_id: Label that does not count; 0 in open_clip, usually -100 elsewhere.
        from_hidden: Read hidden states and the head's weight instead of logits, and never hold all logits.
        chunk: With `from_hidden`: positions at a time.
        logits: Name of the logits (B, T, V), of which position t predicts label t.
        labels: Name of the labels (B, T).
        hidden: Name of the hidden states (B, T, D).
        head: Name of the head's weight (V, D).
    """

    def __init__(
        self,
        pad_id: int = 0,
        from_hidden: bool = False,
        chunk: int = 1024,
        logits: str = "caption_logits",
        labels: str = "caption_labels",
        hidden: str = "caption_hidden",
        head: str = "caption_head",
    ) -> None:
        super().__init__()
        self.pad_id, self.from_hidden, self.chunk = pad_id, from_hidden, check_chunk(chunk) or chunk
        self.logits, self.labels, self.hidden, self.head = logits, labels, hidden, head

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.labels, self.hidden, self.head} if self.from_hidden else {self.labels, self.logits})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `caption_loss`."""
        labels = self.entry(self.labels, outputs, batch)
        if self.from_hidden:
            hidden, head = self.entry(self.hidden, outputs, batch), self.entry(self.head, outputs, batch)
            total = linear_cross_entropy_sum(hidden, head, labels, ignore_index=self.pad_id, chunk=self.chunk)
        else:
            total = _cross_entropy_sum(self.entry(self.logits, outputs, batch), labels, self.pad_id)
        tokens = (labels != self.pad_id).sum().to(total.dtype)
        if world_size() > 1:
            dist.all_reduce(tokens)
        return LossValue(total / (tokens / world_size()).clamp(min=1 / world_size()))
