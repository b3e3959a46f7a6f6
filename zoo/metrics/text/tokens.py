"""Texts to tokens in the manner of the Penn Treebank (PTB) tokenizer, which the COCO caption evaluation runs in Java.

Rules: NFC, lower case; clitics are tokens of their own (`dog's` -> `dog 's`, `isn't` -> `is n't`, `cannot` -> `can not`); words keep inner
hyphens and apostrophes (`t-shirt`, `o'clock`), numbers their inner points, commas and colons (`1,000`, `10:30`), letters with points stay
together (`u.s.`); a symbol (`$ % & + @`, a pictograph) is a token; all other punctuation is dropped.

Scores differ slightly from those with the Java tokenizer. It knows abbreviations (`mr.`), file names and dates, and there brackets survive
as `-lrb-`; here they are dropped. Captions hold few of these; compare numbers of one tokenizer only.

Languages without spaces between words: a run of Chinese, Japanese, Thai, Lao, Khmer or Burmese is *one* token, so that only a whole equal
phrase counts and scores are close to 0. With `characters` every character of these scripts is a token; the scores are then those of
characters, and are not comparable with those of words. A word segmenter can be given to the metrics as their `tokenizer`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

#: text -> tokens; `str.split` takes texts that are tokens with spaces already
Tokenizer = Callable[[str], list[str]]

_W = r"[^\s.,:'\-]"
_TOKEN = re.compile(
    rf"(?<!\S)(?:[^\W\d_]\.){{2,}}"  # letters with points
    rf"|\d+(?:[.,:]\d+)+(?:[-']{_W}+)*"  # numbers
    rf"|(?<!\S)'(?:s|m|d|re|ve|ll)(?!\S)"  # a clitic that stands alone already
    rf"|{_W}+(?:[-']{_W}+)*"
)
_CLITIC = re.compile(r"(.+)(n't|'(?:s|m|d|re|ve|ll))")
#: words that PTB takes apart -> length of their first part
_FUSED = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "gimme": 3, "lemme": 3}
_APOSTROPHES, _HYPHENS = "'\u2019\u2018\u02bc\uff07", "-\u2010\u2011"
#: punctuation to Unicode, symbols to PTB
_SYMBOLS = "#%&*/@\\"
#: first word of a character's Unicode name
_UNSPACED = {"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "THAI", "LAO", "KHMER", "MYANMAR"}


def ptb_tokens(text: str, *, characters: bool = False) -> list[str]:
    """Tokens of a text, lower case and without punctuation; see the module for the rules.

    Applied to its own tokens with spaces between them it changes nothing.

    Args:
        text: Any text.
        characters: Make every character of a script without spaces a token, with its combining marks.

    Returns:
        The tokens; none for a text without words.
    """
    plain = "".join(map(_replaced, unicodedata.normalize("NFC", text).lower()))
    if characters:
        plain = _characters_apart(plain)
    return [part for token in _TOKEN.findall(plain) for part in _parts(token)]


def _parts(token: str) -> list[str]:
    """A token and its clitics, each apart."""
    if found := _CLITIC.fullmatch(token):
        return [*_parts(found[1]), found[2]]
    if token in _FUSED:
        return [token[: _FUSED[token]], token[_FUSED[token] :]]
    return [token]


@lru_cache(maxsize=65536)
def _replaced(char: str) -> str:
    """What stands for a character: itself, itself between spaces (a symbol), a space, or nothing."""
    category = unicodedata.category(char)
    if char in _APOSTROPHES:
        return "'"
    if char in _HYPHENS:
        return "-"
    if category == "Cf" or "\ufe00" <= char <= "\ufe0f":  # joiners and variation selectors: not seen, and rarely written alike
        return ""
    if char in ".,:" or category[0] in "LMN":
        return char
    if char in _SYMBOLS or (category[0] == "S" and category != "Sk"):
        return f" {char} "
    return " "


def _characters_apart(text: str) -> str:
    """The text with spaces around every character of a script without spaces; combining marks stay with theirs."""
    pieces, alone = [], False
    for char in text:
        if unicodedata.category(char)[0] != "M":
            before, alone = alone, _is_unspaced(char)
            if alone or before:
                pieces.append(" ")
        pieces.append(char)
    return "".join(pieces)


@lru_cache(maxsize=65536)
def _is_unspaced(char: str) -> bool:
    return unicodedata.name(char, "").split(" ")[0] in _UNSPACED and unicodedata.category(char)[0] == "L"
