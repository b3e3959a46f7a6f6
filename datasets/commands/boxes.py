"""Pictures with their boxes drawn into them, as `data show` shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..decoding.sample import Sample
from ..dialogue import Box, BoxPart, Dialogue, Region, fields_of, regions_of
from .sheet import FONT_SIZE, draw_line, fit, line_width

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

# dark enough for white letters
COLOURS = ("#c0392b", "#1f618d", "#1e8449", "#7d3c98", "#a04000", "#0e6655", "#b03a78", "#34495e")
GAP = 6  # between several pictures of one sample
_HEIGHT, _MAX_WIDTH = FONT_SIZE + 5, 170  # of a label
Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Label:
    """A box to draw, what is written at it, and which picture it is in."""

    box: Box
    text: str
    image: int = 0


def labels_of(sample: Sample, dialogue: Dialogue | None) -> list[Label]:
    """Returns the boxes of a sample: regions, boxes of its conversation (numbered from 1), and lines that hold answers.

    Args:
        sample: The decoded sample.
        dialogue: Its conversation.

    Raises:
        SchemaError: If regions or lines are wrong.
    """
    labels = [Label(region.box, _name(region), region.image) for region in regions_of(sample)]
    parts = [part for turn in (dialogue.turns if dialogue else ()) for part in turn.parts if isinstance(part, BoxPart)]
    labels += [Label(Box(*part.box), f"box {number}", part.image) for number, part in enumerate(parts, start=1)]
    document = fields_of(sample)
    if document is not None:
        answers = [(name, number) for name, numbers in document.answer_lines.items() for number in numbers]
        labels += [Label(document.lines[number].box, name) for name, number in answers]
    return labels


def _name(region: Region) -> str:
    return (region.phrase or region.category or "") + (" (crowd)" if region.crowd else "")


def with_boxes(pictures: Sequence[Image.Image], labels: Sequence[Label], width: int) -> tuple[Image.Image, int]:
    """Draws the pictures of a sample side by side, in their final size, so that lines and letters are as wide as they should be.

    Args:
        pictures: RGB, at least one.
        labels: The boxes, in pixels of the pictures as they are given.
        width: Width and height to fit into.

    Returns:
        (the drawing, how many labels found no free place and are left out; their boxes are drawn).
    """
    from PIL import Image, ImageDraw

    height = _height(pictures, width)
    drawn = [
        picture.convert("RGB").resize((max(1, round(picture.width * height / picture.height)), height)) for picture in pictures
    ]
    board = Image.new("RGB", (sum(one.width for one in drawn) + GAP * (len(drawn) - 1), height), "white")
    draw, taken, hidden, left = ImageDraw.Draw(board), list[Rectangle](), 0, 0
    for number, (picture, one) in enumerate(zip(pictures, drawn, strict=True)):
        board.paste(one, (left, 0))
        frame = (left, 0, left + one.width, height)
        scale = (one.width / picture.width, height / picture.height)
        placed = [(_scaled(label.box, scale, left), label.text) for label in labels if label.image == number]
        hidden += _draw_boxes(draw, placed, frame, taken)
        left += one.width + GAP
    return board, hidden


def _height(pictures: Sequence[Image.Image], width: int) -> int:
    """The common height with which the pictures fit, none of them enlarged more than four times."""
    free = max(width - GAP * (len(pictures) - 1), 1)
    by_width = free / sum(picture.width / picture.height for picture in pictures)
    return max(1, int(min(width, by_width, 4 * min(picture.height for picture in pictures))))


def _scaled(box: Box, scale: tuple[float, float], left: int) -> Rectangle:
    x0, x1 = (round(left + x * scale[0]) for x in (box.x0, box.x1))
    y0, y1 = (round(y * scale[1]) for y in (box.y0, box.y1))
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)  # edges of pixels -> the pixels inside


def _draw_boxes(
    draw: ImageDraw.ImageDraw, boxes: Sequence[tuple[Rectangle, str]], frame: Rectangle, taken: list[Rectangle]
) -> int:
    """All frames first, so that none runs through a label; returns how many labels found no place."""
    for number, (box, _) in enumerate(boxes):
        draw.rectangle(box, outline=COLOURS[number % len(COLOURS)], width=2)
    hidden = 0
    for number, (box, text) in enumerate(boxes):
        if text:
            hidden += not _draw_label(draw, box, text, COLOURS[number % len(COLOURS)], frame, taken)
    return hidden


def _draw_label(
    draw: ImageDraw.ImageDraw, box: Rectangle, text: str, colour: str, frame: Rectangle, taken: list[Rectangle]
) -> bool:
    line = fit(text, 1, _MAX_WIDTH)[0]
    width = round(line_width(line)) + 4
    for left, top in _places(box, width):
        left, top = max(frame[0], min(left, frame[2] - width)), max(frame[1], min(top, frame[3] - _HEIGHT))
        here = (left, top, left + width, top + _HEIGHT)
        if not any(_meet(here, other) for other in taken):
            taken.append(here)
            draw.rectangle((left, top, left + width - 1, top + _HEIGHT - 1), fill=colour)
            draw_line(draw, (left + 2, top), line, "white")
            return True
    return False


def _places(box: Rectangle, width: int) -> Iterator[tuple[int, int]]:
    """Where a label may stand: above the box, inside at the top, inside at the bottom, below; on the left, then on the right."""
    x0, y0, x1, y1 = box
    for left in (x0, x1 + 1 - width):
        yield from ((left, y0 - _HEIGHT), (left, y0), (left, y1 + 1 - _HEIGHT), (left, y1 + 1))


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
