"""How a model is trained: the task, stages, optimisers, callbacks, checkpoint I/O, the command line.

Example:
    >>> from modalign.trainers import train
    >>> train("proclip/openmoji", run_dir="runs/mine", seed=1)   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipe import Recipe, load_recipe
    from .run import train

__all__ = ["Recipe", "load_recipe", "train"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module 'modalign.trainers' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(".run" if name == "train" else ".recipe", __name__), name)
