"""What Lightning refuses of the trainer's settings, as an error of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException

from modalign.zoo.errors import RecipeError

from .recipe import TrainerConfig


@contextmanager
def lightnings_refusal(settings: TrainerConfig) -> Iterator[None]:
    """Says what this machine cannot follow: an accelerator or devices it does not have, a strategy that is not installed.

    It is seen only here, not when the recipe is read: that may be on another machine than the one that trains.

    Args:
        settings: The recipe's trainer section.

    Raises:
        RecipeError: With Lightning's reason and the settings it may come from.
    """
    try:
        yield
    except (MisconfigurationException, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        asked = ", ".join(f"{name} {getattr(settings, name)!r}" for name in ("accelerator", "devices", "strategy", "precision"))
        raise RecipeError(
            f"trainer: this machine cannot train with {asked} ({reason}); change what it lacks, accelerator: auto takes what there is"
        ) from error
