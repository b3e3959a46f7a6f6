"""BLEU of a whole corpus (Papineni et al. 2002), as the COCO caption evaluation computes it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from ..rows import check_choice
from .ngrams import Ngram, ngrams
from .pairs import TokenPairs, token_pairs
from .tokens import Tokenizer, ptb_tokens

Zero = Literal["coco", "paper"]
#: what is added to matches and to possible n-grams
_ADDED = {"coco": (1e-15, 1e-9), "paper": (0.0, 0.0)}


def bleu(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    orders: int = 4,
    zero: Zero = "coco",
    tokenizer: Tokenizer = ptb_tokens,
) -> dict[str, float]:
    """BLEU-1 to BLEU-n of all predictions together, between 0 and 1.

    `BLEU-n = BP (p_1 ... p_n)^(1/n)`; p_k: k-grams of the predictions that a reference has (each at most as often as in the reference with
    most of it), over all k-grams of the predictions; `BP = min(1, exp(1 - r / c))`, c words of the predictions, r of the references that
    are closest in length, of two equally close the shorter.

    Args:
        predictions: Key -> text.
        references: Key -> texts, any number.
        orders: n.
        zero: An order without a match: `paper` makes BLEU 0; `coco` adds 1e-15 to matches and 1e-9 to counts, as pycocoevalcap does, which
            for few texts is far from 0 (three right words alone have BLEU-4 0.03).
        tokenizer: Text -> tokens.

    Returns:
        `{"BLEU-1": ..., ...}`.

    Raises:
        DataError: If the keys differ, or a reference has no word.
        AssemblyError: If `zero` is neither.
    """
    return corpus_bleu(token_pairs("BLEU", predictions, references, tokenizer), orders, zero)


def corpus_bleu(pairs: TokenPairs, orders: int = 4, zero: Zero = "coco") -> dict[str, float]:
    """`bleu` of tokens.

    Args:
        pairs: Tokens of predictions and references.
        orders: n.
        zero: See `bleu`.
    """
    check_choice("zero", zero, ("coco", "paper"))
    tiny, small = _ADDED[zero]
    matched, possible = _counts(pairs, orders)
    penalty = _brevity_penalty(pairs, tiny, small)
    product, found = 1.0, {}
    for n, (hits, total) in enumerate(zip(matched, possible, strict=True), 1):
        product *= (hits + tiny) / (total + small) if total + small else 0.0
        found[f"BLEU-{n}"] = penalty * product ** (1 / n)
    return found


def _counts(pairs: TokenPairs, orders: int) -> tuple[list[int], list[int]]:
    """Matched and possible n-grams of each order."""
    matched, possible = [0] * orders, [0] * orders
    for candidate, references in pairs:
        most: Counter[Ngram] = Counter()
        for reference in references:
            most |= ngrams(reference, orders)
        for ngram, count in (ngrams(candidate, orders) & most).items():
            matched[len(ngram) - 1] += count
        for n in range(orders):
            possible[n] += max(0, len(candidate) - n)
    return matched, possible


def _brevity_penalty(pairs: TokenPairs, tiny: float, small: float) -> float:
    length = sum(map(len, pairs.candidates))
    closest = sum(closest_length(len(candidate), references) for candidate, references in pairs)
    ratio = (length + tiny) / (closest + small)
    if ratio >= 1:
        return 1.0
    return math.exp(1 - 1 / ratio) if ratio else 0.0


def closest_length(length: int, references: Sequence[Sequence[str]]) -> int:
    """Length of the reference closest in length; of two equally close the shorter.

    Args:
        length: Tokens of the prediction.
        references: Tokens of the references.
    """
    return min(map(len, references), key=lambda other: (abs(other - length), other))
