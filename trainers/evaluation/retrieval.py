"""Task `retrieval`: does a caption find its picture among all, and a picture one of its captions?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from modalign.zoo.errors import AssemblyError
from modalign.zoo.metrics.ranked_lists import Relevance, ranked_lists
from modalign.zoo.metrics.retrieval import KS, Recall, chance_recall

from .task import EvaluationTask, Subject, Table, mean_of
from .vectors import SetVectors

WAYS = ("text_to_image", "image_to_text")


@dataclass
class RetrievalTask(EvaluationTask):
    """Recall at 1, 5 and 10 between pictures and captions, both ways.

    Attributes:
        languages: Caption languages, each measured by itself; `metrics` is their mean. Default all there are.
        first_caption: Only the first caption of each language.
        dim: Keep the first values of every vector only, made unit vectors again (Matryoshka).
        recall: `hit`, a picture is found if any of its captions is in the top K; `true`, the share of its captions that are.
        detailed: Add mean and median rank, MRR, mAP@K and nDCG@K.
    """

    first_caption: bool = False
    dim: int | None = None
    recall: Recall = "hit"
    detailed: bool = False
    name: ClassVar[str] = "retrieval"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """See `EvaluationTask`.

        Raises:
            AssemblyError: If `dim` is more than the model has.
        """
        width = subject.model.config.embed_dim
        if self.dim is not None and not 1 <= self.dim <= width:
            raise AssemblyError(f"dim: {self.dim} is not between 1 and {width}, the width of this model's joint space")
        vectors = subject.vectors(self.languages, self.first_caption).truncated(self.dim)
        result = vectors.retrieval(recall=self.recall, statistics=self.detailed, over_ranks=subject.over_ranks)
        if self.detailed:
            result = _with_ranked_lists(result, vectors, subject.over_ranks)
        images = len(vectors.keys)
        chance = {f"R@{k}": chance_recall(images, k) for k in KS}
        given = {"first_caption": self.first_caption, "dim": self.dim, "recall": self.recall}
        settings = {key: value for key, value in given.items() if value not in (False, None, "hit")}
        return subject.report(
            self.name,
            {"images": images, "texts": len(vectors.texts)},
            metrics=result["metrics"],
            baselines={"chance": {"text_to_image": chance}},
            by_language=result["by_language"],
            **({"settings": settings} if settings else {}),
        )

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `EvaluationTask`."""
        rows = [(name, *row_of(table)) for name, table in report["by_language"].items()]
        if len(rows) > 1:
            rows.append(("mean", *row_of(report["metrics"])))
        chance = report["baselines"]["chance"]["text_to_image"]
        rows.append(("chance", chance["R@1"], chance["R@5"], chance["R@10"], "", "", ""))
        header = ("language", "t→i R@1", "R@5", "R@10", "i→t R@1", "R@5", "R@10")
        found = [Table(f"retrieval in percent: {counted(report)}", header, rows)]
        if "mean_rank" in report["metrics"]["text_to_image"]:
            found.append(_details(report))
        return found


def counted(report: Mapping[str, Any]) -> str:
    """How many pictures and captions of what were measured, and which captions where it is not all of them."""
    first = " (the first of each language)" if report.get("settings", {}).get("first_caption") else ""
    return f"{report['n']['images']} pictures, {report['n']['texts']} captions{first} of {report['data']}"


def row_of(table: Mapping[str, Mapping[str, float]]) -> list[Any]:
    """R@1, R@5, R@10 text to image, then image to text."""
    return [table[way][f"R@{k}"] for way in WAYS for k in KS]


def _with_ranked_lists(result: Mapping[str, Any], vectors: SetVectors, over_ranks: bool) -> dict[str, Any]:
    """The result with mAP@K and nDCG@K beside the recalls; all captions of a picture are equally right."""
    by_language = {}
    for lang, recalls in result["by_language"].items():
        chosen = torch.tensor([i for i, name in enumerate(vectors.text_lang) if name == lang])
        text, row = vectors.text[chosen], vectors.text_row[chosen]
        caption = torch.arange(len(chosen))
        lists = {
            "text_to_image": ranked_lists(text, vectors.image, Relevance(caption, row), over_ranks=over_ranks),
            "image_to_text": ranked_lists(vectors.image, text, Relevance(row, caption), over_ranks=over_ranks),
        }
        by_language[lang] = {way: {**recalls[way], **lists[way]} for way in WAYS}
    return {"metrics": mean_of(list(by_language.values())), "by_language": by_language}


def _details(report: Mapping[str, Any]) -> Table:
    names = ("mean_rank", "median_rank", "MRR", "mAP@10", "nDCG@10")
    tables = {**report["by_language"], **({"mean": report["metrics"]} if len(report["by_language"]) > 1 else {})}
    ways = dict(zip(WAYS, ("t→i", "i→t"), strict=True))
    rows = [(f"{lang} {ways[way]}", *[table[way][name] for name in names]) for lang, table in tables.items() for way in WAYS]
    header = ("language", *[name.replace("_", " ") for name in names])
    return Table("ranks (from 1), and in percent the mean reciprocal rank, mAP and nDCG", header, rows)
