"""Answers to questions about pictures and documents: exact match, VQA's soft accuracy, ANLS, token F1; all shares between 0 and 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ..errors import AssemblyError, DataError
from .keyed import check_texts, mean
from .rows import check_choice
from .text.edit_distance import edit_distance
from .vqa_text import vqa_normalised

Normalise = Callable[[str], str]
#: as many people answered each question of VQA
_PEOPLE = 10


def exact_match(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, normalise: Normalise = vqa_normalised
) -> float:
    """Share of predictions that equal one of their references.

    Args:
        predictions: Question -> answer.
        references: Question -> right answers.
        normalise: Applied to both sides; `str` compares them as they are.

    Raises:
        DataError: If the questions differ.
    """
    check_texts("exact match", predictions, references)
    return mean(float(normalise(predictions[key]) in map(normalise, texts)) for key, texts in references.items())


def vqa_accuracy(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, normalise: Normalise = vqa_normalised
) -> float:
    """Mean of VQA's soft accuracy `min(people who gave this answer / 3, 1)` (Antol et al. 2015, arXiv 1505.00468).

    Where 10 people answered it is the mean over leaving each of them out, as in the released evaluation: one who agrees gives 0.3, two 0.6,
    three 0.9, four 1.

    Args:
        predictions: Question -> answer.
        references: Question -> the answers of all people, at least 3.
        normalise: Applied to both sides.

    Raises:
        DataError: If the questions differ, or one has fewer than 3 answers.
    """
    check_texts("VQA accuracy", predictions, references)
    for key, texts in references.items():
        if len(texts) < 3:
            raise DataError(f"VQA accuracy: {key!r} has {len(texts)} answers and 3 that agree are full marks; take exact_match")
    return mean(_soft(normalise(predictions[key]), list(map(normalise, texts))) for key, texts in references.items())


def _soft(answer: str, people: Sequence[str]) -> float:
    agree = people.count(answer)
    if len(people) != _PEOPLE:
        return min(agree / 3, 1.0)
    left_out = agree * min((agree - 1) / 3, 1.0) + (_PEOPLE - agree) * min(agree / 3, 1.0)
    return left_out / _PEOPLE


def anls(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    threshold: float = 0.5,
    at_threshold: Literal["zero", "keep"] = "zero",
) -> float:
    """Average normalised Levenshtein similarity (Biten et al. 2019, arXiv 1905.13648), the measure of DocVQA.

    Per question the best reference's `1 - d`, where `d = edit distance / length of the longer`, if d is below the threshold, else 0.
    Both sides are lower case, with single spaces.

    Args:
        predictions: Question -> answer.
        references: Question -> right answers.
        threshold: Of d.
        at_threshold: What d equal to the threshold scores: 0, as the paper's formula says, or `1 - d`, as the released evaluation has it.

    Raises:
        DataError: If the questions differ.
        AssemblyError: If the threshold is not between 0 and 1, or `at_threshold` is neither.
    """
    check_choice("at_threshold", at_threshold, ("zero", "keep"))
    if not 0 <= threshold <= 1:
        raise AssemblyError(f"ANLS: the threshold is {threshold}; it is a share of characters, between 0 and 1")
    check_texts("ANLS", predictions, references)
    least = [min(_distance(predictions[key], text) for text in texts) for key, texts in references.items()]
    kept = at_threshold == "keep"
    return mean(1 - d if d < threshold or (kept and d == threshold) else 0.0 for d in least)


def _distance(first: str, second: str) -> float:
    first, second = (" ".join(text.lower().split()) for text in (first, second))
    return edit_distance(first, second) / max(len(first), len(second), 1)


def token_f1(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, normalise: Normalise = vqa_normalised
) -> float:
    """Mean F1 of the words that prediction and reference have in common, of the best reference (Rajpurkar et al. 2016, arXiv 1606.05250).

    A word counts as often as it is in both. Two texts without words score 1, one alone 0.

    Args:
        predictions: Question -> answer.
        references: Question -> right answers.
        normalise: Applied to both sides before they are split at spaces. (SQuAD's own keeps number words and drops all punctuation.)

    Raises:
        DataError: If the questions differ.
    """
    check_texts("token F1", predictions, references)
    return mean(
        max(_f1(normalise(predictions[key]).split(), normalise(text).split()) for text in texts)
        for key, texts in references.items()
    )


def _f1(first: Sequence[str], second: Sequence[str]) -> float:
    if not first and not second:
        return 1.0
    return 2 * (Counter(first) & Counter(second)).total() / (len(first) + len(second))
