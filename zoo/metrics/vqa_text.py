"""Short answers made comparable as the VQA evaluation does (Antol et al. 2015, arXiv 1505.00468).

The released code normalises a question's human answers only where they differ, and takes their numbers and articles as done; here
both sides go through everything, always, so that an answer equals itself however it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
_POINT = re.compile(r"\.(?!\d)")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}

#: stem -> endings; forms that are a word of their own without the apostrophe (its, well, wed, hell) are left alone
_ENDINGS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "n't've": "could had might should would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it somebody someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who you y'all",
    "'ll": "how it somebody someone something they what who why you y'all",
    "'re": "there they what why you",
    "'s": "he how somebody someone that there what when where who why",
}
_OTHERS = ("ma'am", "o'clock", "y'all", "'twas", "'ow's'at")


def _one_apostrophe_less(word: str) -> Iterator[str]:
    yield from (word[:i] + word[i + 1 :] for i, char in enumerate(word) if char == "'")


_WHOLE = [stem + ending for ending, stems in _ENDINGS.items() for stem in stems.split()] + list(_OTHERS)
#: contraction with one apostrophe missing -> contraction
_CONTRACTIONS = {wrong: word for word in _WHOLE for wrong in _one_apostrophe_less(word)}


def vqa_normalised(text: str) -> str:
    """The answer in the form in which VQA compares answers.

    In this order: punctuation becomes a space, or nothing where it stands beside a space or the text has a comma between digits (`1,000`);
    points go unless a digit follows; lower case; number words up to ten become digits, `none` too; articles go; missing apostrophes of
    contractions are put in (`dont`).

    Args:
        text: An answer.
    """
    text = _without_marks(" ".join(text.split()))
    words = (_DIGITS.get(word, word) for word in _POINT.sub("", text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_marks(text: str) -> str:
    """The rule looks at the text as it came, for each mark as a whole: one `- ` makes all its hyphens vanish."""
    closed = bool(_THOUSANDS.search(text))
    vanish = {mark for mark in _MARKS if closed or f"{mark} " in text or f" {mark}" in text}
    return text.translate({ord(mark): None if mark in vanish else " " for mark in _MARKS})
