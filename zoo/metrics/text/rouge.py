"""ROUGE-L (Lin 2004): the longest common subsequence of words, as the COCO caption evaluation computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..keyed import mean
from .pairs import TokenPairs, token_pairs
from .tokens import Tokenizer, ptb_tokens


def rouge_l(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    beta: float = 1.2,
    tokenizer: Tokenizer = ptb_tokens,
) -> float:
    """Mean ROUGE-L, between 0 and 1.

    `F = (1 + beta^2) P R / (R + beta^2 P)`, P = LCS / words of the prediction, R = LCS / words of the reference, each the largest over the
    references (of P and R perhaps not the same one; the paper has one reference). An empty prediction has score 0.

    Args:
        predictions: Key -> text.
        references: Key -> texts, any number.
        beta: How much more recall counts.
        tokenizer: Text -> tokens.

    Raises:
        DataError: If the keys differ, or a reference has no word.
    """
    return mean(rouge_l_by_key(token_pairs("ROUGE-L", predictions, references, tokenizer), beta).values())


def rouge_l_by_key(pairs: TokenPairs, beta: float = 1.2) -> dict[str, float]:
    """ROUGE-L of each prediction.

    Args:
        pairs: Tokens of predictions and references.
        beta: See `rouge_l`.
    """
    return {key: _rouge_l(*texts, beta) for key, texts in zip(pairs.keys, pairs, strict=True)}


def _rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]], beta: float) -> float:
    common = [common_subsequence(candidate, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence; `len(first) * len(second)` steps.

    Args:
        first: Tokens.
        second: Tokens.
    """
    row = [0] * (len(second) + 1)
    for token in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            diagonal, row[j] = row[j], diagonal + 1 if token == other else max(row[j], row[j - 1])
    return row[-1]
