"""Questions of POPE (Li et al. 2023, arXiv 2305.10355) from the categories that are in each picture.

k objects that are there and k that are not, in turn. The absent ones are drawn at random (`random`), or are the most frequent of the set
(`popular`), or those that occur most often together with what is there (`adversarial`, the hardest: a model that answers from habit fails).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from ..errors import AssemblyError, DataError, nearest
from .rows import check_choice

Split = Literal["random", "popular", "adversarial"]
SPLITS: tuple[Split, ...] = ("random", "popular", "adversarial")
Together = Literal["present", "asked"]


@dataclass(frozen=True)
class PopeQuestion:
    """One question: is there this in that picture?

    Attributes:
        image: Key of the picture.
        category: What is asked for.
        answer: Whether it is there.
    """

    image: str
    category: str
    answer: bool

    @property
    def key(self) -> str:
        """`IMAGE/CATEGORY`, of which each split has one."""
        return f"{self.image}/{self.category}"


def question_text(category: str, template: str = "Is there {article} {category} in the image?") -> str:
    """The question in English.

    Args:
        category: What is asked for; `an` stands before a, e, i, o, u, else `a`.
        template: With `{article}` and `{category}`, or only the latter.
    """
    return template.format(article="an" if category[:1].lower() in set("aeiou") else "a", category=category)


def pope_questions(
    present: Mapping[str, Set[str]],
    categories: Sequence[str],
    split: Split,
    *,
    k: int = 3,
    seed: int = 0,
    together: Together = "present",
) -> list[PopeQuestion]:
    """Questions about every picture: k with yes and k with no, in turn.

    A picture's yes questions are the same in all splits. All draws follow from seed and picture alone. Ranks are by number of pictures;
    of equally many, what stands first in `categories` comes first, so a category that occurs nowhere is asked for last.

    Args:
        present: Picture -> categories with a box in it.
        categories: All that may be asked for.
        split: How the absent ones are chosen.
        k: Questions of each answer and picture.
        seed: Of all draws.
        together: `adversarial` ranks by pictures shared with any category that is there, summed (the paper), or, for each no question, with
            the one just asked for (the released code).

    Returns:
        `2 k` questions per picture, in the order of `present`.

    Raises:
        DataError: If a picture has too few categories, or one that is not in the list.
        AssemblyError: If k is not at least 1, or split or together is unknown.
    """
    check_choice("split", split, SPLITS)
    check_choice("together", together, ("present", "asked"))
    _check(present, categories, k)
    frequency = Counter(category for there in present.values() for category in there)
    shared = _shared_pictures(present) if split == "adversarial" else {}
    questions = []
    for image, there in present.items():
        asked = _generator(seed, "yes", image).sample([category for category in categories if category in there], k)
        absent = [category for category in categories if category not in there]
        if split == "random":
            chosen = _generator(seed, "no", image).sample(absent, k)
        elif split == "popular":
            chosen = _top(absent, frequency)[:k]
        else:
            chosen = _adversarial(absent, [list(there)] * k if together == "present" else [[one] for one in asked], shared)
        for yes, no in zip(asked, chosen, strict=True):
            questions += [PopeQuestion(image, yes, True), PopeQuestion(image, no, False)]
    return questions


def with_enough(present: Mapping[str, Set[str]], categories: Sequence[str], k: int = 3) -> dict[str, Set[str]]:
    """The pictures that `pope_questions` can take: at least k categories there and k not.

    Args:
        present: Picture -> categories with a box in it.
        categories: All that may be asked for.
        k: Questions of each answer and picture.
    """
    return {image: there for image, there in present.items() if k <= len(there) <= len(set(categories)) - k}


def _adversarial(absent: Sequence[str], companions: Sequence[Sequence[str]], shared: Mapping[str, Counter[str]]) -> list[str]:
    """For each group of companions the absent category seen most with them, none twice."""
    chosen: list[str] = []
    for group in companions:
        score: Counter[str] = Counter()
        for category in group:
            score.update(shared[category])
        chosen.append(_top([category for category in absent if category not in chosen], score)[0])
    return chosen


def _top(categories: Sequence[str], score: Mapping[str, int]) -> list[str]:
    return sorted(categories, key=lambda category: -score.get(category, 0))  # stable: the order of the list decides ties


def _shared_pictures(present: Mapping[str, Set[str]]) -> dict[str, Counter[str]]:
    """Category -> in how many pictures it is with each one."""
    shared: dict[str, Counter[str]] = {}
    for there in present.values():
        for category in there:
            shared.setdefault(category, Counter()).update(there)
    return shared


def _generator(seed: int, answer: str, image: str) -> random.Random:
    """Seeded with a string, which Python hashes the same way in every process."""
    return random.Random(f"{seed}/{answer}/{image}")


def _check(present: Mapping[str, Set[str]], categories: Sequence[str], k: int) -> None:
    if k < 1:
        raise AssemblyError(f"POPE: k is {k}; at least 1 question of each answer is wanted")
    known = set(categories)
    if len(known) < len(categories):
        raise DataError(f"POPE: the list of {len(categories)} categories names some twice; give each once")
    for image, there in present.items():
        if unknown := sorted(there - known):
            raise DataError(
                f"POPE: picture {image!r} has category {unknown[0]!r}, which is not in the list{nearest(unknown[0], known)}"
            )
        if not k <= len(there) <= len(known) - k:
            raise DataError(
                f"POPE: picture {image!r} has {len(there)} of {len(known)} categories, {k} there and {k} absent are wanted; "
                "leave it out (`with_enough`) or lower k"
            )
