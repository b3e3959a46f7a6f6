"""POPE: yes and no, scores against known numbers and a plain count, questions against slow rules."""

import random

import pytest

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.pope import parse_yes_no, pope_scores
from modalign.zoo.metrics.pope_questions import SPLITS, PopeQuestion, pope_questions, question_text, with_enough


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("yes, there is a dog.", True),
        ("No", False),
        ("no, there is none", False),
        ("No.", False),
        ("There is not a dog, only cats.", False),
        ("No\nIt is a cat", False),
        ("Yes. There is no cat, though.", True),  # only what stands before the first full stop
        ("NO", True),  # the rule knows three spellings
        ("Nothing like it", True),
        ("", True),
    ],
)
def test_yes_and_no(text, yes):
    assert parse_yes_no(text) is yes


def collected(tp, fp, tn, fn):
    cells = [("Yes", True)] * tp + [("Yes.", False)] * fp + [("No", False)] * tn + [("no, none", True)] * fn
    return {str(i): text for i, (text, _) in enumerate(cells)}, {str(i): right for i, (_, right) in enumerate(cells)}


def test_known_numbers():
    found = pope_scores(*collected(40, 10, 45, 5))
    assert found == pytest.approx(
        {"accuracy": 0.85, "precision": 0.8, "recall": 40 / 45, "f1": 16 / 19, "yes_ratio": 0.5, "unclear": 0, "questions": 100}
    )
    assert (round(found["recall"], 4), round(found["f1"], 4)) == (0.8889, 0.8421)


@pytest.mark.parametrize("cells", [(0, 0, 5, 5), (0, 5, 5, 0), (3, 4, 5, 6), (0, 0, 4, 0), (7, 0, 0, 0)])
def test_scores_by_counting(cells):
    tp, fp, tn, fn = cells
    found = pope_scores(*collected(*cells))
    assert found["accuracy"] == pytest.approx((tp + tn) / sum(cells))
    assert found["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else 0)
    assert found["recall"] == pytest.approx(tp / (tp + fn) if tp + fn else 0)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)
    assert found["yes_ratio"] == pytest.approx((tp + fp) / sum(cells))


def test_answers_that_say_neither_are_counted():
    answers = {"1": "Maybe", "2": "YES", "3": "", "4": "No", "5": "I see a dog. Yes"}
    assert pope_scores(answers, dict.fromkeys(answers, True))["unclear"] == 3
    with pytest.raises(DataError, match="POPE: '5' has no prediction"):
        pope_scores({"1": "No"}, {"1": True, "5": True})
    with pytest.raises(DataError, match="POPE: the prediction of '1' is bool"):
        pope_scores({"1": True}, {"1": True})


CATEGORIES = ["person", "chair", "car", "dog", "cup", "book", "apple"]


def scenes(count=20, seed=0):
    draw = random.Random(seed)
    return {f"{i}.jpg": set(draw.sample(CATEGORIES, draw.randint(2, 5))) for i in range(count)}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("together", ["present", "asked"])
def test_every_picture_has_k_of_each(split, together):
    present = scenes()
    found = pope_questions(present, CATEGORIES, split, k=2, together=together)
    assert [question.image for question in found] == [image for image in present for _ in range(4)]
    assert [question.answer for question in found] == [True, False] * 40
    assert all((question.category in present[question.image]) is question.answer for question in found)
    assert len({question.key for question in found}) == len(found)


def negatives(questions):
    found = {}
    for question in questions:
        if not question.answer:
            found.setdefault(question.image, []).append(question.category)
    return found


def absent(there):
    return [category for category in CATEGORIES if category not in there]


def test_popular_asks_for_what_most_pictures_have():
    present = scenes()
    number = {category: sum(category in there for there in present.values()) for category in CATEGORIES}
    for image, asked in negatives(pope_questions(present, CATEGORIES, "popular", k=2)).items():
        assert asked == sorted(absent(present[image]), key=lambda category: (-number[category], CATEGORIES.index(category)))[:2]


def test_adversarial_asks_for_what_goes_with_the_present_ones():
    present = scenes()

    def together(category, companions):
        return sum(category in there and one in there for there in present.values() for one in companions)

    for image, asked in negatives(pope_questions(present, CATEGORIES, "adversarial", k=2)).items():
        there = present[image]
        assert asked == sorted(absent(there), key=lambda one: (-together(one, there), CATEGORIES.index(one)))[:2]
    found = pope_questions(present, CATEGORIES, "adversarial", k=2, together="asked")
    for i in range(0, len(found), 4):
        one, no, other, second = found[i : i + 4]
        left = absent(present[one.image])
        best = max(left, key=lambda name: (together(name, [one.category]), -CATEGORIES.index(name)))
        left.remove(best)
        then = max(left, key=lambda name: (together(name, [other.category]), -CATEGORIES.index(name)))
        assert (no.category, second.category) == (best, then)


def test_draws_follow_from_seed_and_picture_alone():
    present = scenes()
    whole = pope_questions(present, CATEGORIES, "random", k=2)
    some = {image: present[image] for image in list(present)[::-3]}
    assert set(pope_questions(some, CATEGORIES, "random", k=2)) == {question for question in whole if question.image in some}
    assert pope_questions(present, CATEGORIES, "random", k=2, seed=1) != whole
    yes = [[q for q in pope_questions(present, CATEGORIES, split, k=2) if q.answer] for split in SPLITS]
    assert yes[0] == yes[1] == yes[2]
    assert len({tuple(asked) for asked in negatives(whole).values()}) > 5


def test_the_draw_is_the_same_in_every_process():
    """Sets of texts come in another order in every process; the numbers must not follow it."""
    found = pope_questions({"a": {"cup", "dog", "car", "book"}}, CATEGORIES, "random", k=3, seed=3)
    yes, no = ["car", "cup", "dog"], ["chair", "apple", "person"]
    assert found == [PopeQuestion("a", category, k == 0) for pair in zip(yes, no, strict=True) for k, category in enumerate(pair)]


def test_texts():
    assert question_text("dog") == "Is there a dog in the image?"
    assert question_text("apple") == "Is there an apple in the image?"
    assert question_text("chien", "Y a-t-il un {category} ?") == "Y a-t-il un chien ?"


def test_pictures_with_too_few_are_left_out_by_name():
    present = {"few": {"dog"}, "right": {"dog", "cup", "car"}, "many": set(CATEGORIES) - {"dog"}}
    assert with_enough(present, CATEGORIES, 3) == {"right": {"dog", "cup", "car"}}
    with pytest.raises(DataError, match="picture 'few' has 1 of 7 categories, 3 there and 3 absent are wanted"):
        pope_questions(present, CATEGORIES, "random")
    with pytest.raises(DataError, match="picture 'x' has category 'dgo', which is not in the list; did you mean 'dog'"):
        pope_questions({"x": {"dgo", "cup", "car"}}, CATEGORIES, "random")
    with pytest.raises(DataError, match="names some twice"):
        pope_questions(present, [*CATEGORIES, "dog"], "random")
    with pytest.raises(AssemblyError, match="k is 0"):
        pope_questions(present, CATEGORIES, "random", k=0)
    with pytest.raises(AssemblyError, match="there is no 'populer'; did you mean 'popular'"):
        pope_questions(present, CATEGORIES, "populer")
