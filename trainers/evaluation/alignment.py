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
#: k of the mutual nearest neighbours, the paper's
NEIGHBOURS = 10
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

    A language of k + 1 pairs or fewer has no mutual nearest neighbours in the result, and a note says so: every other pair would be a
    neighbour, and the share 1 whatever the vectors.

    Attributes:
        languages: Caption languages, each measured by itself; default all there are.
        neighbours: k of the mutual nearest neighbours; default 10.
        sigma: Width of the RBF kernel of CKA, on unit vectors.
        most_pairs: Measure on so many pairs at most, evenly spaced over the set: the time grows with their square.
    """

    neighbours: int | None = None
    sigma: float = 1.0
    most_pairs: int = 4096
    name: ClassVar[str] = "alignment"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """See `EvaluationTask`.

        Raises:
            DataError: If no language has enough pairs, or none enough for the `neighbours` asked for.
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
            settings={"neighbours": self._k, "sigma": self.sigma, "most_pairs": self.most_pairs},
            **self._note({lang: int(table["n"]) for lang, table in by_language.items()}, subject.data),
            metrics=mean_of(list(by_language.values())),
            baselines={
                "shuffled": mean_of(list(shuffled.values())),
                "encoders": {**mean_of(list(encoders.values())), "by_language": encoders},
            },
            by_language=by_language,
        )

    @property
    def _k(self) -> int:
        return NEIGHBOURS if self.neighbours is None else self.neighbours

    def _note(self, pairs: Mapping[str, int], data: str) -> dict[str, str]:
        """What is said of languages with too few pairs for k, if there are any."""
        few = [f"{lang} ({n})" for lang, n in pairs.items() if n - 1 <= self._k]
        if len(few) == len(pairs) and self.neighbours is not None:
            most = max(pairs.values()) - 2
            raise DataError(
                f"neighbours: {self._k} are too many for the pairs of {data}, of which a language has {most + 2} at most: all others would "
                f"be neighbours; give {most} or fewer, or leave it out"
            )
        what = f"no mutual kNN, because all others are among the {self._k} nearest, in {', '.join(few)}"
        return {"note": what} if few else {}

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
        }
        if self._k < len(image) - 1:  # else every other pair is a neighbour
            found["mutual_knn"] = mutual_knn(image, text, self._k)
        return {name: round(value, 4) for name, value in found.items()}

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `EvaluationTask`."""
        by_language, encoders = report["by_language"], report["baselines"]["encoders"]
        tables = dict(by_language) | ({"mean": report["metrics"]} if len(by_language) > 1 else {})
        geometry = [(lang, table.get("n", ""), *[f"{table[name]:.3f}" for name in GEOMETRY]) for lang, table in tables.items()]
        before = {**encoders["by_language"], "mean": encoders}
        shown = {name: heading for name, heading in SPACES.items() if name in report["metrics"]}
        spaces = [
            (lang, *[_cell(side, name) for name in shown for side in (before[lang], table)]) for lang, table in tables.items()
        ]
        shuffled = report["baselines"]["shuffled"]
        spaces.append(("shuffled", *[cell for name in shown for cell in ("", _cell(shuffled, name))]))
        data = f"{report['n']['images']} pictures and their first captions, {report['data']}"
        note = f"; {report['note']}" if "note" in report else ""
        return [
            Table(f"joint space: {data}", ("language", "pairs", *GEOMETRY.values()), geometry),
            Table(
                f"agreement of image and text vectors, before and after the projectors: {data}{note}",
                ("language", *[cell for heading in shown.values() for cell in (heading, "after")]),
                spaces,
            ),
        ]


def _cell(table: Mapping[str, Any], name: str) -> str:
    return f"{table[name]:.3f}" if name in table else ""


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
