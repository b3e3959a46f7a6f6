"""Task `alignment`: how the vectors of pictures and captions lie to each other, and whether encoders agree before they are projected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.zoo.errors import DataError
from modalign.zoo.metrics.alignment_uniformity import alignment, cross_uniformity, uniformity
from modalign.zoo.metrics.cka import cka
from modalign.zoo.metrics.modality_gap import modality_gap
from modalign.zoo.metrics.neighbours import mutual_knn
from modalign.zoo.metrics.rows import unit

from .task import EvaluationTask, Subject, Table, mean_of
from .vectors import SetVectors

#: with fewer pairs of a language its numbers mean nothing
LEAST_PAIRS = 4
#: what is said of the joint space, and what of two spaces of any width: name in the result -> heading
GEOMETRY = {
    "modality_gap": "gap",
    "alignment": "alignment",
    "uniformity_image": "unif. image",
    "uniformity_text": "text",
    "uniformity_cross": "cross",
}
SPACES = {"cka": "CKA", "cka_unbiased": "unbiased", "cka_rbf": "RBF", "mutual_knn": "kNN"}


@dataclass
class AlignmentTask(EvaluationTask):
    """Modality gap, alignment, uniformity, CKA and mutual nearest neighbours of pictures and their first captions.

    Attributes:
        languages: Caption languages, each measured by itself; default all there are.
        neighbours: k of the mutual nearest neighbours; fewer where there are few pairs.
        sigma: Width of the RBF kernel of CKA, on unit vectors.
        most_pairs: Measure on so many pairs at most, evenly spaced over the set: the time grows with their square.
    """

    neighbours: int = 10
    sigma: float = 1.0
    most_pairs: int = 4096
    name: ClassVar[str] = "alignment"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """See `EvaluationTask`.

        Raises:
            DataError: If no language has enough pairs.
        """
        vectors = subject.vectors(self.languages, True, encoder_features=True)
        by_language, encoders, shuffled, left_out = {}, {}, {}, []
        for lang in dict.fromkeys(vectors.text_lang):
            captions = [i for i, name in enumerate(vectors.text_lang) if name == lang]
            if len(captions) < LEAST_PAIRS:
                left_out.append(lang)
                continue
            captions = _evenly(captions, self.most_pairs)
            image, text = vectors.image[vectors.text_row[captions]], vectors.text[captions]
            by_language[lang] = {"n": len(captions), **self._of_pairs(image, text)}
            shuffled[lang] = self._of_spaces(image, text[_others(len(text))])
            encoders[lang] = self._of_spaces(*_before_projector(subject, vectors, captions))
        if not by_language:
            raise DataError(
                f"alignment needs at least {LEAST_PAIRS} pictures with a caption in one language; {subject.data} has none"
            )
        return subject.report(
            self.name,
            {"images": len(vectors.keys), "languages": len(by_language), "left_out": left_out},
            metrics=mean_of(list(by_language.values())),
            baselines={
                "shuffled": mean_of(list(shuffled.values())),
                "encoders": {**mean_of(list(encoders.values())), "by_language": encoders},
            },
            by_language=by_language,
        )

    def _of_pairs(self, image: Tensor, text: Tensor) -> dict[str, float]:
        found = {
            "modality_gap": modality_gap(image, text),
            "alignment": alignment(image, text),
            "uniformity_image": uniformity(image),
            "uniformity_text": uniformity(text),
            "uniformity_cross": cross_uniformity(image, text),
        }
        return {name: round(value, 4) for name, value in found.items()} | self._of_spaces(image, text)

    def _of_spaces(self, image: Tensor, text: Tensor) -> dict[str, float]:
        """What can be said of spaces of different widths; on unit vectors."""
        image, text = unit(image), unit(text)
        found = {
            "cka": cka(image, text),
            "cka_unbiased": cka(image, text, unbiased=True),
            "cka_rbf": cka(image, text, kernel="rbf", sigma=self.sigma),
            "mutual_knn": mutual_knn(image, text, min(self.neighbours, len(image) - 1)),
        }
        return {name: round(value, 4) for name, value in found.items()}

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `EvaluationTask`."""
        by_language, encoders = report["by_language"], report["baselines"]["encoders"]
        tables = dict(by_language) | ({"mean": report["metrics"]} if len(by_language) > 1 else {})
        geometry = [(lang, table.get("n", ""), *[f"{table[name]:.3f}" for name in GEOMETRY]) for lang, table in tables.items()]
        before = {**encoders["by_language"], "mean": encoders}
        spaces = [
            (lang, *[f"{side[name]:.3f}" for name in SPACES for side in (before[lang], table)]) for lang, table in tables.items()
        ]
        shuffled = report["baselines"]["shuffled"]
        spaces.append(("shuffled", *[cell for name in SPACES for cell in ("", f"{shuffled[name]:.3f}")]))
        data = f"{report['n']['images']} pictures and their first captions, {report['data']}"
        return [
            Table(f"joint space: {data}", ("language", "pairs", *GEOMETRY.values()), geometry),
            Table(
                f"agreement of image and text vectors, before and after the projectors: {data}",
                ("language", *[cell for name in SPACES.values() for cell in (name, "after")]),
                spaces,
            ),
        ]


def _evenly(rows: list[int], most: int) -> list[int]:
    """At most so many of the rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]


def _others(count: int) -> Tensor:
    """An order in which nothing stays in its place."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    shuffled = torch.empty_like(order)
    shuffled[order] = order.roll(1)
    return shuffled


def _before_projector(subject: Subject, vectors: SetVectors, captions: list[int]) -> tuple[Tensor, Tensor]:
    """What image and text encoder give for the pairs."""
    assert vectors.image_features is not None
    text = subject.texts.features([vectors.texts[i] for i in captions])
    return vectors.image_features[vectors.text_row[captions]].flatten(1), text
