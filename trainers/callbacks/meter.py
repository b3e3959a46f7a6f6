"""Speed: samples per second and the share of time spent waiting for data, in the log and on the progress bar."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn

from ..console import console


class Meter(pl.Callback):
    """Logs the task's latest metrics with speed, learning rate and epoch every `log_every` steps, and has the guard read.

    Args:
        batch_size: Global batch size.
        log_every: Steps between rows.
        steps_per_epoch: For the epoch column.
        speak: Also print a line every few seconds: for output that is not a terminal and has no progress bar.
    """

    def __init__(self, batch_size: int, log_every: int, steps_per_epoch: int, speak: bool = False) -> None:
        self.batch_size, self.log_every, self.steps_per_epoch, self.speak = batch_size, log_every, steps_per_epoch, speak
        self._spoke = 0.0
        self.samples_per_second = 0.0
        self.wait_share = 0.0
        self._waited = 0.0
        self._mark = self._window = 0.0
        self._steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clocks."""
        self._mark = self._window = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """The time since the last batch ended was spent waiting for this one."""
        self._waited += time.perf_counter() - self._mark

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs, if it is time."""
        self._steps += 1
        self._mark = time.perf_counter()
        if trainer.global_step % self.log_every == 0 or trainer.global_step == pl_module.steps:
            self._log(trainer, pl_module, batch)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """What was logged before a checkpoint is on disk before it: a run that goes on from there has no gap."""
        pl_module.guard.check()
        for logger in trainer.loggers:
            logger.save()

    def _log(self, trainer: pl.Trainer, task: Any, batch: Any) -> None:
        task.guard.check()
        metrics = {name: trainer.strategy.reduce(value.float().mean(), reduce_op="mean") for name, value in task.latest.items()}
        elapsed = max(self._mark - self._window, 1e-9)
        self.samples_per_second = self._steps * self.batch_size / elapsed
        self.wait_share = min(1.0, self._waited / elapsed)
        extra = {
            "samples_per_second": self.samples_per_second,
            "data_wait_share": self.wait_share,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "epochs": trainer.global_step / self.steps_per_epoch,
        }
        for logger in trainer.loggers:
            logger.log_metrics({**{name: value.item() for name, value in metrics.items()}, **extra}, step=trainer.global_step)
        self._window, self._waited, self._steps = self._mark, 0.0, 0
        if self.speak and self._mark - self._spoke > 10:
            self._spoke = self._mark
            console.print(
                f"step {trainer.global_step}/{task.steps}: loss {metrics['loss'].item():.4g}, "
                f"{self.samples_per_second:.0f} samples/s, {self.wait_share:.0%} of the time waiting for data"
            )


class StageProgress(RichProgressBar):
    """Lightning's progress bar with loss, samples/s and the share of time spent waiting for data instead of the version number.

    Args:
        meter: Where the numbers come from.
        stage: Shown as the bar's name.
    """

    def __init__(self, meter: Meter, stage: str) -> None:
        super().__init__(leave=True)
        self.meter, self.stage = meter, stage

    def _get_train_description(self, current_epoch: int) -> str:
        return self.stage

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Lightning's columns without batches per second, and a short bar, so that the numbers fit a terminal of 80 columns."""
        columns = [column for column in super().configure_columns(trainer) if type(column).__name__ != "ProcessingSpeedColumn"]
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 10
        return columns

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """What stands at the end of the bar."""
        if "loss" not in pl_module.latest:
            return {}
        return {
            "loss": f"{pl_module.latest['loss'].item():.3f}",
            "samples/s": f"{self.meter.samples_per_second:.0f}",
            "wait": f"{self.meter.wait_share:.0%}",
        }
