"""Captions of the same samples in two languages, as sentence pairs and as a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modalign.zoo.metrics.maps.lexicon import Lexicon


@dataclass
class Parallel:
    """Sentence pairs of a language and the pivot.

    Attributes:
        source: Distinct captions of the language (S).
        target: Distinct captions of the pivot (T).
        pairs: (P, 2) rows of source and target, each distinct pair once: what translates what.
    """

    source: list[str]
    target: list[str]
    pairs: Tensor

    def lexicon(self, rows: Tensor | None = None, backwards: bool = False) -> Lexicon:
        """The pairs as a test dictionary, all of them or some rows; `backwards` from the pivot to the language."""
        pairs = self.pairs if rows is None else self.pairs[rows]
        pairs = pairs.flip(1) if backwards else pairs
        return Lexicon(pairs, len(pairs[:, 0].unique()))

    def one_to_one(self) -> Tensor:
        """(n, 2) pairs in which no caption comes twice, the first of each: MEXA fails what stands twice."""
        seen: tuple[set[int], set[int]] = (set(), set())
        kept = []
        for source, target in self.pairs.tolist():
            if source not in seen[0] and target not in seen[1]:
                kept.append((source, target))
                seen[0].add(source)
                seen[1].add(target)
        return torch.tensor(kept).reshape(-1, 2)

    def halves(self) -> tuple[Tensor, Tensor]:
        """Rows of `pairs` in two halves that share no caption of either side: pairs that hang together stay together."""
        parent = list(range(len(self.source) + len(self.target)))

        def root(node: int) -> int:
            while parent[node] != node:
                parent[node] = node = parent[parent[node]]
            return node

        for source, target in self.pairs.tolist():
            parent[root(source)] = root(len(self.source) + target)
        groups: dict[int, list[int]] = {}
        for row, (source, _) in enumerate(self.pairs.tolist()):
            groups.setdefault(root(source), []).append(row)
        sides: tuple[list[int], list[int]] = ([], [])
        for rows in groups.values():
            min(sides, key=len).extend(rows)
        return torch.tensor(sides[0]), torch.tensor(sides[1])


def parallel(captions: Iterable[Mapping[str, Sequence[str]]], language: str, pivot: str) -> Parallel:
    """Pairs of the first captions of every sample that has both languages.

    Args:
        captions: Every sample's captions by language.
        language: The one.
        pivot: The other.
    """
    source: dict[str, int] = {}
    target: dict[str, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    for sample in captions:
        if sample.get(language) and sample.get(pivot):
            rows = (
                source.setdefault(sample[language][0], len(source)),
                target.setdefault(sample[pivot][0], len(target)),
            )
            pairs[rows] = None
    return Parallel(list(source), list(target), torch.tensor(list(pairs)).reshape(-1, 2))
