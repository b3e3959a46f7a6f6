"""Ctrl-C, SIGTERM and SIGUSR1: the step is finished, a checkpoint written, and the process says how to go on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


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
    """Stops between two steps, all ranks after the same one; a second signal stops at once.

    An interrupt in the middle of a step would leave half an optimiser step behind. Ranks notice a signal at different moments, so they
    agree: at a poll the highest signal any of them has seen counts for all. SIGUSR1 is what SLURM sends ahead of a time limit.

    Args:
        folder: Where checkpoints of the stage go.
        poll_every: Steps between polls on an accelerator, where each costs a synchronisation; on the CPU every step polls.
    """

    def __init__(self, folder: Path, poll_every: int = 10) -> None:
        self.folder, self.poll_every = folder, poll_every
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals, from the main thread only, and after Lightning has set its own handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves and stops, if a signal came to any rank."""
        number = self._agreed(trainer, pl_module.device)
        if number:
            trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:08d}.ckpt")
            raise StoppedBySignal(number, trainer.global_step)

    def _agreed(self, trainer: pl.Trainer, device: torch.device) -> int:
        if trainer.world_size == 1:
            return self.received or 0
        if device.type != "cpu" and trainer.global_step % self.poll_every:
            return 0
        seen = torch.tensor(self.received or 0, device=device)
        torch.distributed.all_reduce(seen, torch.distributed.ReduceOp.MAX)
        return int(seen.item())
