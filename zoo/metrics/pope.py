"""POPE (Li et al. 2023, arXiv 2305.10355): does a model say that things are in a picture which are not?

Answers to yes-or-no questions about single objects (`pope_questions.py` makes them). Scores are shares; papers print them times 100, and
the one number is the F1 or the accuracy, mean over the three splits: say which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from .anomaly import precision_recall_f1
from .keyed import check_keys, check_texts

#: these, with these capitals, are a no; the released evaluation knows no others
_NO = {"No", "no", "not"}
_CLEAR = re.compile(r"\b(?:yes|no|not)\b", re.IGNORECASE)


def parse_yes_no(text: str) -> bool:
    """Whether an answer is a yes, by the rule of the released evaluation.

    What stands before the first full stop, without commas, is a no if one of its words is `No`, `no` or `not`; *everything* else is a
    yes, also an empty answer or `NO`. (There words end at spaces only, here at any white space.)

    Args:
        text: What the model said.
    """
    return not _NO & set(_first_sentence(text).split())


def _first_sentence(text: str) -> str:
    return text.split(".", 1)[0].replace(",", "")


def pope_scores(answers: Mapping[str, str], truth: Mapping[str, bool]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of yes.

    Args:
        answers: Question -> what the model said.
        truth: Question -> whether the object is there.

    Returns:
        `accuracy`, `precision`, `recall`, `f1` and `yes_ratio` (share of answers that are a yes) as shares; `unclear`, how many answers
        have no yes, no or not in their first sentence and count as a yes all the same, and `questions`, as numbers.

    Raises:
        DataError: If the questions differ, or an answer is no text.
    """
    check_keys("POPE", answers, truth)
    check_texts("POPE", answers, {key: [text] for key, text in answers.items()})
    said = torch.tensor([parse_yes_no(answers[key]) for key in truth])
    right = torch.tensor([bool(is_there) for is_there in truth.values()])
    unclear = sum(not _CLEAR.search(_first_sentence(text)) for text in answers.values())
    scores = precision_recall_f1(said, right)
    return scores | {"yes_ratio": said.double().mean().item(), "unclear": unclear, "questions": len(said)}
