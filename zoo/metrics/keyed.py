"""Checks that metrics over predictions and truths, both given by key, share.

Mappings rather than rows: what a rank or a batch left out is then an error with a name, not a shift of all rows behind it. Over several
ranks the mappings are put together first (`over_ranks.gathered`); sums are exact (`math.fsum`), so the order of keys changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DataError


def check_keys(what: str, predictions: Mapping[str, Any], truths: Mapping[str, Any]) -> None:
    """Refuses predictions and truths that are not of the same keys, or none at all.

    Args:
        what: The metric, for the message.
        predictions: Key -> what the model said.
        truths: Key -> what is right.

    Raises:
        DataError: Naming a key that only one side has.
    """
    if not predictions and not truths:
        raise DataError(f"{what} needs at least one prediction, and there is none; was the data set empty?")
    if missing := [key for key in truths if key not in predictions]:
        raise DataError(f"{what}: {missing[0]!r} has no prediction ({len(missing)} such); an empty answer is given as one")
    if extra := [key for key in predictions if key not in truths]:
        raise DataError(f"{what}: the prediction {extra[0]!r} has no reference ({len(extra)} such); leave it out or add one")


def check_texts(what: str, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Refuses predictions that are no texts and references that are no list of at least one text.

    Args:
        what: The metric, for the message.
        predictions: Key -> text.
        references: Key -> texts.

    Raises:
        DataError: Naming the key.
    """
    check_keys(what, predictions, references)
    for key, text in predictions.items():
        if not isinstance(text, str):
            raise DataError(f"{what}: the prediction of {key!r} is {type(text).__name__}; give a text, empty if there is none")
    for key, texts in references.items():
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{what}: the references of {key!r} must be a list of at least one text, got {texts!r:.60}")


def mean(values: Iterable[float]) -> float:
    """The mean, exact and so the same in any order."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
