"""BLEU, CIDEr-D and ROUGE-L against pycocoevalcap's classes on the same tokens, slow versions, and known values."""

import itertools
import math
import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.captions import caption_scores
from modalign.zoo.metrics.keyed import mean
from modalign.zoo.metrics.text.bleu import bleu, closest_length
from modalign.zoo.metrics.text.cider import cider, cider_by_key
from modalign.zoo.metrics.text.edit_distance import edit_distance
from modalign.zoo.metrics.text.pairs import token_pairs
from modalign.zoo.metrics.text.rouge import common_subsequence, rouge_l, rouge_l_by_key

WORDS = ["a", "the", "dog", "cat", "runs", "sits", "on", "red", "mat", "of", "two"]


def made(seed, keys=12, shortest=0):
    """Predictions that take half their words from a reference; references of different number and length."""
    draw = random.Random(seed)
    references, predictions = {}, {}
    for key in map(str, range(keys)):
        references[key] = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(draw.randint(1, 5))]
        words = draw.choice(references[key]).split()
        words = words[: draw.randint(shortest, 8)] + draw.choices(WORDS, k=draw.randint(shortest, 4))
        predictions[key] = " ".join(words)
    return predictions, references


def theirs(scorer, predictions, references, **settings):
    return scorer.compute_score(references, {key: [text] for key, text in predictions.items()}, **settings)


@pytest.mark.parametrize("seed", range(8))
def test_the_scores_of_pycocoevalcap(seed):
    predictions, references = made(seed)
    pairs = token_pairs("test", predictions, references, str.split)
    mine = caption_scores(predictions, references, tokenizer=str.split)
    wanted, _ = theirs(Bleu(4), predictions, references, verbose=0)
    assert [mine[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx(wanted, abs=1e-9)
    total, each = theirs(Cider(), predictions, references)
    assert mine["CIDEr"] == pytest.approx(total, abs=1e-9) and total > 0.1
    assert list(cider_by_key(pairs).values()) == pytest.approx(each.tolist(), abs=1e-9)
    total, each = theirs(Rouge(), predictions, references)
    assert mine["ROUGE-L"] == pytest.approx(total, abs=1e-9)
    assert list(rouge_l_by_key(pairs).values()) == pytest.approx(each.tolist(), abs=1e-9)


@pytest.mark.parametrize(
    ("said", "right"),
    [("a red dog", ["a red dog"]), ("dog", ["a cat"]), ("", ["a cat"]), ("a a a a a", ["a cat", "a dog on a mat"])],
    ids=["three-words", "no-match", "empty", "clipped"],
)
def test_short_corpora_have_the_floor_of_pycocoevalcap(said, right):
    wanted, _ = theirs(Bleu(4), {"1": said}, {"1": right}, verbose=0)
    assert list(bleu({"1": said}, {"1": right}, tokenizer=str.split).values()) == pytest.approx(wanted, abs=1e-12)


def test_bleu_by_hand():
    """Papineni's example of clipping, and a brevity penalty."""
    found = bleu(
        {"1": "the the the the the the the"}, {"1": ["the cat is on the mat", "there is a cat on the mat"]}, zero="paper"
    )
    assert found["BLEU-1"] == pytest.approx(2 / 7) and found["BLEU-2"] == found["BLEU-4"] == 0
    found = bleu({"1": "the cat is on"}, {"1": ["the cat is on the mat"]}, zero="paper")
    assert list(found.values()) == pytest.approx([math.exp(1 - 6 / 4)] * 4)
    assert list(bleu({"1": ""}, {"1": ["a cat"]}, zero="paper").values()) == [0] * 4
    assert list(bleu({"1": "a"}, {"1": ["a"]}, orders=2, zero="paper").values()) == [1, 0]  # there is no bigram
    assert closest_length(5, [["a"] * 3, ["a"] * 7]) == 3 and closest_length(6, [["a"] * 3, ["a"] * 7]) == 7
    with pytest.raises(AssemblyError, match="zero: there is no 'cocoa'; did you mean 'coco'"):
        bleu({"1": "a"}, {"1": ["a"]}, zero="cocoa")


@pytest.mark.parametrize("orders", [1, 2, 4])
def test_cider_as_dense_vectors(orders):
    """A matrix with a column per n-gram that occurs anywhere."""
    predictions, references = made(3, keys=5, shortest=1)
    texts = [*predictions.values(), *itertools.chain(*references.values())]
    score = {key: 0.0 for key in predictions}
    for n in range(1, orders + 1):
        grams = [list(zip(*(text.split()[i:] for i in range(n)), strict=False)) for text in texts]
        columns = sorted(set(itertools.chain(*grams)))
        vector = {
            text: np.array([found.count(gram) for gram in columns], float) for text, found in zip(texts, grams, strict=True)
        }
        documents = sum((np.max([vector[text] for text in right], axis=0) > 0).astype(float) for right in references.values())
        weight = np.log(len(predictions)) - np.log(np.maximum(1, documents))
        for key, said in predictions.items():
            for right in references[key]:
                c, s = vector[said] * weight, vector[right] * weight
                size = np.linalg.norm(c) * np.linalg.norm(s)
                gap = len(said.split()) - len(right.split())
                closeness = np.minimum(c, s) @ s / size if size else 0
                score[key] += 10 * closeness * np.exp(-(gap**2) / 72) / orders / len(references[key])
    found = cider_by_key(token_pairs("test", predictions, references, str.split), orders)
    assert found == pytest.approx(score, abs=1e-12) and max(score.values()) > 0.5


def test_longest_common_subsequence_by_trying_all():
    draw = random.Random(0)
    for _ in range(60):
        first, second = (draw.choices("abcd", k=draw.randint(0, 7)) for _ in range(2))
        every = {chosen for n in range(len(first) + 1) for chosen in itertools.combinations(first, n)}
        other = {chosen for n in range(len(second) + 1) for chosen in itertools.combinations(second, n)}
        assert common_subsequence(first, second) == max(map(len, every & other))


def test_edit_distance_by_recursion():
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    draw = random.Random(1)
    for _ in range(40):
        first, second = ("".join(draw.choices("abc", k=draw.randint(0, 5))) for _ in range(2))
        assert edit_distance(first, second) == slow(first, second) == edit_distance(second, first)
    assert edit_distance("kitten", "sitting") == 3


def test_identical_texts_have_full_marks():
    _, references = made(5)
    references = {key: [f"{key} {texts[0]} at noon"] for key, texts in references.items()}
    found = caption_scores({key: texts[0] for key, texts in references.items()}, references)
    assert found == pytest.approx({**{f"BLEU-{n}": 1 for n in range(1, 5)}, "CIDEr": 10, "ROUGE-L": 1})


def test_one_key_has_no_cider_and_an_empty_prediction_nothing():
    assert cider({"1": "a dog"}, {"1": ["a dog"]}) == 0 < rouge_l({"1": "a dog"}, {"1": ["a dog"]})
    predictions, references = made(6)
    empty = caption_scores(dict.fromkeys(predictions, ""), references)
    assert empty == dict.fromkeys(empty, 0.0)
    whole = token_pairs("test", predictions | {"0": ""}, references, str.split)
    assert cider_by_key(whole)["0"] == rouge_l_by_key(whole)["0"] == 0


def test_the_order_of_keys_changes_nothing():
    predictions, references = made(7, keys=9)
    turned = dict(reversed(predictions.items())), dict(reversed(references.items()))
    assert caption_scores(predictions, references) == caption_scores(*turned)
    assert mean([1e16, 1.0, -1e16]) == mean([1.0, 1e16, -1e16]) == 1 / 3


def test_case_and_punctuation_do_not_count_but_a_tokenizer_can_be_given():
    predictions, references = {"1": "A dog, a cat.", "2": "two"}, {"1": ["a dog a cat"], "2": ["three men"]}
    assert rouge_l(predictions, references) == 0.5
    assert rouge_l(predictions, references, tokenizer=str.split) < 0.5


def test_errors():
    with pytest.raises(DataError, match="BLEU: '2' has no prediction"):
        bleu({"1": "a"}, {"1": ["a"], "2": ["a"]})
    with pytest.raises(DataError, match="CIDEr: the prediction '2' has no reference"):
        cider({"1": "a", "2": "b"}, {"1": ["a"]})
    with pytest.raises(DataError, match="captions needs at least one prediction"):
        caption_scores({}, {})
    with pytest.raises(DataError, match="ROUGE-L: the prediction of '1' is NoneType"):
        rouge_l({"1": None}, {"1": ["a"]})
    for bad in ("a text", [], [3]):
        with pytest.raises(DataError, match="references of '1' must be a list of at least one text"):
            rouge_l({"1": "a"}, {"1": bad})
    with pytest.raises(DataError, match=r"a reference of '1' has no word \('...'\); remove it"):
        rouge_l({"1": "a"}, {"1": ["a", "..."]})
