"""Runs of n tokens, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Ngram = tuple[str, ...]


def ngrams(tokens: Sequence[str], most: int) -> Counter[Ngram]:
    """How often each run of 1 to `most` tokens occurs.

    Args:
        tokens: Tokens of one text.
        most: Length of the longest runs.
    """
    return Counter(tuple(tokens[i : i + n]) for n in range(1, most + 1) for i in range(len(tokens) - n + 1))
