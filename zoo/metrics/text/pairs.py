"""Predictions and their references as tokens, by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...errors import DataError
from ..keyed import check_texts
from .tokens import Tokenizer, ptb_tokens


@dataclass(frozen=True)
class TokenPairs:
    """Tokens of predictions and references, in one order.

    Attributes:
        keys: Of each prediction.
        candidates: Tokens of each prediction; may be none.
        references: Tokens of each of its references; at least one reference, each with at least one token.
    """

    keys: list[str]
    candidates: list[list[str]]
    references: list[list[list[str]]]

    def __iter__(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Prediction and references, key by key."""
        return iter(zip(self.candidates, self.references, strict=True))


def token_pairs(
    what: str, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], tokenizer: Tokenizer = ptb_tokens
) -> TokenPairs:
    """Tokens of everything.

    Args:
        what: The metric, for messages.
        predictions: Key -> text; an empty one is a prediction and counts.
        references: Key -> texts.
        tokenizer: Text -> tokens.

    Raises:
        DataError: If the keys differ, or a reference has no word.
    """
    check_texts(what, predictions, references)
    keys = list(references)
    tokens = [[tokenizer(text) for text in references[key]] for key in keys]
    for key, found in zip(keys, tokens, strict=True):
        if not all(found):
            text = references[key][found.index([])]
            raise DataError(f"{what}: a reference of {key!r} has no word ({text!r:.60}); remove it")
    return TokenPairs(keys, [tokenizer(predictions[key]) for key in keys], tokens)
