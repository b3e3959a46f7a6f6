"""A stage's batches as one long run: epochs follow each other without Lightning knowing of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modalign.datasets.loading.planned import PlannedLoader


class StageStream:
    """All batches of a stage, `steps` of them, over as many epochs of a loader as that takes.

    Lightning sees one epoch whose length is known, so that resuming is nothing but starting at a step: no batch is lost to its
    look-ahead, and nothing depends on where an epoch ends.

    Args:
        loader: The loader.
        steps: Length of the stage.
    """

    def __init__(self, loader: PlannedLoader, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self.step = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.step < self.steps:
            self.loader.seek(*divmod(self.step, len(self.loader)))
            for batch in self.loader:
                self.step += 1
                yield batch
                if self.step == self.steps:
                    break

    @property
    def epoch(self) -> float:
        """Epochs handed out so far."""
        return self.step / len(self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Position as plain values; valid for any world size and worker count."""
        self.loader.seek(*divmod(self.step, len(self.loader)))
        return {"step": self.step, "loader": self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved position.

        Raises:
            DataError: If it was saved with other data, seed or batch size.
        """
        self.loader.load_state_dict(state["loader"])
        self.step = int(state["step"])
