"""Output consistency: what two branches predict should be the same.

Source: CALF (arXiv 2403.07300), output consistency loss: the distance of both branches' forecasts in the data's scale, gradient into both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Loss, LossValue
from .parts.series_distance import Kind, MeanOver, series_distance


class OutputConsistency(Loss):
    """`distance(first, second)` of two named outputs; see `series_distance`. Over ranks: local, a mean over samples.

    Args:
        first: Name of the forecast (B, H, C); for classification `logits`.
        second: Name of the other; in smape, mape and mase it is in the place of the truth. For classification `text_logits`.
        distance: `l1`, `smooth_l1`, `mse`, `smape`, `mape` or `mase`.
        mask: Name of what counts, bool of the same shape, where the batch has it; None counts all.
        mean_over: `kept` divides by what counts, `all` by all entries (the reference's M4 losses).
        seasonality: m of mase.
        insample: Name of the look-back, for mase.
        insample_mask: Name of what is there of it, where the batch has it; not read with `mean_over: all`, as in the reference.
    """

    def __init__(
        self,
        first: str = "prediction",
        second: str = "text_prediction",
        distance: Kind = "l1",
        mask: str | None = "target_observed",
        mean_over: MeanOver = "kept",
        seasonality: int = 1,
        insample: str = "values",
        insample_mask: str | None = "observed",
    ) -> None:
        super().__init__()
        self.first, self.second, self.mask, self.insample = first, second, mask, insample
        self.insample_mask = insample_mask
        self.distance: Kind = distance
        self.mean_over: MeanOver = mean_over
        self.seasonality = seasonality

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.first, self.second} | ({self.insample} if self.distance == "mase" else set()))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `series_distance`."""
        value = series_distance(
            self.entry(self.first, outputs, batch),
            self.entry(self.second, outputs, batch),
            self.distance,
            mask=None if self.mask is None else self.optional(self.mask, outputs, batch),
            mean_over=self.mean_over,
            insample=self.entry(self.insample, outputs, batch) if self.distance == "mase" else None,
            insample_mask=None if self.insample_mask is None else self.optional(self.insample_mask, outputs, batch),
            seasonality=self.seasonality,
        )
        return LossValue(value)
