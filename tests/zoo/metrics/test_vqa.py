"""Answers to questions: VQA's normal form, soft accuracy by leaving people out, ANLS, token F1."""

import pytest

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.vqa import anls, exact_match, token_f1, vqa_accuracy
from modalign.zoo.metrics.vqa_text import vqa_normalised


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Dog", "dog"),
        ("a red\tcar,\nan  old one", "red car old 1"),
        ("Two.", "2"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("ten of the", "10 of"),
        ("3.5", "3.5"),
        ("3. street", "3 street"),
        ("1,000", "1000"),
        ("1,000 well-known", "1000 wellknown"),  # a comma between digits closes all punctuation up
        ("one-way", "1 way"),
        ("one-way - street", "oneway street"),  # so does a mark beside a space, every mark of its kind
        ("yes/no", "yes no"),
        ("what?!", "what"),
        ("$5 (five)", "$5 5"),
        ("dont", "don't"),
        ("don't", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("theyre at 5 oclock", "they're at 5 o'clock"),
        ("yall'd've", "y'all'd've"),
        ("'ows'at", "'ow's'at"),
        ("its well were hell ill shell id wed", "its well were hell ill shell id wed"),
        ("the", ""),
    ],
)
def test_normal_form(text, normal):
    assert vqa_normalised(text) == normal


PUBLISHED = """
ain't aren't can't could've hasn't he'd he's how'll isn't it'll ma'am mightn't might've mustn't needn't not've oughtn't
shan't somebody'll someone's something'd that's there're they've 'twas we've what're when's where'd who's why'll won't y'all you've
"""


def test_contractions_of_the_published_list():
    """A choice over all its endings."""
    for word in PUBLISHED.split():
        assert vqa_normalised(word.replace("'", "")) == word


def test_exact_match():
    said = {"1": "The dogs.", "2": "cat", "3": "Two"}
    right = {"1": ["a cat", "dogs"], "2": ["cats"], "3": ["2"]}
    assert exact_match(said, right) == pytest.approx(2 / 3)
    assert exact_match(said, right, normalise=str) == 0


@pytest.mark.parametrize("agree", range(11))
def test_soft_accuracy_leaves_each_person_out(agree):
    people = ["red"] * agree + ["blue"] * (10 - agree)
    slow = sum(min((people[:i] + people[i + 1 :]).count("red") / 3, 1) for i in range(10)) / 10
    found = vqa_accuracy({"1": "Red."}, {"1": people})
    assert found == pytest.approx(slow)
    assert found == pytest.approx([0, 0.3, 0.6, 0.9, 1][min(agree, 4)])


def test_soft_accuracy_of_other_numbers_of_people():
    assert vqa_accuracy({"1": "a", "2": "two"}, {"1": ["x"] * 5, "2": ["2", "two", "3", "4"]}) == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="'1' has 2 answers and 3 that agree are full marks; take exact_match"):
        vqa_accuracy({"1": "x"}, {"1": ["x", "x"]})


def test_anls():
    right = {"1": ["Room B12", "12"]}
    assert anls({"1": " room   b12"}, right) == 1
    assert anls({"1": "room b1"}, right) == pytest.approx(7 / 8)  # the best of the references
    assert anls({"1": "something else"}, right) == 0
    assert anls({"1": ""}, right) == 0
    assert anls({"1": "ab", "2": "x"}, {"1": ["abc"], "2": ["y"]}) == pytest.approx(1 / 3)
    assert anls({"1": ""}, {"1": [""]}) == 1


def test_anls_at_the_threshold():
    said, right = {"1": "abxy"}, {"1": ["abcd"]}
    assert anls(said, right) == 0 and anls(said, right, at_threshold="keep") == 0.5
    assert anls(said, right, threshold=0.51) == 0.5
    assert (
        anls({"1": "abcz"}, right, threshold=0.25, at_threshold="keep") == 0.75
        and anls({"1": "abcz"}, right, threshold=0.25) == 0
    )
    with pytest.raises(AssemblyError, match="the threshold is 50"):
        anls(said, right, threshold=50)
    with pytest.raises(AssemblyError, match="at_threshold"):
        anls(said, right, at_threshold="half")


def test_token_f1():
    def slow(said, right):
        said, right = said.split(), right.split()
        common, left = 0, list(right)
        for word in said:
            if word in left:
                left.remove(word)
                common += 1
        precision, recall = common / len(said), common / len(right)
        return 2 * precision * recall / (precision + recall) if common else 0

    for said, right in (("x y y", "y y z z"), ("x", "y"), ("x y z", "x y z"), ("y y y", "y")):
        assert token_f1({"1": said}, {"1": [right]}) == pytest.approx(slow(said, right))
    assert token_f1({"1": "the red dog"}, {"1": ["cat", "dog", "a red cat"]}) == pytest.approx(2 / 3)
    assert token_f1({"1": "", "2": "the"}, {"1": ["x"], "2": ["a"]}) == 0.5  # two texts without words are alike


@pytest.mark.parametrize("metric", [exact_match, vqa_accuracy, anls, token_f1])
def test_the_metrics_name_what_is_missing_and_give_full_marks(metric):
    right = {"1": ["red", "red", "red"], "2": ["two dogs"] * 10}
    assert metric({"2": "two dogs", "1": "red"}, right) == 1
    assert metric({"1": "q", "2": ""}, right) == 0
    with pytest.raises(DataError, match="'2' has no prediction"):
        metric({"1": "red"}, right)
    with pytest.raises(DataError, match="references of '1' must be a list"):
        metric({"1": "red"}, {"1": "red"})
