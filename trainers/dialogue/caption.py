"""Captions: BLEU, CIDEr and ROUGE-L against the references, beside a retrieval baseline and pictures that are not the right ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modalign.datasets.shards import ShardSet
from modalign.zoo.metrics.captions import caption_scores

from ..evaluation.task import Table
from .measuring import SHUFFLED, DialogueTask, score_table, shown
from .subject import Asked, DialogueSubject

_COLUMNS = {"BLEU-1": "BLEU-1", "BLEU-4": "BLEU-4", "CIDEr": "CIDEr", "ROUGE-L": "ROUGE-L"}
RETRIEVAL = "caption of the nearest training picture"


@dataclass
class CaptionTask(DialogueTask):
    """Captions of every picture against its references.

    Attributes:
        question: What the user says; default as the model was trained.
    """

    name: ClassVar[str] = "caption"
    question: str | None = None
    max_new_tokens: int = 40

    def measure(self, subject: DialogueSubject) -> dict[str, Any]:
        """See `MeasuringTask.measure`.

        Raises:
            DataError: If no sample has a caption.
        """
        config = replace(subject.config, ask="captions", question=[self.question] if self.question else subject.config.question)
        asked = self.some(subject.asked(config), subject, "a caption")
        right = {one.sample.key: list(one.question.answers) for one in asked}
        written = self.answered(subject, asked)
        baselines = {}
        if (elsewhere := self.answered_elsewhere(subject, asked)) is not None:
            baselines[SHUFFLED] = caption_scores(dict(zip(right, elsewhere, strict=True)), right)
        if self.train_data is not None:
            baselines[RETRIEVAL] = caption_scores(_retrieved(subject, asked, subject.open(self.train_data)), right)
        n = {"pictures": len(asked), "references": sum(map(len, right.values()))}
        metrics = caption_scores(dict(zip(right, written, strict=True)), right)
        return subject.report("caption", n, metrics=metrics, baselines=baselines, examples=shown(asked, written))

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask.tables`."""
        n = report["n"]
        return [score_table(report, f"captions: {n['pictures']} pictures, {n['references']} references", _COLUMNS)]


@torch.inference_mode()
def _retrieved(subject: DialogueSubject, asked: list[Asked], train: ShardSet) -> dict[str, str]:
    """For every picture the first caption of the training picture that the model's own image encoder finds most like it."""
    languages, texts, vectors = subject.languages, [], []
    for sample in subject.samples(train):
        captions = [text for lang in (languages or sample.captions) for text in sample.captions.get(lang, [])]
        if captions and sample.images:
            texts.append(captions[0])
            vectors.append(_vector(subject, sample.images[0]))
    known = F.normalize(torch.cat(vectors), dim=-1)
    found = {}
    for one in asked:
        like = F.normalize(_vector(subject, one.sample.images[0]), dim=-1) @ known.T
        found[one.sample.key] = texts[int(like.argmax())]
    return found


def _vector(subject: DialogueSubject, image: Any) -> Tensor:
    encoder = subject.model.image
    return encoder.pooled(encoder.preprocess(image)[None].to(subject.model.device)).float()
