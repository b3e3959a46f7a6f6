"""How a picture becomes tiles and then tokens: sizes and pixels, no weights; it runs in data workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from ..encoders.image.preprocess import ImagePreprocess, as_rgb
from ..errors import AssemblyError, RecipeError
from .anyres import NEXT_GRIDS, ONEVISION_GRIDS, Size, best_grid, cut_tiles, shrunk, unpadded

_MOST_TILES = 64


@dataclass
class PictureConfig:
    """How pictures are shown to the encoder.

    Attributes:
        mode: `own`, the encoder's own preprocessing; `pad`, the whole picture on a square of the mean colour (LLaVA-1.5); `squash`, the
            whole picture resized to a square; `anyres`, the whole picture squashed, then tiles of it at its own resolution (LLaVA-1.6).
        grids: (columns, rows) of tiles that `anyres` may take; default LLaVA-1.6's five.
        most: k of OneVision's `anyres_max_k`: a map of more than k tiles' features is shrunk to k tiles; None never shrinks.
        several: With `anyres`, what pictures that share a conversation get: `tiles` as well (LLaVA-1.6), or `whole`, the whole picture
            alone (OneVision).
    """

    mode: Literal["own", "pad", "squash", "anyres"] = "own"
    grids: list[list[int]] = field(default_factory=lambda: [list(grid) for grid in NEXT_GRIDS])
    most: int | None = None
    several: Literal["tiles", "whole"] = "tiles"

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a grid is no pair of small whole numbers.
        """
        if not self.grids or any(len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] > _MOST_TILES for grid in self.grids):
            raise RecipeError(
                f"model.picture.grids: {self.grids} must be a list of [columns, rows], each of 1 to {_MOST_TILES} tiles; OneVision's are "
                f"all from {list(ONEVISION_GRIDS[0])} to {list(ONEVISION_GRIDS[-1])}"
            )
        if self.most is not None and self.most < 1:
            raise RecipeError(f"model.picture.most: {self.most} must be 1 or more tiles")


@dataclass(frozen=True)
class PictureLayout:
    """Pictures -> tiles, and how many tokens each picture is.

    Attributes:
        config: The settings.
        preprocess: Of the encoder, for one tile.
        tokens_per_tile: V' after the projector.
        grid: (rows, columns) of them, where a grid is left; needed by `anyres`.
        extra: K tokens that methods place behind each picture's own.
        newline: Whether a learned token ends every row of `anyres` (and every picture of it).
    """

    config: PictureConfig
    preprocess: ImagePreprocess
    tokens_per_tile: int
    grid: tuple[int, int] | None
    extra: int = 0
    newline: bool = False

    def __post_init__(self) -> None:
        """Refuses tiles whose features cannot be laid side by side.

        Raises:
            AssemblyError: If the projector leaves no grid.
        """
        if self.config.mode == "anyres" and self.grid is None:
            raise AssemblyError(
                "model.picture.mode: anyres lays the tiles' features side by side, and no grid of them is left (by this projector, a hook "
                "or keep_prefix); take another projector, or mode: pad"
            )

    def __call__(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """The pictures of a conversation -> (tiles, 3, S, S) uint8 each."""
        return [self._tiles(image, len(images)) for image in images]

    def _tiles(self, image: Image.Image, together: int) -> Tensor:
        if self.config.mode != "anyres":
            return self.preprocess(image)[None]
        image = as_rgb(image)
        squashed = replace(self.preprocess, resize_mode="squash", crop_fraction=1.0, resize_to=None)
        tiles = [squashed(image)]
        if (grid := self.tiles_of(image.size, together)) is not None:
            resampling = Image.Resampling[self.preprocess.interpolation.upper()]
            tiles += [squashed(tile) for tile in cut_tiles(image, grid, self.preprocess.size, resampling)]
        return torch.stack(tiles)

    def tiles_of(self, size: Size, together: int = 1) -> Size | None:
        """(columns, rows) of a picture's tiles, besides the whole picture; None where that stands alone.

        Args:
            size: (width, height) of the picture.
            together: How many pictures share the conversation.
        """
        config = self.config
        if config.mode != "anyres" or (config.several == "whole" and together > 1):
            return None
        return best_grid(size, [(grid[0], grid[1]) for grid in config.grids], self.preprocess.size)

    def tiles(self, sizes: Sequence[Size]) -> list[int]:
        """How many tiles each picture of a conversation is, the whole picture among them."""
        grids = [self.tiles_of(size, len(sizes)) for size in sizes]
        return [1 if grid is None else 1 + grid[0] * grid[1] for grid in grids]

    def tokens(self, sizes: Sequence[Size]) -> list[int]:
        """V of each picture of a conversation, everything included that stands for it in the text."""
        return [self._own_tokens(size, len(sizes)) + self.extra for size in sizes]

    def _own_tokens(self, size: Size, together: int) -> int:
        if self.config.mode != "anyres":
            return self.tokens_per_tile
        if (found := self.map_of(size, together)) is None:
            return self.tokens_per_tile + self.newline
        rows, columns = found.final
        return self.tokens_per_tile + rows * (columns + self.newline)

    def map_of(self, size: Size, together: int = 1) -> FeatureMap | None:
        """How the tiles' features become one map; None for a picture without tiles."""
        grid = self.tiles_of(size, together)
        if grid is None or self.grid is None:
            return None
        rows, columns = grid[1] * self.grid[0], grid[0] * self.grid[1]
        kept = unpadded(size, rows, columns)
        inside = (kept[0].stop - kept[0].start, kept[1].stop - kept[1].start)
        most = self.config.most
        smaller = None if most is None else shrunk(*inside, most * self.grid[0] * self.grid[1])
        return FeatureMap(grid, kept, smaller, smaller or inside)


@dataclass(frozen=True)
class FeatureMap:
    """How the features of tiles become one map of rows and columns.

    Attributes:
        tiles: (columns, rows) of tiles.
        kept: Rows and columns in which the picture lies.
        resized: What that is resized to; None leaves it.
        final: (rows, columns) at the end.
    """

    tiles: Size
    kept: tuple[slice, slice]
    resized: tuple[int, int] | None
    final: tuple[int, int]
