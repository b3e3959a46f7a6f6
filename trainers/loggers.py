"""Loggers by name, besides metrics.csv; one that fails is switched off with a warning, and training goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from modalign.zoo.errors import RecipeError

from .console import warn


class Guarded(Logger):
    """A tracker that cannot stop a run: at its first error it says so and is silent from then on.

    Args:
        name: As in the recipe.
        inner: The tracker.
    """

    def __init__(self, name: str, inner: Logger) -> None:
        super().__init__()
        self._name, self.inner, self.broken = name, inner, False

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return self._name

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    def _try(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.broken:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:  # whatever a tracker's client may raise
            self.broken = True
            warn(
                f"logger {self._name} failed and is off for the rest of the stage; training goes on, metrics.csv has everything "
                f"({type(error).__name__}: {error})"
            )

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved recipe is saved with the run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Passes on."""
        self._try(self.inner.log_metrics, dict(metrics), step=step)

    def save(self) -> None:
        """Passes on."""
        self._try(self.inner.save)

    def finalize(self, status: str) -> None:
        """Passes on."""
        self._try(self.inner.finalize, status)


def build_loggers(names: Sequence[str], run: Path, stage: str) -> list[Logger]:
    """The trackers a recipe asks for.

    Args:
        names: `tensorboard`, `wandb`.
        run: The run folder; they write into it.
        stage: The stage.

    Raises:
        RecipeError: If one's package is not installed.
    """
    return [Guarded(name, _BUILDERS[name](run, stage)) for name in names]


def _tensorboard(run: Path, stage: str) -> Logger:
    try:
        return TensorBoardLogger(run, name="tensorboard", version=stage)
    except ModuleNotFoundError:
        raise RecipeError("trainer.loggers: tensorboard is not installed; pip install tensorboard") from None


def _wandb(run: Path, stage: str) -> Logger:
    try:
        offline = os.environ.get("WANDB_MODE", "offline") != "online"
        return WandbLogger(name=f"{run.name}/{stage}", save_dir=run, project="modalign", offline=offline)
    except ModuleNotFoundError:
        raise RecipeError("trainer.loggers: wandb is not installed; pip install wandb") from None


_BUILDERS: dict[str, Callable[[Path, str], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb}
