"""Entries of a JSON list or of JSON lines, each with its place in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from .rows import RowError


@dataclass(frozen=True)
class Entry:
    """One entry of a list.

    Attributes:
        where: The place, for messages: "FILE: entry 3 (id 7)" or "FILE:3 (id 7)".
        name: What a key can be made of if nothing better is known: the entry's id or its number.
        record: The JSON object.
    """

    where: str
    name: str
    record: dict[str, Any]


def load_json(source: Path) -> Any:
    """Returns the content of a .json file.

    Raises:
        DataError: If it is not JSON in UTF-8.
    """
    try:
        return json.loads(source.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not valid JSON in UTF-8 ({error})") from error


def list_entries(source: Path, content: list[Any]) -> Iterator[Entry | RowError]:
    """Yields the entries of a .json file that holds a list, and an error in place of each that is no object.

    Args:
        source: The file, for messages.
        content: What it holds.
    """
    for number, value in enumerate(content, start=1):
        yield _entry(f"{source}: entry {number}", number, value)


def line_entries(source: Path) -> Iterator[Entry | RowError]:
    """Yields the entries of a .jsonl file, and an error in place of each line that cannot be read.

    Args:
        source: The file.
    """
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _line(f"{source}:{number}", number, line)


def _line(where: str, number: int, line: bytes) -> Entry | RowError:
    try:
        return _entry(where, number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")))
    except (ValueError, RecursionError) as error:
        return RowError(f"{where}: not valid JSON in UTF-8 ({error})")


def _entry(where: str, number: int, value: Any) -> Entry | RowError:
    if not isinstance(value, dict):
        return RowError(f"{where}: an entry must be a JSON object, this is {type(value).__name__}")
    given = value.get("id")
    named = isinstance(given, str | int) and given != ""
    return Entry(f"{where} (id {given!r})" if named else where, str(given) if named else f"entry-{number}", value)
