"""Ctrl-C, SIGTERM and SIGUSR1: the step is finished, a checkpoint written, and the process says how to go on."""

from __future__ import annotations

import signal
import threading
import time
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
    agree: at a poll the highest signal any of them has seen counts for all. A poll makes the ranks (and the host) wait for each other, so
    there is one about every `seconds`: each poll also agrees on the slowest rank's time per step, and from that on the step of the next.
    SIGUSR1 is what SLURM sends ahead of a time limit.

    Args:
        folder: Where checkpoints of the stage go.
        seconds: Time between polls of several ranks, as far as whole steps allow; one rank looks after every step.
    """

    def __init__(self, folder: Path, seconds: float = 1.0) -> None:
        self.folder, self.seconds = folder, seconds
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._polled, self._next = (0, 0.0), 0  # step and time of the last poll, step of the next

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals, from the main thread only, and after Lightning has set its own handlers."""
        self._polled, self._next = (trainer.global_step, time.monotonic()), trainer.global_step + 1
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
        last = trainer.global_step == pl_module.steps or trainer.should_stop  # the same on all ranks
        number = self._agreed(trainer.global_step, pl_module.device, trainer.world_size, last)
        if number:
            trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:08d}.ckpt")
            raise StoppedBySignal(number, trainer.global_step)

    def _agreed(self, step: int, device: torch.device, ranks: int, last: bool = False) -> int:
        """The signal that all ranks stop for after this step; 0 for none, or where it is not yet time to ask."""
        if ranks == 1:
            return self.received or 0
        if step < self._next and not last:
            return 0
        (before, then), now = self._polled, time.monotonic()
        seen = torch.tensor([self.received or 0, (now - then) / max(1, step - before)], dtype=torch.float32, device=device)
        torch.distributed.all_reduce(seen, torch.distributed.ReduceOp.MAX)
        number, per_step = seen.tolist()
        self._polled, self._next = (step, time.monotonic()), step + max(1, int(self.seconds / max(per_step, 1e-6)))
        return int(number)
