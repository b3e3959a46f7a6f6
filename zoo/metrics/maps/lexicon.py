"""Bilingual lexicon induction: how many words does a map translate rightly? P@k with the words that have no vector accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import DataError
from ..retrieval import KS
from ..rows import check_choice
from .csls import Method, translate

Missing = Literal["dropped", "errors"]


@dataclass
class Lexicon:
    """A test dictionary over two sets of vectors.

    Attributes:
        pairs: (P, 2) rows of source and target that translate each other; a source word may have several translations.
        words: Distinct source words of the dictionary, with a vector or not.
        missing_words: Those among them without any usable pair.
        missing_pairs: Pairs dropped because a word of theirs has no vector.
    """

    pairs: Tensor
    words: int
    missing_words: int = 0
    missing_pairs: int = 0


def build_lexicon(entries: Iterable[tuple[str, str]], source_rows: Mapping[str, int], target_rows: Mapping[str, int]) -> Lexicon:
    """A lexicon from a list of word pairs.

    Args:
        entries: (source word, target word); a pair that comes twice counts once.
        source_rows: Source word -> its row; usually by frequency.
        target_rows: Target word -> its row.

    Raises:
        DataError: If no pair is usable.
    """
    distinct = list(dict.fromkeys(entries))
    rows = [(source_rows[s], target_rows[t]) for s, t in distinct if s in source_rows and t in target_rows]
    if not rows:
        raise DataError(f"none of the {len(distinct)} pairs of the dictionary has vectors on both sides")
    words = {word for word, _ in distinct}
    usable = {word for word, other in distinct if word in source_rows and other in target_rows}
    return Lexicon(torch.tensor(rows), len(words), len(words) - len(usable), len(distinct) - len(rows))


def by_frequency(lexicon: Lexicon, start: int, stop: int) -> Lexicon:
    """The pairs whose source words are the start-th to (stop-1)-th most frequent of the lexicon (row = frequency rank).

    Args:
        lexicon: The whole dictionary.
        start: First distinct source word, from 0; MUSE's test split is 5000 to 6500.
        stop: One past the last.

    Raises:
        DataError: If there are none.
    """
    chosen = lexicon.pairs[:, 0].unique()[start:stop]
    pairs = lexicon.pairs[torch.isin(lexicon.pairs[:, 0], chosen)]
    if not len(pairs):
        raise DataError(
            f"the dictionary has {len(lexicon.pairs[:, 0].unique())} source words with vectors; none from {start} to {stop}"
        )
    return Lexicon(pairs, len(chosen))


def translation_precision(
    source: Tensor,
    target: Tensor,
    lexicon: Lexicon,
    *,
    method: Method = "csls",
    ks: Sequence[int] = KS,
    missing: Missing = "dropped",
    k: int = 10,
    beta: float = 30.0,
    chunk: int = 256,
) -> dict[str, float]:
    """P@k in percent: the share of distinct source words with any right translation among the best k.

    Args:
        source: (S, D) mapped source vectors, of all words, not only the dictionary's.
        target: (T, D) target vectors, of all words.
        lexicon: What is right.
        method: `nn`, `csls` (MUSE's csls_knn_10) or `invsm` (MUSE's invsm_beta_30).
        ks: The k's of P@k.
        missing: Source words without a vector or a usable translation are `dropped` (MUSE) or count as `errors` (fastText).
        k: CSLS's neighbourhood.
        beta: Of the inverted softmax.
        chunk: Rows at a time.

    Returns:
        `{"P@1": ..., "words": number counted}`.
    """
    check_choice("missing", missing, ("dropped", "errors"))
    words, word_of = lexicon.pairs[:, 0].unique(return_inverse=True)
    best = translate(source, target, words, method=method, count=max(ks), k=k, beta=beta, chunk=chunk)
    right = best[word_of] == lexicon.pairs[:, 1:].to(best.device)
    place = torch.where(right, torch.arange(best.shape[1], device=best.device), torch.full_like(best[word_of], max(ks)))
    first = torch.full((len(words),), max(ks), device=best.device).scatter_reduce(0, word_of, place.amin(1), "amin")
    counted = len(words) + (lexicon.missing_words if missing == "errors" else 0)
    return {f"P@{n}": round(100 * (first < n).sum().item() / counted, 4) for n in ks} | {"words": counted}
