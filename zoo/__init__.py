"""What a model is: encoders, projectors, losses, metrics, families, checkpoints.

Shape legend used in every docstring of the project: B batch, N media or captions in a batch, T text tokens,
V visual (or audio) tokens, C channels, L look-back, H horizon, D width.

Example:
    >>> from modalign import zoo
    >>> model = zoo.load("runs/openmoji")                                     # doctest: +SKIP
    >>> similarity = model.encode_text(["a red apple"]) @ model.encode_image([picture]).T   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.release import load, save_release
    from .registry import ENCODERS, FAMILIES, LOSSES, METRICS, PROJECTORS

__all__ = ["ENCODERS", "FAMILIES", "LOSSES", "METRICS", "PROJECTORS", "load", "save_release"]

_WHERE = {"load": ".checkpoints.release", "save_release": ".checkpoints.release"}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import modalign.zoo` costs no torch import."""
    if name not in __all__:
        raise AttributeError(f"module 'modalign.zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE.get(name, ".registry"), __name__), name)
