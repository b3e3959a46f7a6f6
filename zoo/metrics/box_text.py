"""Boxes in answers of language models: read from text, and between the padded square that the model sees and the picture's pixels.

A box is `[x1, y1, x2, y2]`. LLaVA and VPP-LLaVA (arXiv 2503.15426) write it relative to the picture padded to a square on its long side;
reading and un-padding follow the evaluation code of VPP-LLaVA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from ..errors import DataError
from .rows import check_choice

Clamp = Literal["lower", "both"]

#: atomic, as the runs are possessive: a run that ends badly is none, rather than a shorter one
_NUMBER = r"(?>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
#: one number after another: with commas, with spaces alone
_RUNS = tuple(re.compile(rf"(?<![\w.+-]){_NUMBER}(?:{gap}{_NUMBER})*+(?![\w%])") for gap in (r"\s*[,;]\s*", r"\s+"))
_POINT = rf"[(\[<]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[)\]>]"
_CORNERS = re.compile(rf"{_POINT}\s*,?\s*{_POINT}")


def parse_boxes(text: str, *, strict: bool = False) -> list[list[float]]:
    """All boxes that an answer names, in its order; none if it names none.

    A box is a run of exactly four numbers, integers or not, with commas (or, where no run has commas, spaces) between them, in brackets or
    parentheses or bare, with any words around; or two points, `(x1, y1), (x2, y2)`. The numbers come back as they are: neither
    ordered nor scaled nor clipped.

    Args:
        text: What the model said.
        strict: Read as the official code does: take brackets off both ends, split at ", "; anything but four numbers is no box, so
            an answer has at most one and no words around it.
    """
    if strict:
        box = _strict(text)
        return [] if box is None else [box]
    found: list[Sequence[str]] = _CORNERS.findall(text)
    for pattern in _RUNS:
        found = found or [run for run in map(_numbers, pattern.findall(text)) if len(run) == 4]
    boxes = [[float(number) for number in box] for box in found]
    return [box for box in boxes if _is_finite(box)]


def parse_box(text: str, *, strict: bool = False) -> list[float] | None:
    """The first box that an answer names, or None; see `parse_boxes`.

    Args:
        text: What the model said.
        strict: Read as the official code does.
    """
    boxes = parse_boxes(text, strict=strict)
    return boxes[0] if boxes else None


def _numbers(run: str) -> list[str]:
    return re.findall(_NUMBER, run)


def _strict(text: str) -> list[float] | None:
    try:
        box = [float(part) for part in text.strip("[]").split(", ")]
    except ValueError:
        return None
    return box if len(box) == 4 and _is_finite(box) else None


def _is_finite(box: Sequence[float]) -> bool:
    return all(map(math.isfinite, box))


def unpad_box(box: Sequence[float], width: float, height: float, clamp: Clamp = "lower") -> list[float]:
    """From the padded square, relative, to pixels of the picture.

    Times the long side s, then less the padding: `(s - width) // 2` in x, `(s - height) // 2` in y.

    Args:
        box: `[x1, y1, x2, y2]` relative to the square.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        clamp: `lower`, at 0 from below only, as the official code does (there square pictures are not clamped at all); `both`, also at
            width and height.

    Raises:
        DataError: If there are not four numbers, or the picture has no size.
        AssemblyError: If `clamp` is neither.
    """
    check_choice("clamp", clamp, ("lower", "both"))
    side, left, top = _square(box, width, height)
    shifted = (box[0] * side - left, box[1] * side - top, box[2] * side - left, box[3] * side - top)
    limits = (width, height) * 2 if clamp == "both" else (math.inf,) * 4
    return [min(max(value, 0.0), limit) for value, limit in zip(shifted, limits, strict=True)]


def pad_box(box: Sequence[float], width: float, height: float) -> list[float]:
    """From pixels of the picture to the padded square, relative: the inverse of `unpad_box` for boxes inside the picture.

    Args:
        box: `[x1, y1, x2, y2]` in pixels.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.

    Raises:
        DataError: If there are not four numbers, or the picture has no size.
    """
    side, left, top = _square(box, width, height)
    return [(box[0] + left) / side, (box[1] + top) / side, (box[2] + left) / side, (box[3] + top) / side]


def _square(box: Sequence[float], width: float, height: float) -> tuple[float, float, float]:
    """Side of the padded square, and the padding left and above."""
    if len(box) != 4:
        raise DataError(f"a box has four numbers, x1, y1, x2, y2; got {len(box)}: {list(box)!r:.60}")
    if not (width > 0 and height > 0):
        raise DataError(f"a picture of {width} x {height} has no pixels; give width and height, both above 0")
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2
