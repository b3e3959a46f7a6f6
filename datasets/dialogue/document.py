"""`fields`, `lines` and `answer_lines` of a sample: what is asked of a document, its text, and where the answers stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..decoding.sample import Sample
from .boxes import Box, box_of
from .checks import index_of, listed, mapped, text_of
from .media import Media, media_of
from .place import Place


@dataclass(frozen=True)
class Line:
    """A line of text and its box, in pixels of the first picture."""

    text: str
    box: Box


@dataclass(frozen=True)
class DocumentFields:
    """What can be asked of a document.

    Attributes:
        fields: Name of a field -> its answer.
        lines: The document's lines of text.
        answer_lines: Name of a field -> numbers of the lines (from 0) that hold its answer; none where it could not be found.
    """

    fields: Mapping[str, str]
    lines: tuple[Line, ...] = ()
    answer_lines: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def fields_of(sample: Sample, *, media: Media | None = None) -> DocumentFields | None:
    """Returns the fields and lines of a document, None if the sample has neither.

    Args:
        sample: The decoded sample.
        media: What media it has, where they were not decoded; default what the sample holds.

    Raises:
        SchemaError: Naming sample, field and line (counted from 1), and what is wanted.
    """
    if not {"fields", "lines", "answer_lines"} & set(sample.meta):
        return None
    media = media_of(sample) if media is None else media
    answers = _answers(Place(sample.key, "fields"), sample.meta.get("fields", {}))
    lines = _lines(Place(sample.key, "lines"), sample.meta.get("lines", []), media)
    where = _answer_lines(Place(sample.key, "answer_lines"), sample.meta.get("answer_lines", {}), answers, len(lines))
    return DocumentFields(answers, lines, where)


def _object(at: Place, value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise at.error(f"must be an object {{name: {what}}}, it is {type(value).__name__}")
    return value


def _answers(at: Place, value: Any) -> dict[str, str]:
    answers = _object(at, value, "answer text")
    for name, answer in answers.items():
        text_of(at, name, "name")
        text_of(at, answer, name)
    return answers


def _lines(at: Place, value: Any, media: Media) -> tuple[Line, ...]:
    lines = []
    for number, entry in enumerate(listed(at, value, "lines", empty=True), start=1):
        here = at.inside(f"line {number}")
        if not media.pictures:
            raise here.error("the sample has no picture for its box")
        found = mapped(here, entry, ("text", "box"))
        lines.append(Line(text_of(here, found["text"], "text"), box_of(here, found["box"], media.pictures[0])))
    return tuple(lines)


def _answer_lines(at: Place, value: Any, answers: Mapping[str, str], count: int) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, numbers in _object(at, value, "list of line numbers").items():
        here = at.inside(repr(name))
        if name not in answers:
            raise here.error(f"'fields' has no such name (it has {', '.join(map(repr, answers)) or 'none'})")
        numbers = listed(here, numbers, "line numbers", empty=True)
        found[name] = tuple(index_of(here, number, "line number", count, "line") for number in numbers)
    return found
