"""Putting features into the places that were left for them: one masked scatter, after an exact count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AssemblyError
from .pictures import FeatureMap


def splice(embeddings: Tensor, ids: Tensor, placeholder: int, features: Tensor) -> Tensor:
    """Replaces the embeddings of placeholders by features, in reading order.

    Args:
        embeddings: (B, T, D).
        ids: (B, T).
        placeholder: The id whose places are filled.
        features: (N, D), N the number of placeholders; more where there is no placeholder at all, so that what made the features stays
            in the graph of a batch that shows none.

    Returns:
        (B, T, D), in the type of the embeddings.
    """
    places = (ids == placeholder).unsqueeze(-1)
    return embeddings.masked_scatter(places, features.to(embeddings.dtype))


def check_counts(
    ids: Tensor, placeholder: int, lengths: Sequence[int], rows: Sequence[int], keys: Sequence[str], what: str
) -> None:
    """Refuses a batch in which some sample has another number of placeholders than of features.

    Args:
        ids: (B, T).
        placeholder: The placeholder's id.
        lengths: Features of each medium.
        rows: Row of each medium.
        keys: Names of the samples.
        what: The medium, for the message.

    Raises:
        AssemblyError: Giving both numbers and the sample.
    """
    found = (ids == placeholder).sum(1).tolist()
    given = [0] * len(found)
    for row, length in zip(rows, lengths, strict=True):
        given[row] += length
    for row, (places, features) in enumerate(zip(found, given)):
        if places != features:
            key = keys[row] if row < len(keys) else row
            raise AssemblyError(
                f"sample {key!r}: {places} placeholders for {what} features, but {features} features; ids and pictures must be prepared "
                "by the same model's settings"
            )


def lay_out(tiles: Tensor, grid: tuple[int, int], layout: FeatureMap | None, newline: nn.Parameter | Tensor | None) -> Tensor:
    """The features of one picture's tiles -> its tokens: the whole picture first, then rows of the map, each ended by the newline.

    Args:
        tiles: (1 + columns · rows, V, D), the whole picture first.
        grid: (rows, columns) of a tile's V features.
        layout: How they become one map; None where there is the whole picture alone.
        newline: (D,), or None for no such token.

    Returns:
        (tokens, D).
    """
    whole = tiles[0]
    if layout is None:
        return whole if newline is None else torch.cat([whole, newline[None].to(whole)])
    columns, rows = layout.tiles
    width = tiles.shape[-1]
    map_ = tiles[1:].view(rows, columns, *grid, width).permute(4, 0, 2, 1, 3).reshape(width, rows * grid[0], columns * grid[1])
    map_ = map_[:, layout.kept[0], layout.kept[1]]
    if layout.resized is not None:
        map_ = F.interpolate(map_[None], list(layout.resized), mode="bilinear")[0]
    if newline is not None:
        ends = newline[:, None, None].expand(width, map_.shape[1], 1).to(map_)
        map_ = torch.cat([map_, ends], dim=-1)
    return torch.cat([whole, map_.flatten(1).transpose(0, 1)])
