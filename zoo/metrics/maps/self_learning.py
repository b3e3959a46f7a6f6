"""VecMap's presets (Artetxe et al. 2018): from a dictionary, a small one, identical words, or nothing but the vectors themselves.

All but `supervised` learn by themselves: map with the present dictionary, translate all frequent words with CSLS for a new one, and
again. A share of the similarities is left out at random, at first nine tenths, so that a poor dictionary does not confirm itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import DataError
from ..rows import check_choice
from ..top_k import mean_top
from .procrustes import procrustes
from .vecmap import AdvancedMap, advanced_map, normalised

Preset = Literal["supervised", "semi_supervised", "identical", "unsupervised"]
PRESETS = ("supervised", "semi_supervised", "identical", "unsupervised")


@dataclass
class SelfLearning:
    """VecMap's own settings.

    Attributes:
        vocabulary: Most frequent words of each side that are translated.
        neighbourhood: CSLS's.
        keep: Share of similarities kept at first.
        growth: Factor of `keep` after `patience` iterations without an improvement; it stops once `keep` has reached 1 and that is so.
        patience: See `growth`.
        threshold: What counts as an improvement of the mean best similarity.
        start: Words that the unsupervised start compares.
        iterations: Stop after so many; None only when converged.
        seed: Of what is left out.
        chunk: Words translated at a time.
    """

    vocabulary: int = 20_000
    neighbourhood: int = 10
    keep: float = 0.1
    growth: float = 2.0
    patience: int = 50
    threshold: float = 1e-6
    start: int = 4000
    iterations: int | None = None
    seed: int = 0
    chunk: int = 1024


def vecmap(
    source: Tensor,
    target: Tensor,
    preset: Preset = "supervised",
    *,
    pairs: Tensor | None = None,
    words: tuple[Sequence[str], Sequence[str]] | None = None,
    settings: SelfLearning | None = None,
) -> AdvancedMap:
    """A map by one of VecMap's presets, for vectors in VecMap's normalisation (`normalised`).

    Args:
        source: (S, D) source vectors, by frequency.
        target: (T, D) target vectors, by frequency.
        preset: `supervised`, one pass over `pairs`; `semi_supervised`, self-learning from `pairs`; `identical`, from words spelt alike in
            both; `unsupervised`, from words whose similarities to all others are distributed alike.
        pairs: (P, 2) rows of translations.
        words: The words of both sides, for `identical`.
        settings: Of self-learning.

    Raises:
        DataError: If what the preset starts from is missing.
    """
    check_choice("preset", preset, PRESETS)
    settings = settings or SelfLearning()
    source, target = normalised(source), normalised(target)
    found = _start(source, target, preset, pairs, words, settings)
    if preset != "supervised":
        found = learn_dictionary(source, target, found, settings)
    return advanced_map(source[found[:, 0]], target[found[:, 1]])


def _start(
    source: Tensor,
    target: Tensor,
    preset: Preset,
    pairs: Tensor | None,
    words: tuple[Sequence[str], Sequence[str]] | None,
    settings: SelfLearning,
) -> Tensor:
    if preset == "unsupervised":
        return unsupervised_pairs(source, target, settings.start, settings.neighbourhood)
    if preset == "identical":
        found = identical_pairs(*words) if words is not None else torch.empty(0, 2)
        if not len(found):
            raise DataError("preset identical needs the words of both sides, and some that are spelt alike")
        return found
    if pairs is None or not len(pairs):
        raise DataError(f"preset {preset} needs a dictionary: pairs (P, 2) of rows")
    return pairs


def identical_pairs(source_words: Sequence[str], target_words: Sequence[str]) -> Tensor:
    """(P, 2) rows of words that are spelt alike in both lists."""
    rows = {word: row for row, word in enumerate(target_words)}
    return torch.tensor([(row, rows[word]) for row, word in enumerate(source_words) if word in rows]).reshape(-1, 2)


def unsupervised_pairs(source: Tensor, target: Tensor, count: int = 4000, k: int = 10) -> Tensor:
    """(2 count, 2) pairs of words whose sorted similarities to all others are alike: equal words have equal neighbourhoods.

    Args:
        source: (S, D) normalised source vectors, by frequency.
        target: (T, D) normalised target vectors, by frequency.
        count: Most frequent words compared; at most as many as both sides have. Holds count x count numbers.
        k: CSLS's neighbourhood.
    """
    count = min(count, len(source), len(target))
    profiles = [normalised(_root_of_gram(vectors[:count]).sort(1).values) for vectors in (source, target)]
    similar = profiles[0] @ profiles[1].T
    k = min(k, count)
    crowd = similar.topk(k, 1).values.mean(1)[:, None] + similar.topk(k, 0).values.mean(0)[None]
    return _both_ways((similar - crowd / 2).argmax(1), (similar - crowd / 2).argmax(0))


def _root_of_gram(vectors: Tensor) -> Tensor:
    """(n, n) `(X X^T)^(1/2)`."""
    u, values, _ = torch.linalg.svd(vectors, full_matrices=False)
    return (u * values) @ u.T


def learn_dictionary(source: Tensor, target: Tensor, pairs: Tensor, settings: SelfLearning) -> Tensor:
    """(P, 2) the dictionary that self-learning ends with.

    Args:
        source: (S, D) normalised source vectors, by frequency.
        target: (T, D) normalised target vectors, by frequency.
        pairs: (P, 2) to start from.
        settings: How to learn.
    """
    generator = torch.Generator(source.device).manual_seed(settings.seed)
    ours, theirs = source[: settings.vocabulary], target[: settings.vocabulary]
    keep, best, improved, iteration = settings.keep, float("-inf"), 0, 0
    while settings.iterations is None or iteration < settings.iterations:
        iteration += 1
        if iteration - improved > settings.patience:
            if keep >= 1.0:
                break
            keep, improved = min(1.0, settings.growth * keep), iteration
        mapped = ours @ procrustes(source[pairs[:, 0]], target[pairs[:, 1]]).T
        forward, value = _translate(mapped, theirs, keep, generator, settings)
        backward, other = _translate(theirs, mapped, keep, generator, settings)
        pairs = _both_ways(forward, backward)
        objective = (value + other) / 2
        if objective - best >= settings.threshold:
            best, improved = objective, iteration
    return pairs


def _translate(
    source: Tensor, target: Tensor, keep: float, generator: torch.Generator, settings: SelfLearning
) -> tuple[Tensor, float]:
    """Each source's best target by CSLS among the similarities kept, and the mean similarity of the best before anything is left out."""
    crowd = mean_top(target, source, settings.neighbourhood, settings.chunk)
    best, values = [], []
    for start in range(0, len(source), settings.chunk):
        scores = source[start : start + settings.chunk] @ target.T
        values.append(scores.max(1).values)
        scores = scores - crowd / 2
        if keep < 1.0:
            scores = scores * (torch.rand(scores.shape, generator=generator, device=scores.device) < keep)
        best.append(scores.argmax(1))
    return torch.cat(best), torch.cat(values).mean().item()


def _both_ways(forward: Tensor, backward: Tensor) -> Tensor:
    """(S + T, 2) pairs of translations from both sides."""
    rows = [torch.arange(len(found), device=found.device) for found in (forward, backward)]
    return torch.cat((torch.stack((rows[0], forward), 1), torch.stack((backward, rows[1]), 1)))
