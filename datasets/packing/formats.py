"""Which format an annotated source has, found from its content or said by the user, and the reader for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError, nearest

from .coco import coco_rows
from .conversation_rows import conversation_rows, is_own
from .entries import Entry, line_entries, list_entries, load_json
from .llava_json import llava_rows
from .refcoco import is_refcoco, refcoco_rows
from .rows import Row, RowError

FORMATS = ("llava", "coco", "refcoco")
_OWN = "conversations"


def annotated_rows(source: Path, format: str, lang: str, images: str) -> Iterator[Row | RowError] | None:
    """Yields the rows of a source with annotations; None for any other source, which `rows.read_rows` reads.

    Args:
        source: A file or folder.
        format: "llava", "coco", "refcoco", or "" to find it out.
        lang: Language of captions for which none is given.
        images: Folder of the pictures; "" is the folder of the file.

    Raises:
        DataError: If the source cannot be of the format that was asked for.
    """
    if format and format not in FORMATS:
        raise DataError(f"format is {format!r}{nearest(format, FORMATS)} (leave it out for tables and folders)")
    if not source.exists():
        return None
    kind = source.suffix.lower()
    if not source.is_file() or kind not in (".json", ".jsonl", ".ndjson"):
        if format or images:
            raise DataError(f"{source}: --format and --images are for a .json or .jsonl file, and this is none")
        return None
    base = Path(images) if images else source.parent
    if not base.is_dir():
        raise DataError(f"--images {images}: there is no such folder")
    if kind == ".json":
        return _of_json(source, format, lang, base)
    found = format or _kind_of_first(line_entries(source))
    if found is None:
        if images:
            raise DataError(f"{source}: --images goes with annotations ({', '.join(FORMATS)}, or our own), and there are none")
        return None
    return _of_entries(source, line_entries(source), found, lang, base)


def _of_json(source: Path, format: str, lang: str, base: Path) -> Iterator[Row | RowError]:
    content = load_json(source)
    if format == "coco" or (not format and isinstance(content, dict)):
        return coco_rows(source, content, lang, base)
    if not isinstance(content, list):
        raise DataError(f"{source}: {format} is a list of entries, this is {type(content).__name__}")
    found = format or _kind_of_first(list_entries(source, content))
    if found is None:
        raise DataError(
            f"{source}: cannot tell what this is from its first entry; expected 'conversations' (LLaVA), a box and 'sentences' "
            "(RefCOCO), or an object with 'images' and 'annotations' (COCO). Tables are .csv, .tsv or .jsonl"
        )
    return _of_entries(source, list_entries(source, content), found, lang, base)


def _of_entries(
    source: Path, entries: Iterable[Entry | RowError], format: str, lang: str, base: Path
) -> Iterator[Row | RowError]:
    if format == "llava":
        return llava_rows(entries, lang, base)
    if format == "refcoco":
        return refcoco_rows(entries, base)
    if format == _OWN:
        return conversation_rows(entries, lang, base)
    raise DataError(f"{source}: COCO is one JSON object, not JSON lines")


def _kind_of_first(entries: Iterator[Entry | RowError]) -> str | None:
    """The format of the first entry that can be read."""
    for entry in entries:
        if isinstance(entry, Entry):
            return _kind_of(entry.record)
    return None


def _kind_of(record: dict[str, Any]) -> str | None:
    if isinstance(turns := record.get("conversations"), list):
        first = next(chain(turns, [None]))
        return "llava" if isinstance(first, dict) and "from" in first else _OWN
    if is_refcoco(record):
        return "refcoco"
    return _OWN if is_own(record) else None
