"""Where a sample's captions are: the one rule for shards of ours and of others.

1. `captions` of `KEY.json`, a map of languages to lists of texts: our own form;
2. else `KEY.txt`, if it is not blank;
3. else `caption` of `KEY.json`, a text or a list of texts: the form of img2dataset.

The language of 2 and 3 is `lang` of `KEY.json`, else the one the shards were indexed with (`und`, unknown, by default).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalign.zoo.errors import DataError

UNKNOWN_LANGUAGE = "und"


def captions_and_meta(
    content: Any, text: str | None, language: str = UNKNOWN_LANGUAGE
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Returns ({language: [primary, alternatives ...]}, the other fields of the JSON).

    Args:
        content: What `KEY.json` holds; None if there is none.
        text: What `KEY.txt` holds; None if there is none.
        language: Language of captions for which none is given.

    Raises:
        DataError: If the captions have another form; the caller adds shard and sample.
    """
    if content is not None and not isinstance(content, Mapping):
        content = {"json": content}  # others' JSON may be a list or a number
    meta = dict(content or {})
    captions = _by_language(meta.pop("captions", {}))
    if captions:
        return captions, meta
    named = meta.get("lang")
    language = named if isinstance(named, str) and named else language
    texts = [text] if text and text.strip() else _texts(meta.pop("caption", None))
    return ({language: texts} if texts else {}), meta


def _by_language(captions: Any) -> dict[str, list[str]]:
    if not isinstance(captions, Mapping):
        raise DataError("'captions' is not a map of languages to lists of texts")
    for language, texts in captions.items():
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            raise DataError(f"'captions.{language}' is not a non-empty list of texts")
    return dict(captions)


def _texts(caption: Any) -> list[str]:
    texts = [caption] if isinstance(caption, str) else caption
    if texts is None:
        return []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError("'caption' is neither a text nor a list of texts")
    return [text for text in texts if text.strip()]
