"""An exponential moving average of the weights (Lightning's), over what changes in a stage and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel


class _Moving(nn.Module):
    """What changes in a stage, as a module of its own: the trained parameters and their batch-norm statistics."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.values = nn.ParameterList([entry.parameter for entry in task.trained])
        for number, buffer in enumerate(task.moving_buffers()):
            self.register_buffer(f"buffer{number}", buffer)


class AveragedWeights(EMAWeightAveraging):
    """Lightning's averaging with a state that resumes exactly.

    Checkpoints keep the current weights as their weights, and the average in this callback's state; a model of billions of frozen
    parameters is neither copied nor saved. At the end of training the average becomes the model.

    Args:
        decay: m of `θ* <- m θ* + (1-m) θ`, after every step; the first step's weights start it.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self._saved: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Nothing yet: what trains is known when training starts."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Makes the copy that is averaged, on the device the model is on by now, from a checkpoint if there is one."""
        self._average_model = AveragedModel(_Moving(pl_module), use_buffers=self._use_buffers, **self._kwargs)
        if self._saved is not None:
            self._average_model.load_state_dict(self._saved)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Averages."""
        super().on_train_batch_end(trainer, _Moving(pl_module), outputs, batch, batch_idx)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Nothing: a step averages, an epoch does not."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The average becomes the model."""
        self._copy_average_to_current(_Moving(pl_module))  # type: ignore[arg-type]

    @contextmanager
    def swapped(self, task: Any) -> Iterator[None]:
        """Within it the model holds the average."""
        moving: Any = _Moving(task)
        self._swap_models(moving)
        try:
            yield
        finally:
            self._swap_models(moving)

    @staticmethod
    def within(trainer: pl.Trainer, task: Any) -> AbstractContextManager[None]:
        """`swapped` of the trainer's average; nothing changes where there is none."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, AveragedWeights):
                return callback.swapped(task)
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the average itself and how far it is."""
        average = {} if self._average_model is None else dict(self._average_model.state_dict())
        return {**super().state_dict(), "average": average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        super().load_state_dict(state_dict)
        self._saved = state_dict["average"]

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Nothing: `state_dict` says it all."""

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Nothing: `load_state_dict` does it."""
