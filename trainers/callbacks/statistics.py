"""Batch-norm statistics of a step that is left out: they change in the forward pass, before anybody knows that the step is bad."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


class KeepStatistics(pl.Callback):
    """Has the guard remember the statistics before every step, so that a step it leaves out leaves none of its own.

    Needed only where batch norms are in training mode. They are small: the copy costs nothing beside a step.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remembers."""
        pl_module.guard.remember(pl_module.moving_buffers())
