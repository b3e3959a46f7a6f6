"""POPE: is there such a thing in the picture? Yes or no, for things that are there and for things that are not.

Source: "Evaluating Object Hallucination in Large Vision-Language Models" (arXiv 2305.10355); questions are built from boxes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from modalign.datasets.dialogue import regions_of
from modalign.zoo.language.turns import ImagePart, TextPart, conversation
from modalign.zoo.metrics.pope import pope_scores
from modalign.zoo.metrics.pope_questions import pope_questions, question_text, with_enough

from ..evaluation.task import Table
from .asking import Question
from .measuring import SHUFFLED, DialogueTask, score_table, shown
from .subject import Asked, DialogueSubject

_COLUMNS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "yes_ratio": "yes"}


@dataclass
class PopeTask(DialogueTask):
    """Accuracy, precision, recall and F1 of yes-or-no questions about what is in a picture.

    Attributes:
        split: How absent things are chosen: `random`, `popular` (frequent ones), or `adversarial` (frequent beside what is there).
        per_picture: Questions of each answer and picture.
        seed: Of the draws.
    """

    name: ClassVar[str] = "pope"
    split: Literal["random", "popular", "adversarial"] = "random"
    per_picture: int = 3
    seed: int = 0
    max_new_tokens: int = 8

    def measure(self, subject: DialogueSubject) -> dict[str, Any]:
        """See `MeasuringTask.measure`.

        Raises:
            DataError: If no picture has enough categories.
        """
        asked, truth = self._asked(subject)
        asked = self.some(asked, subject, f"boxes of {self.per_picture} categories")
        truth = dict(list(truth.items())[: len(asked)])
        written = self.answered(subject, asked)
        baselines = {"always yes": pope_scores(dict.fromkeys(truth, "yes"), truth)}
        if (elsewhere := self.answered_elsewhere(subject, asked)) is not None:
            baselines[SHUFFLED] = pope_scores(dict(zip(truth, elsewhere, strict=True)), truth)
        n = {"pictures": len({one.sample.key for one in asked}), "questions": len(asked), "split": self.split}
        metrics = pope_scores(dict(zip(truth, written, strict=True)), truth)
        return subject.report("pope", n, metrics=metrics, baselines=baselines, examples=shown(asked, written))

    def _asked(self, subject: DialogueSubject) -> tuple[list[Asked], dict[str, bool]]:
        samples = {sample.key: sample for sample in subject.samples() if sample.images}
        present = {key: {region.category for region in regions_of(sample) if region.category} for key, sample in samples.items()}
        categories = sorted(set().union(*present.values())) if present else []
        enough = with_enough(present, categories, self.per_picture)
        questions = pope_questions(enough, categories, self.split, k=self.per_picture, seed=self.seed) if enough else []
        asked, truth = [], {}
        for question in questions:
            text = question_text(question.category)
            dialogue = conversation(("user", [ImagePart(0), TextPart(f"\n{text}")]))
            asked.append(Asked(samples[question.image], Question(dialogue, ("yes" if question.answer else "no",))))
            truth[question.key] = question.answer
        return asked, truth

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask.tables`."""
        n = report["n"]
        title = f"POPE ({n['split']}), in percent: {n['questions']} questions about {n['pictures']} pictures"
        return [score_table(report, title, _COLUMNS, percent=True)]
