"""The supervised loss of time series: the error of a forecast against what came, in the scale of the batch.

Source: the losses CALF's code offers (`utils/cmLoss.py`), of which l1 and smooth_l1 are in its recipes and smape in those for M4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .base import Loss, LossValue
from .parts.series_distance import Kind, MeanOver, series_distance


class SeriesError(Loss):
    """`distance(prediction, target)` of the entries that `target_observed` keeps; see `series_distance`.

    The reference masks terms but divides by the number of *all* entries, so that a batch with more padding has a smaller loss;
    `mean_over: all` does the same, `kept` is the mean of what is there. Over ranks: local, a mean over samples.

    Args:
        kind: `l1`, `smooth_l1` (beta 1), `mse`, `smape`, `mape` or `mase`.
        mean_over: `kept` or `all`.
        seasonality: m of mase.
        prediction: Name of the forecast (B, H, C).
        target: Name of the truth.
        mask: Name of what counts, bool of the same shape, where the batch has it; None counts all.
        insample: Name of the look-back, for mase.
        insample_mask: Name of what is there of it, where the batch has it; not read with `mean_over: all`, as in the reference.
    """

    def __init__(
        self,
        kind: Kind = "l1",
        mean_over: MeanOver = "kept",
        seasonality: int = 1,
        prediction: str = "prediction",
        target: str = "target",
        mask: str | None = "target_observed",
        insample: str = "values",
        insample_mask: str | None = "observed",
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.mean_over: MeanOver = mean_over
        self.seasonality = seasonality
        self.prediction, self.target, self.mask, self.insample = prediction, target, mask, insample
        self.insample_mask = insample_mask

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.prediction, self.target} | ({self.insample} if self.kind == "mase" else set()))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `series_distance`; the metric is the squared error of what counts."""
        prediction, target = self.entry(self.prediction, outputs, batch), self.entry(self.target, outputs, batch)
        mask = None if self.mask is None else self.optional(self.mask, outputs, batch)
        value = series_distance(
            prediction,
            target,
            self.kind,
            mask=mask,
            mean_over=self.mean_over,
            insample=self.entry(self.insample, outputs, batch) if self.kind == "mase" else None,
            insample_mask=None if self.insample_mask is None else self.optional(self.insample_mask, outputs, batch),
            seasonality=self.seasonality,
        )
        with torch.no_grad():
            squared = series_distance(prediction, target, "mse", mask=mask)
        return LossValue(value, {"mse": squared})
