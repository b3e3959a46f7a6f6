"""`spans` of a sample: stretches of time with what happens in them."""

from __future__ import annotations

from dataclasses import dataclass

from ..decoding.sample import Sample
from .checks import listed, mapped, optional_text
from .parts import span_in
from .place import Place

FIELD = "spans"


@dataclass(frozen=True)
class Span:
    """A stretch of time in seconds, and a phrase for what happens in it."""

    start: float
    end: float
    phrase: str | None = None


def spans_of(sample: Sample) -> list[Span]:
    """Returns the spans of a sample, in their order; none if it has none.

    Args:
        sample: The decoded sample.

    Raises:
        SchemaError: Naming sample and span (counted from 1), and what is wanted.
    """
    if FIELD not in sample.meta:
        return []
    at, spans = Place(sample.key, FIELD), []
    for number, value in enumerate(listed(at, sample.meta[FIELD], "spans", empty=True), start=1):
        here = at.inside(f"span {number}")
        entry = mapped(here, value, ("start", "end"), ("phrase",))
        spans.append(Span(*span_in(here, entry), optional_text(here, entry, "phrase")))
    return spans
