"""Ctrl-C and SIGTERM: the step is finished, a checkpoint written, and the process says how to go on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl


class StoppedBySignal(BaseException):
    """Training was asked to stop and has saved its state.

    Attributes:
        number: The signal.
        step: Steps done.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}; the same command continues there")
        self.number, self.step = number, step


class StopOnSignal(pl.Callback):
    """Stops between two steps; a second signal stops at once.

    An interrupt in the middle of a step would leave half an optimiser step behind. With several ranks Lightning's own handling
    stays in place, since ranks would notice a signal at different steps.

    Args:
        folder: Where checkpoints of the stage go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes over both signals, from the main thread only."""
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and stops, if a signal came."""
        if self.received is not None:
            trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:08d}.ckpt")
            raise StoppedBySignal(self.received, trainer.global_step)
