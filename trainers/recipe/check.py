"""What the types of a recipe cannot say: values that contradict each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modalign.zoo.configure import check_keys, fill
from modalign.zoo.errors import AssemblyError, RecipeError, nearest

from .ranges import check_data_ranges, check_languages_named, check_stage_ranges, check_trainer_ranges, number
from .settings import DataConfig, EvaluateConfig, Recipe, StageConfig, teachers_of


def check_languages(values: Any, where: str) -> None:
    """YAML reads the code of Norwegian as False: says so, at any depth."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if str(key).endswith("languages") and isinstance(value, list) and any(isinstance(item, bool) for item in value):
                raise RecipeError(f"{where}.{key}: YAML reads no as a boolean; write the language code in quotes, 'no'")
            check_languages(value, f"{where}.{key}")


def check_recipe(recipe: Recipe, where: str) -> None:
    """Refuses a recipe that contradicts itself.

    Raises:
        RecipeError: Naming the place and what to change.
    """
    if not recipe.stages:
        raise RecipeError(f"{where}: stages is empty; a recipe has at least one")
    _check_model(recipe.model, f"{where}: model")
    for name in recipe.stages:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,63}", name):
            raise RecipeError(
                f"{where}: stages: {name!r} is no name for a stage, which names a folder: at most 64 letters, digits, '_', '-', '.'"
            )
        _check_stage(recipe, name, f"{where}: stages.{name}")
    check_trainer_ranges(recipe.trainer, f"{where}: trainer")
    check_data_ranges(recipe.data, f"{where}: data")
    number(recipe.seed, f"{where}: seed", least=0)
    for key, text in (("run_dir", recipe.run_dir), ("init_from", recipe.init_from)):
        if text is not None and not text.strip():
            raise RecipeError(f"{where}: {key} is empty; name a folder, or leave it out")
    if recipe.release is not None and recipe.release not in recipe.stages:
        raise RecipeError(f"{where}: release: there is no stage {recipe.release!r}{nearest(recipe.release, recipe.stages)}")
    if recipe.evaluate is not None:
        _check_evaluate(recipe.evaluate, f"{where}: evaluate")
        _check_measured(recipe, f"{where}: evaluate")
        _check_shown(recipe.evaluate, recipe.stages, f"{where}: evaluate")
        for name in recipe.measured():
            if not recipe.stage_data(name).test:
                raise RecipeError(
                    f"{where}: evaluate: stage {name!r} has nothing to measure on; give data.test, or take evaluate out"
                )


def _check_evaluate(settings: EvaluateConfig, place: str) -> None:
    """Tasks and their options are looked up now, not after hours of training."""
    from ..evaluation.tasks import TASKS, build_task, ordered_tasks, task_settings

    tasks = ordered_tasks(settings)
    if not tasks:
        raise RecipeError(f"{place}.task: name at least one task ({', '.join(TASKS.names())}), or take evaluate out")
    for task in tasks:
        if task not in TASKS.names():
            raise RecipeError(f"{place}.task: there is no task {task!r}{nearest(task, TASKS.names())}")
        build_task(task, task_settings(settings, task), f"{place}.options.{task}")
    for task in settings.options:
        if task not in tasks:
            raise RecipeError(f"{place}.options: {task!r} is not among the tasks ({', '.join(tasks)}); add it to task")


def _check_measured(recipe: Recipe, place: str) -> None:
    """The tasks are for the recipe's kind of data."""
    from ..data_kind import CALLED
    from ..evaluation.tasks import TASKS, ordered_tasks
    from ..kinds import known_kind

    kind = known_kind(recipe)
    for task in ordered_tasks(recipe.evaluate) if kind is not None and recipe.evaluate is not None else ():
        if kind is not None and TASKS.get(task).kind != kind.name:
            fitting = ", ".join(name for name in TASKS.names() if TASKS.get(name).kind == kind.name)
            raise RecipeError(
                f"{place}.task: {task} is not for a model of {CALLED[kind.name]}; what can be measured of it is {fitting}"
            )


def _check_shown(settings: EvaluateConfig, stages: Mapping[str, StageConfig], place: str) -> None:
    """What is measured, and what the report shows beside it, exists and can be compared."""
    for name in settings.stages or []:
        if name not in stages:
            raise RecipeError(f"{place}.stages: there is no stage {name!r}{nearest(name, stages)}")
    check_languages_named(settings.languages, f"{place}.languages")
    for label, values in settings.baselines.items():
        for metric, value in values.items():
            number(value, f"{place}.baselines.{label}.{metric}")


def _check_stage(recipe: Recipe, name: str, place: str) -> None:
    stage, names = recipe.stages[name], list(recipe.stages)
    if (stage.epochs is None) == (stage.steps is None):
        raise RecipeError(f"{place}: give one of epochs and steps")
    if not stage.train or not stage.losses:
        raise RecipeError(f"{place}: train and losses say what trains and on what; neither may be empty")
    check_stage_ranges(stage, place)
    _check_losses(stage, f"{place}.losses")
    _check_model(stage.model, f"{place}.model")
    _check_order(stage, names[names.index(name) :], name, place)
    for key, empty in (("take", stage.take == []), ("teacher", stage.teacher in ([], "")), ("init_from", stage.init_from == "")):
        if empty:
            raise RecipeError(f"{place}.{key}: it is empty; name something, or leave it out")
    if stage.teacher_decay != 1.0 and stage.teacher != "self":
        raise RecipeError(f"{place}.teacher_decay: only a teacher that is a copy of the model (teacher: self) can average it")
    _check_start(recipe, name, place)
    if stage.accumulate > 1 and stage.batch_norm == "train":
        raise RecipeError(
            f"{place}.accumulate: batch norms in training mode would see the parts, not the batch; set batch_norm: frozen"
        )
    if stage.ema is not None and recipe.trainer.strategy == "fsdp":
        raise RecipeError(f"{place}.ema: averaged weights are not kept for a sharded model; use strategy: ddp, or leave ema out")
    check_keys(DataConfig, stage.data, f"{place}.data")
    data = recipe.stage_data(name)
    check_data_ranges(data, f"{place}.data")
    if stage.cache.text and (data.pick == "joined" or data.second_caption == "first_sentence"):
        raise RecipeError(f"{place}.cache.text: only captions as they stand are cached, not joined ones or their first sentences")
    _check_validate(recipe, stage, f"{place}.validate")
    if stage.cache.image:
        _check_cache(data, f"{place}.cache.image")


def _check_start(recipe: Recipe, name: str, place: str) -> None:
    """A stage has a model: of the recipe's settings, its own, a release's, or what the stage before left."""
    stage, names = recipe.stages[name], list(recipe.stages)
    if recipe.model is not None or stage.model is not None:
        return
    if stage.take is not None:
        raise RecipeError(
            f"{place}.take: there is no model to put the parts into; give model, or leave take out and take the whole"
        )
    before = any(recipe.stages[other].model is None for other in names[: names.index(name)])
    if recipe.init_from is None and stage.init_from is None and not before:
        raise RecipeError(f"{place}: there is no model: give model, or init_from with a release that says what it is")


def _check_model(settings: Mapping[str, Any] | None, place: str) -> None:
    """Family and settings are looked up now; what the parts' sources hold is seen when the stage starts."""
    from modalign.zoo.registry import FAMILIES

    if settings is None:
        return
    if "family" not in settings:
        raise RecipeError(f"{place}: say which family (there are: {', '.join(FAMILIES.names())})")
    try:
        family = FAMILIES.get(settings["family"])
    except AssemblyError as error:
        raise RecipeError(f"{place}.family: {error}; one of your own comes with --allow_module MODULE") from None
    if hasattr(family, "Config"):
        fill(family.Config, {key: value for key, value in settings.items() if key != "family"}, place)


def _check_validate(recipe: Recipe, stage: StageConfig, place: str) -> None:
    """The deciding metric is looked up now, not at the first validation."""
    from ..callbacks.metric_names import check_metric
    from ..kinds import kind_of_recipe

    if stage.validate is not None:
        check_metric(stage.validate.metric, kind_of_recipe(recipe), f"{place}.metric")


def _check_losses(stage: StageConfig, place: str) -> None:
    """Losses and their settings are looked up now, not when the stage's turn comes."""
    from ..objective import Objective

    Objective(stage.losses, place)


def _check_order(stage: StageConfig, later: list[str], name: str, place: str) -> None:
    """What a stage builds on comes before it."""
    for key, sources in (("init_from", [stage.init_from]), ("teacher", teachers_of(stage))):
        for source in sources:
            if source in later:
                raise RecipeError(f"{place}.{key}: stage {source!r} does not come before {name!r}")
    if len(teachers_of(stage)) > 1 and "self" in teachers_of(stage):
        raise RecipeError(f"{place}.teacher: several teachers are stages or releases; self stands alone")


def _check_cache(data: DataConfig, place: str) -> None:
    if not data.augment.off:
        raise RecipeError(f"{place}: features are computed once, so random views would be lost; turn data.augment off")
    if data.on_error == "skip":
        raise RecipeError(
            f"{place}: features of a bad sample cannot be cached, so data.on_error: skip does not go with it; repair the shards "
            "(modalign data check names the samples; modalign data pack --on_error skip leaves them out), or turn one off"
        )
