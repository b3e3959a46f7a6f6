"""LLaVA's JSON: a list of {id, image, conversations: [{from, value}, ...]} (Liu et al. 2023, github.com/haotian-liu/LLaVA)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from modalign.zoo.errors import nearest

from .annotated import CONVERSATION, AnnotatedRow, each_row, files_of
from .entries import Entry
from .rows import RowError, take_captions

MARK = "<image>"
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def llava_rows(entries: Iterable[Entry | RowError], lang: str, base: Path) -> Iterator[AnnotatedRow | RowError]:
    """Yields a row for each entry.

    `<image>` in a text becomes an image part in its place. All else of a text, line breaks and `[x, y, x, y]` too, stays text.

    Args:
        entries: The entries of the file.
        lang: Language of captions, where entries have any besides.
        base: Where relative paths of pictures start.
    """
    return each_row(entries, lambda entry: _row(entry, lang, base))


def _row(entry: Entry, lang: str, base: Path) -> AnnotatedRow:
    record, where = dict(entry.record), entry.where
    if record.get("video") is not None:
        raise RowError(f"{where}: field 'video': videos are not read from this format; leave the entry out")
    image = record.get("image") or record.get("images")
    media = files_of(where, record, "image", base)
    turns = [_turn(f"{where}: turn {number}", turn) for number, turn in enumerate(_turns(where, record), start=1)]
    marks = sum(part["type"] == "image" for turn in turns for part in turn["content"])
    if marks != len(media):
        raise RowError(
            f"{where}: field 'conversations' has {marks} {MARK} mark(s), field 'image' has {len(media)} picture(s); "
            "the texts need one mark for each picture, where it belongs"
        )
    first = image[0] if isinstance(image, list) else image
    key, captions = record.pop("key", None), take_captions(where, record, lang)
    row = AnnotatedRow(where, "image", None, entry.name, captions, {**record, "conversations": turns})
    row.key = None if key is None else str(key)
    row.media, row.task, row.origin = tuple(media), CONVERSATION, first or entry.name
    return row


def _turns(where: str, record: dict[str, Any]) -> list[Any]:
    turns = record.pop("conversations", None)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"{where}: field 'conversations' must be a non-empty list of {{'from', 'value'}}")
    return turns


def _turn(where: str, turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise RowError(f"{where}: field 'conversations' must hold objects with 'from' and 'value'")
    speaker, value = turn["from"], turn["value"]
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise RowError(f"{where}: field 'from' is {speaker!r}{nearest(str(speaker), ROLES)}")
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where}: field 'value' must be a text that says something")
    return {"role": ROLES[speaker], "content": parts_of(value)}


def parts_of(value: str) -> list[dict[str, Any]]:
    r"""Cuts a text at its marks: ``"<image>\nWho?"`` -> an image part and the text ``"\nWho?"``; a model sees the same letters.

    Args:
        value: The text of a turn.
    """
    parts: list[dict[str, Any]] = []
    pieces = value.split(MARK)
    for number, piece in enumerate(pieces):
        if number:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
