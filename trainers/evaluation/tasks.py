"""Which evaluation tasks there are: `modalign eval --task NAME`, and `evaluate.task` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalign.zoo.configure import fill
from modalign.zoo.registry import Registry

from ..recipe.settings import EvaluateConfig
from .alignment import AlignmentTask
from .crosslingual import CrossLingualTask
from .retrieval import RetrievalTask
from .task import EvaluationTask
from .zeroshot import ZeroShotTask

TASKS = Registry("evaluation task", "modalign.tasks", {})
for _task in (RetrievalTask, ZeroShotTask, AlignmentTask, CrossLingualTask):
    TASKS.register(_task.name)(_task)


def build_task(name: str, settings: Mapping[str, Any], where: str) -> EvaluationTask:
    """A task with its settings.

    Args:
        name: Of `TASKS`.
        settings: Plain values.
        where: What messages call them.

    Raises:
        AssemblyError: If there is no such task.
        RecipeError: If a setting is unknown to the task or of the wrong type.
    """
    return fill(TASKS.get(name), settings, where)


def ordered_tasks(settings: EvaluateConfig) -> list[str]:
    """A recipe's tasks, retrieval first."""
    tasks = [settings.task] if isinstance(settings.task, str) else list(settings.task)
    return sorted(dict.fromkeys(tasks), key=lambda task: task != RetrievalTask.name)


def task_settings(settings: EvaluateConfig, task: str) -> dict[str, Any]:
    """Settings of one task: the recipe's caption languages, retrieval's first_caption, then the task's own options."""
    common: dict[str, Any] = {} if settings.languages is None or task == ZeroShotTask.name else {"languages": settings.languages}
    if task == RetrievalTask.name:
        common["first_caption"] = settings.first_caption
    return common | (settings.options.get(task) or {})
