"""What a stage starts from: its model, with the weights it takes over, and its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign import zoo
from modalign.zoo.checkpoints.release import find_release, read_release
from modalign.zoo.errors import RecipeError, nearest
from modalign.zoo.registry import FAMILIES

from .recipe import Recipe, StageConfig
from .recipe.settings import teachers_of

#: stage name -> its finished release
StageRelease = Callable[[str], Path]


@dataclass
class Start:
    """A model at the start of a stage.

    Attributes:
        model: The model.
        trained: Names of parameters that earlier stages trained.
    """

    model: Any
    trained: frozenset[str]


def build_model(recipe: Recipe, name: str, release_of: StageRelease) -> Start:
    """The model of a stage, with its starting weights.

    A stage without a model and without `init_from` of its own goes on with what the last stage of the recipe's model left, else
    with the recipe's `init_from`, else with a fresh model.

    Raises:
        RecipeError: If there is no model to be had or parts do not fit.
    """
    stage = recipe.stages[name]
    source = _source(recipe, name, release_of)
    settings = stage.model or recipe.model
    if source is not None and (settings is None or (stage.take is None and stage.init_from is None)):
        return _whole(source)
    if settings is None:
        assert source is not None
        return _whole(source)
    model = build_family(settings, f"stages.{name}.model" if stage.model else "model")
    if source is None:
        return Start(model, frozenset())
    return _with_parts(model, source, stage, f"stages.{name}")


def add_adapters(model: Any, stage: StageConfig, where: str) -> None:
    """Puts the stage's LoRA beside the language model's matrices, unless there is some already.

    Raises:
        RecipeError: If the model has no language model to adapt.
    """
    if stage.lora is None:
        return
    if not hasattr(model, "add_lora"):
        raise RecipeError(f"{where}.lora: {model.family} is no stack with a language model; take it out")
    if model.config.lora is None:
        model.add_lora(stage.lora)


def build_family(settings: Mapping[str, Any], where: str) -> Any:
    """A fresh model from plain settings with a `family`.

    Raises:
        RecipeError: If there is no family or a setting is wrong.
    """
    settings = dict(settings)
    family = settings.pop("family", None)
    if family is None:
        raise RecipeError(f"{where}: say which family (there are: {', '.join(FAMILIES.names())})")
    return FAMILIES.get(family).from_settings(settings, where)


def _source(recipe: Recipe, name: str, release_of: StageRelease) -> Path | None:
    stage = recipe.stages[name]
    if stage.init_from is not None:
        return _release(stage.init_from, recipe, release_of)
    if stage.model is not None:
        return None
    names = list(recipe.stages)
    before = [other for other in names[: names.index(name)] if recipe.stages[other].model is None]
    if before:
        return release_of(before[-1])
    return None if recipe.init_from is None else find_release(recipe.init_from)


def _release(text: str, recipe: Recipe, release_of: StageRelease) -> Path:
    return release_of(text) if text in recipe.stages else find_release(text)


def _whole(source: Path) -> Start:
    model = zoo.load(source)
    return Start(model, _trained_before(source, model))


def _trained_before(source: Path, model: Any) -> frozenset[str]:
    """Parameters of the pretrained parts that a release includes: in an adapter those are the ones that were trained."""
    _, release = read_release(source)
    if release["kind"] == "full":
        return frozenset(name for name, _ in model.named_parameters())
    parts = [part for part, about in release["parts"].items() if about["included"]]
    return frozenset(name for name, _ in model.named_parameters() if name.split(".")[0] in parts)


def _with_parts(model: Any, source: Path, stage: StageConfig, where: str) -> Start:
    donor = zoo.load(source)
    prefixes: tuple[str, ...] = ()
    for part in stage.take if stage.take is not None else list(model.parts):
        if part not in model.parts:
            raise RecipeError(f"{where}.take: the model has no part {part!r}{nearest(part, model.parts)}")
        prefixes += tuple(model.parts[part])
    state, given = model.state_dict(), donor.state_dict()
    wanted = [key for key in state if key.startswith(prefixes)]
    for key in wanted:
        if key not in given or given[key].shape != state[key].shape:
            there = "is not there" if key not in given else f"is {tuple(given[key].shape)}"
            raise RecipeError(
                f"{where}.init_from: {key} is {tuple(state[key].shape)} here and {there} in {source.parent.name}; "
                "take only the parts both models share, with the same settings"
            )
    model.load_state_dict({key: given[key] for key in wanted}, strict=False)
    trained = frozenset(name for name in _trained_before(source, donor) if name.startswith(prefixes))
    return Start(model, trained)


def build_teachers(recipe: Recipe, stage: StageConfig, release_of: StageRelease) -> list[Any]:
    """Teachers other than `self`: models of stages or releases, frozen, in eval mode."""
    sources = [source for source in teachers_of(stage) if source != "self"]
    teachers = [zoo.load(_release(source, recipe, release_of)) for source in sources]
    return [teacher.requires_grad_(False).eval() for teacher in teachers]
