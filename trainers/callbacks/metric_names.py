"""The names validation can decide by, known before anything trains."""

from __future__ import annotations

from modalign.zoo.errors import RecipeError, nearest

from ..data_kind import Kind


def check_metric(name: str | None, kind: Kind, where: str) -> str:
    """The metric that decides, and an error for the name of one that validation does not measure.

    Args:
        name: As in a recipe's `validate.metric`; None takes the kind's own.
        kind: What is trained on.
        where: Dotted place in the recipe, for the message.

    Raises:
        RecipeError: With the nearest name there is.
    """
    known = kind.metrics()
    if name is None:
        return kind.metric
    if name not in known:
        raise RecipeError(f"{where}: there is no {name!r}{nearest(name, known)}")
    return name
