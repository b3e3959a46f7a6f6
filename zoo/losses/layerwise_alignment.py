"""Layer-wise alignment: two branches' states compared at every depth, later layers weighing more.

Source: CALF (arXiv 2403.07300), feature regularisation loss; weights and reduction of its code (`utils/cmLoss.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .base import Loss, LossValue
from .parts.series_distance import series_distance

Distance = Literal["l1", "smooth_l1", "mse"]


def layerwise_alignment(first: Tensor, second: Tensor, *, gamma: float = 0.8, distance: Distance = "smooth_l1") -> Tensor:
    """`Σ_{i=0..N} gamma^(N - i) · mean |f_i - g_i|` (or smooth L1, or squared error).

    The last layer has weight 1, the input gamma^N. With the same distance c at every layer it is `c (1 - gamma^(N+1)) / (1 - gamma)`.

    Args:
        first: f (B, N + 1, …).
        second: g of the same shape; gradient flows into both.
        gamma: How much less a layer weighs than the one after it.
        distance: `l1`, `smooth_l1` (beta 1) or `mse`, the mean over all entries of a layer.

    Returns:
        Scalar, float32 at least.
    """
    layers = first.shape[1]
    terms = [
        gamma ** (layers - 1 - number) * series_distance(first[:, number], second[:, number], distance)
        for number in range(layers)
    ]
    return torch.stack(terms).sum()


class LayerwiseAlignment(Loss):
    """Layer-wise alignment of named stacks of states. Over ranks: local, a mean over samples.

    Args:
        first: Name of a stack (B, N + 1, …).
        second: Name of the other.
        gamma: See `layerwise_alignment`.
        distance: See `layerwise_alignment`.
    """

    def __init__(
        self, first: str = "series_layers", second: str = "text_layers", gamma: float = 0.8, distance: Distance = "smooth_l1"
    ) -> None:
        super().__init__()
        self.first, self.second, self.gamma = first, second, gamma
        self.distance: Distance = distance

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.first, self.second})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `layerwise_alignment`; the metric is the last layer's mean cosine."""
        first, second = self.entry(self.first, outputs, batch), self.entry(self.second, outputs, batch)
        value = layerwise_alignment(first, second, gamma=self.gamma, distance=self.distance)
        with torch.no_grad():
            cosine = torch.cosine_similarity(first[:, -1].float(), second[:, -1].float(), dim=-1)
        return LossValue(value, {"last_layer_cosine": cosine.sum() / max(cosine.numel(), 1)})
