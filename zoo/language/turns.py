"""A conversation: turns of typed parts, of which text is one and every medium another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """A picture, by its number in the sample; None is the next one that no part names."""

    index: int | None = None


@dataclass(frozen=True)
class AudioPart:
    """A recording, by its number in the sample."""

    index: int | None = None


@dataclass(frozen=True)
class VideoPart:
    """A clip, by its number in the sample."""

    index: int | None = None


@dataclass(frozen=True)
class BoxPart:
    """A place in a picture: (x0, y0, x1, y1) in pixels of the stored picture; a model writes it in its own way."""

    box: Box
    image: int = 0


@dataclass(frozen=True)
class SpanPart:
    """A stretch of time, in seconds."""

    start: float
    end: float


Part = TextPart | ImagePart | AudioPart | VideoPart | BoxPart | SpanPart


@dataclass(frozen=True)
class Turn:
    """What one side says at once."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Its words alone."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True)
class Dialogue:
    """Turns in order: perhaps `system`, then `user` and `assistant` by turns."""

    turns: tuple[Turn, ...]

    @property
    def pictures(self) -> list[int]:
        """Numbers of its pictures, in the order in which they appear."""
        return [part.index or 0 for turn in self.turns for part in turn.parts if isinstance(part, ImagePart)]


def conversation(*turns: tuple[Role, str | Sequence[Part]]) -> Dialogue:
    """A dialogue written down in code: `conversation(("user", [ImagePart(0), TextPart("What is it?")]))`."""
    return Dialogue(tuple(Turn(role, (TextPart(said),) if isinstance(said, str) else tuple(said)) for role, said in turns))
