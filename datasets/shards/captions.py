"""Where a sample's captions are: the one rule for shards of ours and of others.

1. `captions` of `KEY.json`: a map of languages to lists of texts, our own form, or a text or a list of texts, as some others write it;
2. else `KEY.txt`, if it is not blank;
3. else `caption` of `KEY.json`, a text or a list of texts: the form of img2dataset.

The language of whatever is no map is `lang` of `KEY.json`, else the one the shards were indexed with (`und`, unknown, by default).

A blank caption in a map is refused, as our writer refuses it; elsewhere it stands for no caption, as it does with img2dataset, and so does
`null`. A text that is no Unicode (JSON may hold half a surrogate pair) is refused everywhere: no tokenizer reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalign.zoo.errors import DataError

UNKNOWN_LANGUAGE = "und"


class UnusableText(DataError):
    """A text of the right form that nothing can be learned from: blank, or no Unicode."""


def check_text(text: str, field: str) -> None:
    """Refuses a text that is blank or cannot be written in UTF-8.

    Args:
        text: The text.
        field: Where it stands, for the message.

    Raises:
        UnusableText: Saying which of the two it is.
    """
    if not text.strip():
        raise UnusableText(f"{field!r} has a blank text; leave it out, or write the text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnusableText(
            f"{field!r} has a text that is no Unicode (half a surrogate pair at position {error.start}); repair the text"
        ) from None


def captions_and_meta(
    content: Any, text: str | None, language: str = UNKNOWN_LANGUAGE
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Returns ({language: [primary, alternatives ...]}, the other fields of the JSON).

    Args:
        content: What `KEY.json` holds; None if there is none.
        text: What `KEY.txt` holds; None if there is none.
        language: Language of captions for which none is given.

    Raises:
        DataError: If the captions have another form or cannot be used; the caller adds shard and sample.
    """
    if content is not None and not isinstance(content, Mapping):
        content = {"json": content}  # others' JSON may be a list or a number
    meta = dict(content or {})
    given = meta.pop("captions", None)
    if isinstance(given, Mapping) and given:
        return _by_language(given), meta
    named = meta.get("lang")
    language = named if isinstance(named, str) and named else language
    check_text(language, "lang")
    texts = [] if isinstance(given, Mapping) else _texts(given, "captions", "no map of languages to lists of texts either")
    if not texts:
        texts = [text] if text and text.strip() else _texts(meta.pop("caption", None), "caption")
    return ({language: texts} if texts else {}), meta


def _by_language(captions: Mapping[str, Any]) -> dict[str, list[str]]:
    for language, texts in captions.items():
        check_text(language, "captions")
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            raise DataError(f"'captions.{language}' is not a non-empty list of texts")
        for text in texts:
            check_text(text, f"captions.{language}")
    return dict(captions)


def _texts(given: Any, field: str, besides: str = "") -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if texts is None:
        return []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{field!r} is neither a text nor a list of texts{besides and f', and {besides}'}")
    kept = [text for text in texts if text.strip()]
    for text in kept:
        check_text(text, field)
    return kept
