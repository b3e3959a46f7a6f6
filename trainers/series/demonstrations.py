"""Labelled series that a classifier is shown in front of every question: chosen once, left out of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet

from .data import windows_of


def show_demonstrations(model: Any, sets: Sequence[SeriesSet], config: SeriesConfig, seed: int) -> None:
    """Gives the model one training series of each class.

    Args:
        model: A classifier that takes demonstrations; it knows its columns.
        sets: The training sets; the first one is chosen from.
        config: How they are read.
        seed: Which choice.
    """
    from modalign.zoo.families.fsca.demonstrations import choose_demonstrations

    samples = windows_of(sets[0], model, config, "train")
    chosen = choose_demonstrations(samples.labels.tolist(), model.config.series.labels, seed)
    batch = samples.batch(chosen)
    observed: torch.Tensor | None = batch.get("observed")
    model.take_demonstrations(batch["values"], [samples.key(number) for number in chosen], observed)
