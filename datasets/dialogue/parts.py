"""The parts that a turn of a conversation is made of, and how they are read from JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modalign.zoo.errors import nearest
from modalign.zoo.language.turns import AudioPart, BoxPart, ImagePart, Part, SpanPart, TextPart, VideoPart

from .boxes import box_in
from .checks import index_of, mapped, number_of, text_of
from .media import Media
from .place import Place

NAMES = {"image": "picture", "audio": "recording", "video": "video"}


_SHOWS: dict[str, Callable[[int], ImagePart | AudioPart | VideoPart]] = {
    "image": ImagePart,
    "audio": AudioPart,
    "video": VideoPart,
}
_KINDS = ("text", "box", "span", *_SHOWS)


class PartReader:
    """Reads the parts of one conversation in order, because a medium without an index is the next one not yet shown.

    Args:
        media: What the sample has.
    """

    def __init__(self, media: Media) -> None:
        self.media = media
        self.shown: dict[str, set[int]] = {medium: set() for medium in _SHOWS}

    def read(self, at: Place, value: Any) -> Part:
        """Returns one part.

        Args:
            at: Where it stands.
            value: The object of the JSON.

        Raises:
            SchemaError: Saying what is wanted.
        """
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in _KINDS:
            hint = nearest(kind, _KINDS) if isinstance(kind, str) else f"; known: {', '.join(_KINDS)}"
            raise at.error(f"a part must be an object with a known 'type', this has {kind!r}{hint}")
        if kind == "text":
            return TextPart(text_of(at, mapped(at, value, ("type", "text"))["text"], "text", blank=True))
        if kind == "box":
            return BoxPart(*box_in(at, mapped(at, value, ("type", "box"), ("image",)), self.media))
        if kind == "span":
            return SpanPart(*span_in(at, mapped(at, value, ("type", "start", "end"))))
        return _SHOWS[kind](self._show(at, kind, mapped(at, value, ("type",), ("index",)).get("index")))

    def never_shown(self, medium: str) -> list[int]:
        """Returns the numbers of what no part has shown."""
        return [number for number in range(self.media.count(medium)) if number not in self.shown[medium]]

    def _show(self, at: Place, medium: str, given: Any) -> int:
        count, name = self.media.count(medium), NAMES[medium]
        if given is None:
            rest = self.never_shown(medium)
            if not rest:
                raise at.error(f"there is no {name} left to show; the sample has {count} {name}(s)")
            given = rest[0]
        index = index_of(at, given, "index", count, name)
        self.shown[medium].add(index)
        return index


def span_in(at: Place, entry: Any) -> tuple[float, float]:
    """Returns ``start`` and ``end`` of an entry, in seconds.

    Raises:
        SchemaError: If they are no finite numbers with 0 <= start <= end.
    """
    start, end = number_of(at, entry["start"], "start"), number_of(at, entry["end"], "end")
    if not 0 <= start <= end:
        raise at.error(f"0 <= start <= end is wanted (seconds), found {start:g} and {end:g}")
    return start, end
