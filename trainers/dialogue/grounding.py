"""Grounding: the box a model names for a phrase, beside the box in the middle and the mean box of a training set.

Source: the protocol of the RefCOCO sets as VPP-LLaVA's evaluation has it (arXiv 2503.15426): greedy answers, IoU of 0.5 or more is right,
every query counts, an answer without a box as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from modalign.zoo.metrics.box_text import parse_box
from modalign.zoo.metrics.grounding import grounding_scores
from modalign.zoo.metrics.grounding_baselines import grounding_baselines, mean_box

from ..evaluation.task import Table
from .measuring import SHUFFLED, DialogueTask, numbered, score_table, shown
from .subject import Asked, DialogueSubject

_COLUMNS = {"accuracy@0.5": "Acc@0.5", "accuracy@0.25": "Acc@0.25", "mean_iou": "mean IoU"}
_THRESHOLDS = (0.25, 0.5)


@dataclass
class GroundingTask(DialogueTask):
    """The place of every phrase that stands for one place of its picture.

    Attributes:
        question: What the user says, with {phrase}; default as the model was trained.
    """

    name: ClassVar[str] = "grounding"
    question: str | None = None
    max_new_tokens: int = 48

    def measure(self, subject: DialogueSubject) -> dict[str, Any]:
        """See `MeasuringTask.measure`.

        Raises:
            DataError: If no sample has a region with a phrase.
        """
        asks = subject.config.question if subject.config.ask in ("regions", None) else []
        config = replace(subject.config, ask="regions", question=[self.question] if self.question else asks)
        asked = self.some(subject.asked(config), subject, "a region with a phrase of its own")
        names = numbered(asked)
        boxes = {name: one.question.box or () for name, one in zip(names, asked, strict=True)}
        sizes = {name: one.sample.images[0].size for name, one in zip(names, asked, strict=True)}
        written = self.answered(subject, asked)
        metrics = grounding_scores(_boxes(subject, asked, written), boxes, _THRESHOLDS)
        baselines = grounding_baselines(boxes, sizes, self._mean(subject, config), _THRESHOLDS)
        if (elsewhere := self.answered_elsewhere(subject, asked)) is not None:
            baselines[SHUFFLED] = grounding_scores(_boxes(subject, asked, elsewhere), boxes, _THRESHOLDS)
        n = {"pictures": len({one.sample.key for one in asked}), "phrases": len(asked)}
        return subject.report("grounding", n, metrics=metrics, baselines=baselines, examples=shown(asked, written))

    def _mean(self, subject: DialogueSubject, config: Any) -> list[float] | None:
        if self.train_data is None:
            return None
        train = subject.asked(config, subject.open(self.train_data))
        names = numbered(train)
        boxes = {name: one.question.box or () for name, one in zip(names, train, strict=True)}
        return mean_box(boxes, {name: one.sample.images[0].size for name, one in zip(names, train, strict=True)})

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask.tables`."""
        n, unparsed = report["n"], report["metrics"]["unparsed"]
        title = f"grounding, in percent: {n['phrases']} phrases in {n['pictures']} pictures, {unparsed} answers without a box"
        return [score_table(report, title, _COLUMNS, percent=True)]


def _boxes(subject: DialogueSubject, asked: list[Asked], written: list[str]) -> dict[str, list[float] | None]:
    """Every answer's box in pixels."""
    found: dict[str, list[float] | None] = {}
    for name, one, text in zip(numbered(asked), asked, written, strict=True):
        box = parse_box(text)
        found[name] = None if box is None else subject.model.box_frame.pixels(box, one.sample.images[0].size)
    return found
