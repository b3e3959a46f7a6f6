"""Small pictures of series, for contact sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .frequency import said
from .series_set import Series

if TYPE_CHECKING:
    from PIL import Image

_COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207), (127, 127, 127))
_SCALE = 2  # drawn larger and shrunk, so that lines are smooth


def sketch(series: Series, width: int = 190, height: int = 120) -> Image.Image:
    """Draws the columns of a series over one another, each over its own range; gaps stay white.

    Args:
        series: The series.
        width: Of the picture, in pixels.
        height: Of the picture.
    """
    from PIL import Image, ImageDraw

    size = (width * _SCALE, height * _SCALE)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, column in enumerate(series.values.T):
        for line in _lines(column, *size):
            draw.line(line, fill=_COLORS[number % len(_COLORS)], width=_SCALE)
    return picture.resize((width, height))


def _lines(values: np.ndarray, width: int, height: int) -> list[list[tuple[float, float]]]:
    """The runs of a column between its gaps, as points; more values than pixels become the highest and lowest of each pixel."""
    seen = ~np.isnan(values)
    if not seen.any():
        return []
    low, high = values[seen].min(), values[seen].max()
    places = np.arange(len(values)) * (width - 1) / max(1, len(values) - 1)
    heights = (height - 5) - (values - low) / ((high - low) or 1.0) * (height - 10)
    lines: list[list[tuple[float, float]]] = [[]]
    for pixel in np.split(np.arange(len(values)), np.flatnonzero(np.diff(places.astype(np.int64))) + 1):
        there = pixel[seen[pixel]]
        if not len(there):
            lines.append([])
            continue
        for row in sorted({int(there[heights[there].argmin()]), int(there[heights[there].argmax()])}):
            lines[-1].append((float(places[row]), float(heights[row])))
    return [line for line in lines if len(line) > 1]


def described(series: Series) -> str:
    """What a series is, in a line: columns, rows, step, from when to when, label."""
    shown = ", ".join(series.columns[:4]) + (", ..." if len(series.columns) > 4 else "")
    span = "" if series.start is None else f", step {series.frequency}, {said(series.start)} to {said(series.times()[-1])}"
    missing = np.isnan(series.values).mean()
    return (
        (f"[{series.label}] " if series.label is not None else "")
        + f"{len(series)} rows x {len(series.columns)} ({shown}){span}"
        + (f", {missing:.1%} missing" if missing else "")
    )
