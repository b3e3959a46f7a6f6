"""What a recipe measures after every stage: eval.json in the stage's folder, made once for the same settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.parts.distributed import rank, world_size
from modalign.zoo.metrics.over_ranks import agreed

from ..data_kind import PAIRS
from ..kinds import kind_of_recipe
from ..parallel.rank import global_rank
from ..recipe import EvaluateConfig, Recipe
from ..stage import Place
from ..stage_data import eval_features
from .command import print_report, write_json
from .dealing import together
from .tasks import build_task, ordered_tasks, task_settings
from .vectors import Features


def check_tests(recipe: Recipe, run: Path, names: Sequence[str]) -> None:
    """Opens what will be measured on before anything is trained: a wrong name or language should not cost the training.

    Args:
        recipe: The recipe.
        run: The run folder; what is finished there needs no training data any more.
        names: Stages that are about to run.

    Raises:
        DataError: If a set is not there, or has no caption in a language that is to be measured.
    """
    seen = set()
    for name in names:
        data = recipe.stage_data(name)
        sets = (data.test, repr(data.train))
        if data.test is None or name not in recipe.measured() or Place(run, name).done.exists() or sets in seen:
            continue
        seen.add(sets)
        kind_of_recipe(recipe).check_test(recipe, name)


def evaluate_stage(recipe: Recipe, run: Path, name: str) -> None:
    """Measures a finished stage on the test shards; a collective where the stage was trained by several ranks.

    The first task's result is the content of eval.json, retrieval's if it is among them; the others' stand in it under `also`.

    Raises:
        RecipeError: If there is nothing to measure on.
    """
    settings = recipe.evaluate
    if settings is None or name not in recipe.measured():
        return
    if world_size() == 1 and global_rank() > 0:
        return  # the stage was finished earlier, so that no ranks are joined: the first process measures alone
    data = recipe.stage_data(name).test
    if data is None:
        raise RecipeError("evaluate: there is nothing to measure on; give data.test, or take evaluate out")
    path, asked = Place(run, name).folder / "eval.json", _measured(settings, data)
    if agreed(_read_json(path) is not None and _read_json(path.with_name("eval_settings.json")) == asked):
        return
    subject = _subject(recipe, run, name)
    reports = [
        build_task(task, task_settings(settings, task), f"evaluate.options.{task}").measure(subject)
        for task in ordered_tasks(settings)
    ]
    if rank() > 0:
        return
    for report in reports:
        print_report(report)
    also = {report["task"]: report for report in reports[1:]}
    write_json(path, reports[0] | ({"also": also} if also else {}))
    write_json(path.with_name("eval_settings.json"), asked)


def _subject(recipe: Recipe, run: Path, name: str) -> Any:
    subject = kind_of_recipe(recipe).subject(recipe, Place(run, name).release, name, _device(recipe))
    subject.over_ranks = world_size() > 1
    if subject.kind != PAIRS:
        return subject

    def features() -> Features:
        assert recipe.evaluate is not None
        return eval_features(subject.model, subject.shards, recipe.evaluate.languages, recipe.stages[name].cache)

    subject.use(together(features))  # one process of a machine fills the cache, the others wait for it
    return subject


def released(recipe: Recipe, run: Path) -> Any | None:
    """The run's release and the data it is shown with, on the device of the run; None where the recipe measures nothing."""
    stage = recipe.release or list(recipe.stages)[-1]
    data = recipe.stage_data(stage).test
    if recipe.evaluate is None or data is None:
        return None
    subject = kind_of_recipe(recipe).subject(recipe, run / "release", stage, _device(recipe))
    if subject.kind == PAIRS:
        subject.use(eval_features(subject.model, subject.shards, recipe.evaluate.languages, recipe.stages[stage].cache))
    return subject


def _device(recipe: Recipe) -> str:
    """Where the stage was trained."""
    if recipe.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "cpu"


def _measured(settings: EvaluateConfig, data: str) -> dict[str, Any]:
    """What decides the numbers of an evaluation."""
    asked: dict[str, Any] = {"data": data, "task": settings.task, "languages": settings.languages}
    asked["first_caption"] = settings.first_caption
    return asked | ({"options": settings.options} if settings.options else {})


def _read_json(path: Path) -> Any | None:
    """The content of a JSON file; None if there is none or it cannot be read (it is made again then)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_evaluations(recipe: Recipe, run: Path) -> dict[str, dict[str, Any]]:
    """Stage -> the content of its eval.json, for the stages that have one."""
    found = {}
    for name in recipe.stages:
        if (content := _read_json(Place(run, name).folder / "eval.json")) is not None:
            found[name] = content
    return found


def results_of(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Task -> result, of the content of an eval.json."""
    first = {key: value for key, value in evaluation.items() if key != "also"}
    return {first["task"]: first, **evaluation.get("also", {})}


def of_task(evaluations: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, dict[str, Any]]:
    """Stage -> result of one task, for the stages that have it."""
    return {stage: results_of(content)[task] for stage, content in evaluations.items() if task in results_of(content)}
