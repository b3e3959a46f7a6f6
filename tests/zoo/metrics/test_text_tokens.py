"""The tokenizer of captions: what becomes of a text, and that its own tokens stay as they are."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.zoo.metrics.text.ngrams import ngrams
from modalign.zoo.metrics.text.tokens import ptb_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man riding a wave on top of a surfboard.", "a man riding a wave on top of a surfboard"),
        ("The dog's T-shirt isn't red, is it?!", "the dog 's t-shirt is n't red is it"),
        ("I'd've gone; they cannot, you're gonna.", "i 'd 've gone they can not you 're gon na"),
        ("It's 10:30 a.m. in the U.S. -- $1,000.50 (50%)", "it 's 10:30 a.m. in the u.s. $ 1,000.50 50 %"),
        ("dogs' \u201cquoted\u201d don\u2019t 'single'", "dogs quoted do n't single"),
        ("a half-eaten 2.5-inch pie at five o'clock...", "a half-eaten 2.5-inch pie at five o'clock"),
        ("salt/pepper & [bread] {x} <y> #3", "salt / pepper & bread x < y > # 3"),
        ("E\u0301TE\u0301 na\u00efve", "\u00e9t\u00e9 na\u00efve"),
        ("two\nlines\tand\u00a0more", "two lines and more"),
        ("\u2764\ufe0f dogs \U0001f44d", "\u2764 dogs \U0001f44d"),
        ("... !?", ""),
        ("", ""),
    ],
)
def test_english(text, tokens):
    assert ptb_tokens(text) == tokens.split()


def test_marks_of_other_scripts_stay_with_their_words():
    cat, sleeps = "\u092c\u093f\u0932\u094d\u0932\u0940", "\u0938\u094b"
    assert ptb_tokens(f"{cat} {sleeps}\u0964") == [cat, sleeps]
    assert ptb_tokens("\u0645\u06cc\u200c\u0631\u0648\u0645") == ["\u0645\u06cc\u0631\u0648\u0645"]  # the joiner is not seen


def test_scripts_without_spaces():
    text = "\u4e00\u53ea\u732b\u5728bed\u4e0a\u3002"
    assert ptb_tokens(text) == ["\u4e00\u53ea\u732b\u5728bed\u4e0a"]
    assert ptb_tokens(text, characters=True) == ["\u4e00", "\u53ea", "\u732b", "\u5728", "bed", "\u4e0a"]
    thai = "\u0e01\u0e34\u0e19"  # a letter with a vowel sign above, then a letter
    assert ptb_tokens(thai) == [thai] and ptb_tokens(thai, characters=True) == [thai[:2], thai[2]]
    assert ptb_tokens("the dog's bed", characters=True) == ptb_tokens("the dog's bed")


texts = st.text(st.one_of(st.sampled_from("aAsdmnt'-.,:1 $\u4e00\u0301\u0e01\u0e34"), st.characters(codec="utf-8")), max_size=25)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(texts, st.booleans())
def test_tokens_of_tokens_are_the_tokens(text, characters):
    tokens = ptb_tokens(text, characters=characters)
    assert ptb_tokens(" ".join(tokens), characters=characters) == tokens
    assert all(token and not any(char.isspace() for char in token) for token in tokens)
    assert not any(
        unicodedata.category(char) in ("Ps", "Pe", "Pi", "Pf") for token in tokens for char in token if char not in "\u2018\u2019"
    )


def test_ngrams():
    assert ngrams(["a", "b", "a", "b"], 2) == {("a",): 2, ("b",): 2, ("a", "b"): 2, ("b", "a"): 1}
    assert ngrams(["a"], 4) == {("a",): 1} and not ngrams([], 4)
