"""Cross-entropy of class logits against labels: the supervised loss of classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from .base import Loss, LossValue
from .parts.precision import at_least_float32


class LabelCrossEntropy(Loss):
    """`-log softmax(z)_y`, mean over the batch, in float32 at least. Over ranks: local, a mean over samples.

    Args:
        logits: Name of the logits z (B, classes).
        label: Name of the labels y (B,), whole numbers.
        label_smoothing: Share of the target spread over all classes.
    """

    def __init__(self, logits: str = "logits", label: str = "label", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.logits, self.label, self.label_smoothing = logits, label, label_smoothing

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.logits, self.label})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See the class; the metric is the accuracy."""
        logits, label = at_least_float32(self.entry(self.logits, outputs, batch)), self.entry(self.label, outputs, batch)
        total = F.cross_entropy(logits, label, label_smoothing=self.label_smoothing, reduction="sum")
        value = total / max(len(label), 1)
        with torch.no_grad():
            accuracy = (logits.argmax(-1) == label).float().sum() / max(len(label), 1)
        return LossValue(value, {"accuracy": accuracy})
