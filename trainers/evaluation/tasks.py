"""Which evaluation tasks there are: `modalign eval --task NAME`, and `evaluate.task` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalign.zoo.configure import constructor_types, fill
from modalign.zoo.registry import Registry

from ..dialogue.caption import CaptionTask
from ..dialogue.grounding import GroundingTask
from ..dialogue.pope import PopeTask
from ..dialogue.vqa import VqaTask
from ..recipe.settings import EvaluateConfig
from ..series.anomaly import AnomalyTask
from ..series.classification import ClassificationTask
from ..series.forecast import ForecastTask
from ..series.imputation import ImputationTask
from ..series.short_term import ShortTermTask
from .alignment import AlignmentTask
from .crosslingual import CrossLingualTask
from .retrieval import RetrievalTask
from .task import MeasuringTask
from .zeroshot import ZeroShotTask

TASKS = Registry("evaluation task", "modalign.tasks", {})
_OF_PAIRS: tuple[type[MeasuringTask], ...] = (RetrievalTask, ZeroShotTask, AlignmentTask, CrossLingualTask)
_OF_SERIES: tuple[type[MeasuringTask], ...] = (ForecastTask, ImputationTask, AnomalyTask, ClassificationTask, ShortTermTask)
_OF_DIALOGUE: tuple[type[MeasuringTask], ...] = (CaptionTask, VqaTask, GroundingTask, PopeTask)
for _task in (*_OF_PAIRS, *_OF_SERIES, *_OF_DIALOGUE):
    TASKS.register(_task.name)(_task)


def build_task(name: str, settings: Mapping[str, Any], where: str) -> MeasuringTask:
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
    tasks = [settings.task] if isinstance(settings.task, str) else list(settings.task or ())
    return sorted(dict.fromkeys(tasks), key=lambda task: task != RetrievalTask.name)


def task_settings(settings: EvaluateConfig, task: str) -> dict[str, Any]:
    """Settings of one task: the recipe's caption languages, retrieval's first_caption, then the task's own options."""
    with_languages = (
        settings.languages is not None and "languages" in constructor_types(TASKS.get(task)) and task != ZeroShotTask.name
    )
    common: dict[str, Any] = {"languages": settings.languages} if with_languages else {}
    if task == RetrievalTask.name:
        common["first_caption"] = settings.first_caption
    return common | (settings.options.get(task) or {})
