"""Ranks that go on from different checkpoints would train different models as if they were one: refused before the first step."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl

from modalign.zoo.metrics.over_ranks import gathered

from ..parallel.failure import RankError


class SameStart(pl.Callback):
    """Compares, as soon as the ranks are joined, what each found to go on from.

    Args:
        checkpoint: This rank's; None starts anew.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compares; a collective.

        Raises:
            RankError: On every rank, if one found another checkpoint than the first.
        """
        found = gathered("no checkpoint" if self.checkpoint is None else self.checkpoint.name)
        other = next((rank for rank, name in enumerate(found) if name != found[0]), None)
        if other is not None:
            raise RankError(
                f"rank 0 would go on from {found[0]}, rank {other} from {found[other]}; all must see the same files: is the run folder "
                "on a file system that every machine shares, and readable on each? Then start again"
            )
