"""What the tasks of time-series models make of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.loader import Prepare


def preparation(model: Any, config: SeriesConfig, batch_size: int | None = None) -> Prepare | None:
    """What is made of a batch of windows before a model sees it; None where windows are used as they are."""
    if model.config.task == "imputation":
        return Hide(config.mask_rate)
    if model.config.task == "anomaly":
        return reconstruct
    return None


class Hide:
    """Imputation: hides a share of the values at random; those are what is to be found.

    Args:
        rate: Share of the values that are hidden, element by element.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, batch: dict[str, Any], draws: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """`observed` is what is left, `target_observed` what was hidden of what was there."""
        values = batch["values"]
        hidden = torch.from_numpy(np.stack([_random(draw, tuple(values.shape[1:])) for draw in draws])) < self.rate
        there = batch.get("observed", torch.ones_like(hidden))
        found = {"target": values.clone(), "target_observed": hidden & there, "observed": ~hidden & there}
        return batch | found | {"values": values.masked_fill(hidden, 0)}


def _random(draw: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1) that depend on (seed, epoch, place) alone: the same for any number of ranks and workers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([number % 2**64 for number in draw]))).random(shape)


def reconstruct(batch: dict[str, Any], draws: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Anomaly detection: the window is its own target."""
    values: Tensor = batch["values"]
    mask = {"target_observed": batch["observed"]} if "observed" in batch else {}
    return batch | {"target": values} | mask
