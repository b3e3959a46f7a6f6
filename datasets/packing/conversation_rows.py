"""Our own JSON lines with `conversations`, `regions` or the `fields` of a document beside `image`, `images` or `audio`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .annotated import CONVERSATION, GROUNDING, AnnotatedRow, each_row, files_of
from .entries import Entry
from .rows import RowError, take_captions

ANNOTATIONS = ("conversations", "regions", "fields", "lines", "spans")


def is_own(record: Mapping[str, Any]) -> bool:
    """True for an entry of this form: with a conversation, or with other annotations and no caption."""
    if "conversations" in record:
        return True
    return any(name in record for name in ANNOTATIONS) and not any(str(name).startswith("caption") for name in record)


def conversation_rows(entries: Iterable[Entry | RowError], lang: str, base: Path) -> Iterator[AnnotatedRow | RowError]:
    """Yields a row for each entry.

    Args:
        entries: The entries of the file.
        lang: Language of captions for which none is given.
        base: Where relative paths of media start.
    """
    return each_row(entries, lambda entry: _row(entry, lang, base))


def _row(entry: Entry, lang: str, base: Path) -> AnnotatedRow:
    record, where = dict(entry.record), entry.where
    given = next((record[name] for name in ("image", "images", "audio", "audios") if record.get(name)), None)
    first = given[0] if isinstance(given, list) else given
    media = [*files_of(where, record, "image", base), *files_of(where, record, "audio", base)]
    language, key = record.pop("lang", None) or lang, record.pop("key", None)
    if not isinstance(language, str):
        raise RowError(f"{where}: field 'lang' must be text")
    captions = take_captions(where, record, language)
    if not any(name in record for name in ANNOTATIONS):
        raise RowError(f"{where}: none of the fields {', '.join(ANNOTATIONS)} is there; other lines of this file have one")
    task = CONVERSATION if "conversations" in record else GROUNDING
    if task == GROUNDING and not media:
        raise RowError(f"{where}: field 'image' is missing; only conversations can do without a picture or a recording")
    name = entry.name if "id" in record or first is None else str(first)
    key = None if key is None else str(key)
    origin = str(first or name)
    return AnnotatedRow(where, "image", None, name, captions, record, key, media=tuple(media), task=task, origin=origin)
