"""What the tasks of time-series models make of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.loader import Prepare


def preparation(model: Any, config: SeriesConfig) -> Prepare | None:
    """What is made of a batch of windows before a model sees it; None where windows are used as they are."""
    targets = len(model.config.series.target)
    if model.config.task == "imputation":
        return Hide(config.mask_rate, targets)
    if model.config.task == "anomaly":
        return Reconstruct(targets)
    return None


class Hide:
    """Imputation: hides a share of the values at random; those are what is to be found.

    Args:
        rate: Share of the values that are hidden, element by element.
        targets: How many of the channels are targets; past covariates behind them stay as they are.
    """

    def __init__(self, rate: float, targets: int) -> None:
        self.rate, self.targets = rate, targets

    def __call__(self, batch: dict[str, Any], draws: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """`observed` is what is left, `target_observed` what was hidden of what was there."""
        values, targets = batch["values"], self.targets
        hidden = torch.from_numpy(np.stack([_random(draw, tuple(values.shape[1:])) for draw in draws])) < self.rate
        hidden[..., targets:] = False
        there = batch.get("observed", torch.ones_like(hidden))
        found = {"target": values[..., :targets].clone(), "target_observed": (hidden & there)[..., :targets]}
        return batch | found | {"observed": ~hidden & there, "values": values.masked_fill(hidden, 0)}


def _random(draw: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1) that depend on (seed, epoch, place) alone: the same for any number of ranks and workers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([number % 2**64 for number in draw]))).random(shape)


class Reconstruct:
    """Anomaly detection: the window is its own target.

    Args:
        targets: How many of the channels are targets.
    """

    def __init__(self, targets: int) -> None:
        self.targets = targets

    def __call__(self, batch: dict[str, Any], draws: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """Adds `target` and, where something is missing, `target_observed`."""
        values: Tensor = batch["values"]
        mask = {"target_observed": batch["observed"][..., : self.targets]} if "observed" in batch else {}
        return batch | {"target": values[..., : self.targets]} | mask
