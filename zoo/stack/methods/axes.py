"""The picture of two axes that a position prompt starts from, and the frame in which it is laid over pictures.

Source: VPP-LLaVA (arXiv 2503.15426), section 3.1: white ground, black axis lines, ticks and digits from 0.0 to 1.0 in steps of 0.1 along
all four edges. The drawing is our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, FRAME = 336, 30  # pixels: the paper's picture, and its frame
_FONT, _TICK, _GAP = 10.0, 4.0, 2.0  # pixels at that side
_STEPS = 10
_FINER = 4  # drawn so many times larger, then averaged: small digits stay legible


def frame_width(side: int) -> int:
    """Width of the frame of a picture of that side: 30 pixels at 336, in proportion elsewhere, at least 1."""
    return max(1, round(FRAME * side / SIDE))


def frame_mask(side: int, width: int) -> Tensor:
    """(1, S, S), 1 within `width` pixels of an edge and 0 inside; (S² - (S - 2w)²) ones."""
    mask = torch.ones(1, side, side)
    mask[:, width : side - width, width : side - width] = 0
    return mask


def axis_picture(side: int) -> Image.Image:
    """The axes on a square of `side` pixels; y counts down, as in pictures."""
    large = _FINER * side
    picture = Image.new("L", (large, large), 255)
    pen = _Pen(ImageDraw.Draw(picture), large, max(_FINER, round(large / SIDE)), large / SIDE)
    pen.lines()
    for step in range(_STEPS + 1):
        pen.ticks(step / _STEPS)
        pen.digits(step / _STEPS)
    return picture.reduce(_FINER).convert("RGB")


@dataclass
class _Pen:
    """Draws on the large square.

    Attributes:
        draw: Pillow's drawing object.
        side: Of the square.
        line: Width of a line.
        unit: One pixel of the paper's picture.
    """

    draw: ImageDraw.ImageDraw
    side: int
    line: int
    unit: float

    def lines(self) -> None:
        """The four edges."""
        self.draw.rectangle((0, 0, self.side - 1, self.side - 1), outline=0, width=self.line)

    def ticks(self, value: float) -> None:
        """A tick at `value` on every edge."""
        at = _FINER * round(value * (self.side - self.line) / _FINER)  # on whole pixels of the picture, so that it is black
        long, end = round(_TICK * self.unit), self.side - 1
        for near, far in ((0, long), (end - long, end)):
            self.draw.rectangle((at, near, at + self.line - 1, far), fill=0)
            self.draw.rectangle((near, at, far, at + self.line - 1), fill=0)

    def digits(self, value: float) -> None:
        """The number at `value` on every edge; those of the corners move inwards, so that none covers another or leaves the picture."""
        font = ImageFont.load_default(_FONT * self.unit)
        text, start = f"{value:.1f}", (_TICK + _GAP) * self.unit
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=font)
        across, high = (right - left) / 2, (bottom - top) / 2
        x = self._kept(value, start + across)
        y = self._kept(value, start + 2 * high + _GAP * self.unit + high)
        end = self.side - start
        for place, anchor in (((x, start), "mt"), ((x, end), "mb"), ((start, y), "lm"), ((end, y), "rm")):
            self.draw.text(place, text, fill=0, font=font, anchor=anchor)

    def _kept(self, value: float, margin: float) -> float:
        return min(max(value * self.side, margin), self.side - margin)
