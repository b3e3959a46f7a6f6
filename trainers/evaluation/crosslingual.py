"""Task `crosslingual`: do captions in other languages lie where the same samples' captions in the pivot language lie?

Measured on the text vectors alone, before the projector (what the embedder gives: the baseline) and after it. Pictures are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from modalign.zoo.errors import DataError, nearest
from modalign.zoo.metrics.maps.csls import Method
from modalign.zoo.metrics.maps.lexicon import translation_precision
from modalign.zoo.metrics.maps.procrustes import procrustes
from modalign.zoo.metrics.mexa import chance_mexa, mexa
from modalign.zoo.metrics.retrieval import KS
from modalign.zoo.metrics.rows import unit

from ..caches import caption_lists
from .layers import mexa_of_layers
from .parallel_captions import Parallel, parallel
from .task import EvaluationTask, Subject, Table, mean_of

Vectors = tuple[Tensor, Tensor]
Embed = Callable[[Sequence[str]], Tensor]
METHODS: tuple[Method, ...] = ("nn", "csls")
BEFORE, AFTER = "before_projector", "after_projector"
WAYS = ("to_pivot", "from_pivot")


@dataclass
class CrossLingualTask(EvaluationTask):
    """MEXA and caption translation (P@1, P@5, P@10) between a pivot language and every other.

    Attributes:
        languages: Languages to compare with the pivot; default all there are.
        pivot: The language compared with.
        train_data: Shards whose parallel captions the rotation of `mapped` is fitted on; default the evaluated captions themselves in two
            halves, each translated by the rotation fitted on the other.
        neighbourhood: CSLS's k.
        stay: Weight per pair of leaving vectors where they are (`procrustes`): more turns less where pairs are few.
        least_pairs: Leave out languages with fewer distinct pairs.
        layers: Add MEXA of each layer of the text encoder, on so many pairs at most; 0 leaves it out, the paper takes 100.
    """

    pivot: str = "en"
    train_data: str | None = None
    neighbourhood: int = 10
    stay: float = 1e-6
    least_pairs: int = 10
    layers: int = 0
    name: ClassVar[str] = "crosslingual"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """See `EvaluationTask`.

        Raises:
            DataError: If the pivot or a language is not there, or no language has enough pairs with the pivot.
        """
        captions = list(caption_lists(subject.shards))
        train = None if self.train_data is None else list(caption_lists(subject.open(self.train_data)))
        languages = _languages(captions, self.languages, self.pivot, subject.data)
        pairs = {lang: parallel(captions, lang, self.pivot) for lang in languages}
        left_out = [lang for lang in languages if len(pairs[lang].one_to_one()) < self.least_pairs]
        chosen = {lang: made for lang, made in pairs.items() if lang not in left_out}
        if not chosen:
            raise DataError(
                f"no language of {subject.data} has {self.least_pairs} captions of samples that have one in {self.pivot!r} too; "
                "choose another --pivot, or fewer --least_pairs"
            )
        fits = {} if train is None else {lang: parallel(train, lang, self.pivot) for lang in chosen}
        wanted = [*chosen.values(), *fits.values()]
        subject.texts.features([text for made in wanted for text in (*made.source, *made.target)])
        spaces: dict[str, dict[str, Any]] = {BEFORE: {}, AFTER: {}}
        steps = chosen.items() if subject.progress is None else subject.progress(chosen.items(), len(chosen), "languages")
        for lang, made in steps:
            spaces[BEFORE][lang] = self._of_language(made, subject.texts.features, fits.get(lang))
            spaces[AFTER][lang] = self._of_language(made, subject.texts.vectors, fits.get(lang))
            if self.layers:
                spaces[BEFORE][lang]["layers"] = mexa_of_layers(subject, made, self.layers)
        return self._report(subject, chosen, spaces, left_out)

    def _of_language(self, made: Parallel, embed: Embed, fit: Parallel | None) -> dict[str, Any]:
        """All numbers of one language in one space."""
        source, target = unit(embed(made.source)), unit(embed(made.target))
        alone = made.one_to_one()
        found: dict[str, Any] = {
            "n": len(made.pairs),
            "mexa": round(100 * mexa(target[alone[:, 1]], source[alone[:, 0]]), 4),
            **_pooled([self._precisions(made, source, target)]),
        }
        parts = []
        if fit is not None:
            if len(fit.pairs) > 1:
                learnt = (unit(embed(fit.source)), unit(embed(fit.target)))
                parts.append(self._precisions(made, *_turned((source, target), learnt, fit.pairs, self.stay)))
        else:
            halves = made.halves()
            for learn, test in (halves, halves[::-1]) if min(map(len, halves)) > 1 else ():
                turned = _turned((source, target), (source, target), made.pairs[learn], self.stay)
                parts.append(self._precisions(made, *turned, test))
        return found | ({"mapped": _pooled(parts)} if parts else {})

    def _precisions(self, made: Parallel, source: Tensor, target: Tensor, rows: Tensor | None = None) -> dict[str, Any]:
        """P@k both ways by plain cosine and by CSLS, over all pairs or some, always among all captions of the other side."""
        found: dict[str, Any] = {}
        for way in WAYS:
            sides = (source, target) if way == "to_pivot" else (target, source)
            lexicon = made.lexicon(rows, backwards=way == "from_pivot")
            found[way] = {}
            for method in METHODS:
                found[way][method] = translation_precision(*sides, lexicon, method=method, k=self.neighbourhood)
        return found

    def _report(
        self, subject: Subject, chosen: Mapping[str, Parallel], spaces: Mapping[str, dict[str, Any]], left_out: list[str]
    ) -> dict[str, Any]:
        before, after = (list(spaces[space].values()) for space in (BEFORE, AFTER))
        chance = [
            {
                "mexa": 100 * chance_mexa(len(made.one_to_one())),
                **{f"P@{k}": 100 * min(k, len(made.target)) / len(made.target) for k in KS},
            }
            for made in chosen.values()
        ]
        return subject.report(
            self.name,
            {
                "languages": len(chosen),
                "pairs": sum(len(made.pairs) for made in chosen.values()),
                "pivot": self.pivot,
                "left_out": left_out,
            },
            metrics=mean_of(after),
            baselines={"chance": mean_of(chance), BEFORE: {**mean_of(before), "by_language": spaces[BEFORE]}},
            by_language=spaces[AFTER],
        )

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `EvaluationTask`."""
        before = report["baselines"][BEFORE]
        names = list(report["by_language"])
        rows = [_row(lang, before["by_language"][lang], report["by_language"][lang]) for lang in names]
        if len(rows) > 1:
            rows.append(_row("mean", before, report["metrics"]))
        chance = report["baselines"]["chance"]
        rows.append(("chance", "", chance["mexa"], "", *[chance["P@1"], ""] * 2))
        n = report["n"]
        title = (
            f"captions of {n['languages']} languages and their translations in {n['pivot']!r}, before and after the projector, percent: "
            f"MEXA, P@1 by CSLS, P@1 after a rotation; {n['pairs']} pairs of {report['data']}"
        )
        header = ("language", "pairs", *[cell for name in ("MEXA", "P@1", "turned") for cell in (name, "after")])
        return [Table(title, header, rows)]


def _row(lang: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[object, ...]:
    places = (
        lambda table: table["mexa"],
        lambda table: table["to_pivot"]["csls"]["P@1"],
        lambda table: table["mapped"]["to_pivot"]["csls"]["P@1"] if "mapped" in table else "",
    )
    return (lang, after.get("n", ""), *[place(table) for place in places for table in (before, after)])


def _languages(captions: Sequence[Mapping[str, Any]], asked: Sequence[str] | None, pivot: str, data: str) -> list[str]:
    """Languages to compare with the pivot, in the order they are met.

    Raises:
        DataError: If one that was asked for is not there.
    """
    there = list(dict.fromkeys(lang for sample in captions for lang, texts in sample.items() if texts))
    for lang in (pivot, *(asked or ())):
        if lang not in there:
            raise DataError(f"{data}: no caption in language {lang!r}{nearest(lang, there)}")
    return [lang for lang in (there if asked is None else asked) if lang != pivot]


def _turned(vectors: Vectors, learnt: Vectors, pairs: Tensor, stay: float) -> Vectors:
    """Both sides centred on the learnt pairs' means, and the source turned by the rotation learnt from them."""
    means = [side[pairs[:, i]].mean(0) for i, side in enumerate(learnt)]
    source, target = (unit(side - mean) for side, mean in zip(vectors, means, strict=True))
    x, y = (unit(side[pairs[:, i]] - means[i]) for i, side in enumerate(learnt))
    # however small the weight, directions of which the pairs say nothing are left alone, not turned at random
    return source @ procrustes(x, y, identity=stay * len(pairs)).T, target


def _pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """P@k over all words of several parts of a dictionary, from nested tables with the number of words in each."""
    if "words" not in parts[0]:
        return {name: _pooled([part[name] for part in parts]) for name in parts[0]}
    words = sum(part["words"] for part in parts)
    return {f"P@{k}": round(sum(part[f"P@{k}"] * part["words"] for part in parts) / words, 4) for k in KS}
