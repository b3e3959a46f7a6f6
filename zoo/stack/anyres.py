"""Pictures of any resolution as tiles: which grid of tiles, and how many rows and columns of features are left of it.

Source: LLaVA-1.6 (its released code) and LLaVA-OneVision; sizes are (width, height), grids (columns, rows).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

Size = tuple[int, int]
#: grids of tiles of LLaVA-1.6, in its order
NEXT_GRIDS: tuple[Size, ...] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
#: and of LLaVA-OneVision
ONEVISION_GRIDS: tuple[Size, ...] = tuple((columns, rows) for columns in range(1, 7) for rows in range(1, 7))


def best_grid(size: Size, grids: Sequence[Size], side: int) -> Size:
    """The grid that shows most of a picture's own pixels; of equals the one with the least empty space, then the first.

    Args:
        size: Of the picture.
        grids: Candidates.
        side: S, pixels of a tile's side.
    """
    best, most, least = grids[0], -1, 0
    for columns, rows in grids:
        wide, high = columns * side, rows * side
        scale = min(wide / size[0], high / size[1])
        fitted = int(size[0] * scale) * int(size[1] * scale)
        seen = min(fitted, size[0] * size[1])
        empty = wide * high - seen
        if seen > most or (seen == most and empty < least):
            best, most, least = (columns, rows), seen, empty
    return best


def fitted_size(size: Size, grid: Size, side: int) -> Size:
    """The picture's size inside the grid, its shape kept; the side that does not bind is rounded up."""
    wide, high = grid[0] * side, grid[1] * side
    scale_w, scale_h = wide / size[0], high / size[1]
    if scale_w < scale_h:
        return wide, min(math.ceil(size[1] * scale_w), high)
    return min(math.ceil(size[0] * scale_h), wide), high


def cut_tiles(image: Image.Image, grid: Size, side: int, resampling: Image.Resampling) -> list[Image.Image]:
    """The tiles of a picture row by row: resized, centred on black, cut."""
    wide, high = grid[0] * side, grid[1] * side
    fitted = image.resize(fitted_size(image.size, grid, side), resampling)
    canvas = Image.new("RGB", (wide, high), (0, 0, 0))
    canvas.paste(fitted, ((wide - fitted.width) // 2, (high - fitted.height) // 2))
    return [canvas.crop((x, y, x + side, y + side)) for y in range(0, high, side) for x in range(0, wide, side)]


def unpadded(size: Size, rows: int, columns: int) -> tuple[slice, slice]:
    """The rows and columns of a map of features (rows, columns) in which a picture of a size lies.

    As transformers does it, which rounds before it cuts: 7 digits, so that an error in the last place takes no row away.
    """
    if size[0] / size[1] > columns / rows:
        kept = int(round(size[1] * (columns / size[0]), 7))
        cut = (rows - kept) // 2
        return slice(cut, rows - cut), slice(0, columns)
    kept = int(round(size[0] * (rows / size[1]), 7))
    cut = (columns - kept) // 2
    return slice(0, rows), slice(cut, columns - cut)


def shrunk(rows: int, columns: int, most: int) -> tuple[int, int] | None:
    """The size a map is resized to where it has more than 1.1² times `most` features; None where it has not (`anyres_max_k`)."""
    ratio = math.sqrt(rows * columns / most)
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else None
