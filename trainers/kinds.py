"""What a stage does differently for the kinds of data there are: pairs of pictures and texts, windows of time series, conversations.

A family says its kind (`data_kind`); everything else of a stage (roles, losses, optimiser, checkpoints, ranks) is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modalign.zoo.errors import AssemblyError, ModalignError

from .data_kind import CALLED, DIALOGUE, PAIRS, SERIES, Kind

if TYPE_CHECKING:
    from .recipe import Recipe


def kind_named(name: str) -> Kind:
    """The kind of that name."""
    if name == SERIES:
        from .series.kind import SeriesKind

        return SeriesKind()
    if name == DIALOGUE:
        from .dialogue.kind import DialogueKind

        return DialogueKind()
    from .pair_kind import PairKind

    return PairKind()


def kind_of(model: Any) -> Kind:
    """The kind of a model or of a family's class."""
    return kind_named(getattr(model, "data_kind", PAIRS))


def only(model: Any, kind: str, command: str) -> Any:
    """The model, if a command is for its kind of data.

    Raises:
        AssemblyError: Saying what the model is.
    """
    if kind_of(model).name != kind:
        raise AssemblyError(
            f"modalign {command}: this {model.family} is a model of {CALLED[kind_of(model).name]}; give one of {CALLED[kind]} "
            "(modalign zoo list)"
        )
    return model


def kind_of_recipe(recipe: Recipe) -> Kind:
    """The kind of a recipe; pairs where that is not known yet."""
    return known_kind(recipe) or kind_named(PAIRS)


def known_kind(recipe: Recipe) -> Kind | None:
    """The kind of a recipe, by the family of its model, or of the release it starts from; None if there is no such family or release."""
    from modalign.zoo.registry import FAMILIES

    try:
        return kind_of(FAMILIES.get(_model_of(recipe)["family"]))
    except (ModalignError, KeyError):
        return None  # said where the model is built, with what to do about it


def task_of_recipe(recipe: Recipe, kind: Kind) -> str:
    """What the recipe's model is for, and so is measured by: of time series the task it does."""
    if kind.name != SERIES:
        return kind.task
    try:
        return str(_model_of(recipe).get("task", kind.task))
    except ModalignError:
        return kind.task


def _model_of(recipe: Recipe) -> Mapping[str, Any]:
    """Family and settings of the recipe's model, or of the release it starts from; nothing where it names neither."""
    settings = recipe.model or next((stage.model for stage in recipe.stages.values() if stage.model), None)
    started = [recipe.init_from, *(stage.init_from for stage in recipe.stages.values())]
    source = next((name for name in started if name and name not in recipe.stages), None)
    if settings is not None or source is None:
        return settings or {}
    from modalign.zoo.checkpoints.release import find_release, read_release

    release = read_release(find_release(source))[0]
    return {**(release.get("model") or {}), "family": release["family"]}
