"""samples.csv: which samples each step saw, for audits and for the proof that a resumed run sees the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl


class SampleLog(pl.Callback):
    """Appends `step,key key key ...` per step; a resumed run first cuts off the steps it does again.

    Args:
        path: The file; with several ranks each writes its own, with the rank in the name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops lines of steps that come (again), and a half-written last line."""
        if trainer.world_size > 1:
            self.path = self.path.with_suffix(f".rank{trainer.global_rank}.csv")
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        done = [line for line in lines if "," in line and int(line.split(",", 1)[0]) < trainer.global_step]
        self.path.write_text("".join(f"{line}\n" for line in done), encoding="utf-8")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Writes one line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"{trainer.global_step},{' '.join(batch['keys'])}\n")
