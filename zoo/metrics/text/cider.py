"""CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726): tf-idf n-grams shared with the references, as in the COCO caption evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..keyed import mean
from .ngrams import Ngram, ngrams
from .pairs import TokenPairs, token_pairs
from .tokens import Tokenizer, ptb_tokens


@dataclass
class _Weighted:
    """tf-idf weights of one text: by order, with their length as a vector, and the number of words."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    words: int


def cider(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    orders: int = 4,
    sigma: float = 6.0,
    tokenizer: Tokenizer = ptb_tokens,
) -> float:
    """Mean CIDEr-D, between 0 and 10.

    For prediction c with references s_1 ... s_m, and n-gram weights `g(w) = count(w) (log N - log max(1, df(w)))`:
    `CIDEr-D = 10/m sum_j mean_n exp(-(l_c - l_sj)^2 / (2 sigma^2)) min(g_n(c), g_n(sj)) g_n(sj) / (|g_n(c)| |g_n(sj)|)`.
    N is the number of keys, df the number of keys with w in a reference, l the length of a text. So the score depends on the whole set:
    subsets are not comparable with it, and a single key, where log N is 0, always has score 0.

    Args:
        predictions: Key -> text.
        references: Key -> texts, any number.
        orders: Longest n-grams.
        sigma: Words by which the length may differ.
        tokenizer: Text -> tokens.

    Raises:
        DataError: If the keys differ, or a reference has no word.
    """
    return mean(cider_by_key(token_pairs("CIDEr", predictions, references, tokenizer), orders, sigma).values())


def cider_by_key(pairs: TokenPairs, orders: int = 4, sigma: float = 6.0) -> dict[str, float]:
    """CIDEr-D of each prediction, with document frequencies of all the references given.

    Args:
        pairs: Tokens of predictions and references.
        orders: Longest n-grams.
        sigma: See `cider`.
    """
    rarity = _Rarity(pairs, orders)
    found = {}
    for key, (candidate, references) in zip(pairs.keys, pairs, strict=True):
        own = rarity.weighted(candidate)
        found[key] = 10 * mean(_similarity(own, rarity.weighted(reference), sigma) for reference in references)
    return found


class _Rarity:
    """Inverse document frequencies of a set of references."""

    def __init__(self, pairs: TokenPairs, orders: int) -> None:
        self.orders = orders
        self.log_documents = math.log(len(pairs.keys))
        self.documents: Counter[Ngram] = Counter()
        for _, references in pairs:
            self.documents.update({ngram for reference in references for ngram in ngrams(reference, orders)})

    def weighted(self, tokens: Sequence[str]) -> _Weighted:
        weights: list[dict[Ngram, float]] = [{} for _ in range(self.orders)]
        for ngram, count in ngrams(tokens, self.orders).items():
            rarity = self.log_documents - math.log(max(1, self.documents[ngram]))
            weights[len(ngram) - 1][ngram] = count * rarity
        norms = [math.sqrt(math.fsum(weight * weight for weight in order.values())) for order in weights]
        return _Weighted(weights, norms, len(tokens))


def _similarity(candidate: _Weighted, reference: _Weighted, sigma: float) -> float:
    """Mean over the orders of the clipped cosine, less for another length."""
    gap = candidate.words - reference.words
    return math.exp(-(gap**2) / (2 * sigma**2)) * mean(
        _clipped_cosine(own, other, norm * other_norm)
        for own, other, norm, other_norm in zip(
            candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True
        )
    )


def _clipped_cosine(own: Mapping[Ngram, float], other: Mapping[Ngram, float], norms: float) -> float:
    if not norms:
        return 0.0
    return math.fsum(min(own[ngram], other[ngram]) * other[ngram] for ngram in own.keys() & other.keys()) / norms
