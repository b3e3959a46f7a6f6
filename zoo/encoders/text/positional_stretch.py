"""Longer texts for a trained text tower: its table of positions, stretched by linear interpolation.

Source: Long-CLIP (arXiv 2403.15378), "knowledge-preserved stretching", as in its official code: 77 -> 248 rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import AssemblyError


def stretch_positions(positions: Tensor, keep: int = 20, factor: int = 4) -> Tensor:
    """Keeps the well-trained first rows and stretches the rest.

    Rows below `keep` stay. Interval i after them gives `p[keep + i] (1 - j/f) + p[keep + i + 1] j/f` for j = 0 ... f - 1, and the last
    row goes on in the direction of the last interval: `p[T - 1] + (p[T - 1] - p[T - 2]) j/f`.

    Args:
        positions: p (T, D); T = 77 for CLIP.
        keep: Rows that stay as they are.
        factor: f, how much longer the rest becomes.

    Returns:
        (keep + f (T - keep), D), 248 rows for CLIP's 77, in the dtype of `positions`.

    Raises:
        AssemblyError: If fewer than two rows would be stretched, or the factor is below 1.
    """
    count = len(positions) - keep
    if keep < 0 or count < 2 or factor < 1:
        raise AssemblyError(
            f"a table of {len(positions)} positions cannot keep {keep} and stretch the rest {factor} times; keep at most "
            f"{len(positions) - 2}, with a factor of 1 or more"
        )
    rest = positions[keep:].double()
    steps = rest.diff(dim=0)
    steps = torch.cat((steps, steps[-1:]))  # beyond the last row: as between the last two
    part = torch.arange(factor, dtype=rest.dtype, device=rest.device) / factor
    stretched = rest[:, None] + part[:, None] * steps[:, None]
    return torch.cat((positions[:keep], stretched.flatten(0, 1).to(positions.dtype)))
