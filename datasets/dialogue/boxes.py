"""Boxes in pixels of the stored picture: the check, and the way from others' layouts to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from modalign.zoo.errors import DataError

from .checks import index_of, number_of
from .media import Media
from .place import Place

Size = tuple[int, int]
ROUNDING = 1e-3  # what a sum of decimal fractions may be off by
OVERHANG = 1.0  # by how much others' rounded boxes may stick out to be cut at the edge


class Box(NamedTuple):
    """A box: left, top, right, bottom, as edges between pixels, so that a whole picture is (0, 0, width, height)."""

    x0: float
    y0: float
    x1: float
    y1: float


def box_of(at: Place, value: Any, size: Size | None, name: str = "box") -> Box:
    """Returns a checked box.

    Args:
        at: Where it stands.
        value: The list [x0, y0, x1, y1].
        size: (width, height) of its picture, None if that is not known.
        name: Name of the value, for messages.

    Raises:
        SchemaError: If it is no four finite numbers, turned around, or not inside its picture.
    """
    if not isinstance(value, list) or len(value) != 4:
        raise at.error(f"{name!r} must be four numbers [x0, y0, x1, y1], it is {value!r:.80}")
    box = Box(*(number_of(at, number, name) for number in value))
    if box.x0 > box.x1 or box.y0 > box.y1:
        raise at.error(f"{name!r} {value} is turned around; x0 <= x1 and y0 <= y1 are wanted (is it x, y, width, height?)")
    if size is not None and _overhang(box, size) > ROUNDING:
        raise at.error(f"{name!r} {value} is not inside its picture of {size[0]}x{size[1]} pixels")
    return box


def box_in(at: Place, entry: Mapping[str, Any], media: Media) -> tuple[Box, int]:
    """Returns the box of an entry with ``box`` and ``image`` (default 0), and which picture it is in.

    Raises:
        SchemaError: If there is no such picture, or the box is wrong.
    """
    image = index_of(at, entry.get("image", 0), "image", len(media.pictures), "picture")
    return box_of(at, entry["box"], media.pictures[image]), image


def corners(values: Any, layout: Literal["xywh", "xyxy"], size: Size) -> tuple[list[float], bool]:
    """Turns a box of others into ours.

    Rounded annotations stick out of their pictures by fractions of a pixel; up to one pixel is cut at the edge, and it is said.

    Args:
        values: Four numbers.
        layout: "xywh": left, top, width, height, as COCO has it; "xyxy": left, top, right, bottom.
        size: (width, height) of the picture.

    Returns:
        ([x0, y0, x1, y1], whether it was cut).

    Raises:
        DataError: With the reason; the caller adds the place.
    """
    numbers = _numbers(values)
    x, y, *rest = numbers
    if layout == "xywh" and min(rest) < 0:
        raise DataError(f"{values} has a negative width or height")
    right, bottom = (round(x + rest[0], 6), round(y + rest[1], 6)) if layout == "xywh" else rest
    if x > right or y > bottom:
        raise DataError(f"{values} is turned around; x0 <= x1 and y0 <= y1 are wanted")
    box, (width, height) = Box(x, y, right, bottom), size
    over = _overhang(box, size)
    if over >= OVERHANG:
        raise DataError(f"{values} sticks out of its picture of {width}x{height} pixels by {over:g}")
    if over <= 0:
        return list(box), False
    return [max(x, 0), max(y, 0), min(right, width), min(bottom, height)], True


def _numbers(values: Any) -> Sequence[float]:
    at = Place("", "")
    if not isinstance(values, list) or len(values) != 4:
        raise DataError(f"a box is four numbers, this is {values!r:.80}")
    for value in values:
        try:
            number_of(at, value, "box")
        except DataError:
            raise DataError(f"{value!r} in {values!r:.80} is not a finite number") from None
    return values


def _overhang(box: Box, size: Size) -> float:
    """By how many pixels a box sticks out of its picture."""
    return max(-box.x0, -box.y0, box.x1 - size[0], box.y1 - size[1])
