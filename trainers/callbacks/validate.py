"""Validation inside a stage: metrics on held-out data, the best checkpoint, early stop.

Every rank measures its share; the result is the same on all, and that of one process. It runs at the end of a step and
before that step's checkpoint is written, so that a run stopped anywhere validates at the same steps as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ..parallel.sharded import usable
from ..recipe import ValidateConfig
from .ema import AveragedWeights


class Validate(pl.Callback):
    """Measures every so many steps, keeps the best weights, and stops when nothing improves.

    Args:
        settings: The stage's.
        every: Steps between validations.
        measure: Metrics of a model by name; a collective.
        metric: The one that decides.
        higher: Whether higher is better.
        folder: Where `best` is kept.
    """

    def __init__(
        self,
        settings: ValidateConfig,
        every: int,
        measure: Callable[[Any], dict[str, float]],
        metric: str,
        higher: bool,
        folder: Path,
    ) -> None:
        self.settings, self.every, self.measure = settings, max(1, every), measure
        self.metric, self.higher, self.folder = metric, higher, folder
        self.best: float | None = None
        self.best_step = 0
        self.without_best = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stops where the checkpoint was written after the decision to stop: Lightning does not remember it."""
        self._stop_if_patience_is_over(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Validates, if it is time."""
        step = trainer.global_step
        if step % self.every and step != pl_module.steps:
            return
        with AveragedWeights.within(trainer, pl_module):
            with usable(pl_module.model):
                metrics = self.measure(pl_module.model)
            pl_module.train()
            for logger in trainer.loggers:
                logger.log_metrics({f"val/{name}": value for name, value in metrics.items()}, step=step)
            self._judge(trainer, step, metrics)

    def _judge(self, trainer: pl.Trainer, step: int, metrics: dict[str, float]) -> None:
        value = metrics[self.metric]
        if self.best is None or (value > self.best if self.higher else value < self.best):
            self.best, self.best_step, self.without_best = value, step, 0
            if self.settings.select == "best":
                trainer.save_checkpoint(self.folder / "best", weights_only=True)
            return
        self.without_best += 1
        self._stop_if_patience_is_over(trainer)

    def _stop_if_patience_is_over(self, trainer: pl.Trainer) -> None:
        if self.settings.patience is not None and self.without_best >= self.settings.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The best so far, saved with every checkpoint."""
        return {"best": self.best, "best_step": self.best_step, "without_best": self.without_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self.without_best = state_dict["without_best"]
