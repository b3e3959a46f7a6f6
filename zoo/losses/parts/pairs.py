"""The pairs of a contrastive loss: this rank's rows, and every rank's rows to score them against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .distributed import gather, rank
from .precision import at_least_float32


@dataclass(frozen=True)
class Pairs:
    """Rows to score, and what they are scored against.

    Attributes:
        image: (B, D) rows of this rank; row i belongs to `text` i.
        text: (B, D).
        all_image: (N, D) of all ranks.
        all_text: (N, D) of all ranks.
        offset: Row of the global batch at which this rank's rows start.
    """

    image: Tensor
    text: Tensor
    all_image: Tensor
    all_text: Tensor
    offset: int = 0

    @property
    def labels(self) -> Tensor:
        """(B,) column that each row belongs to."""
        return torch.arange(self.offset, self.offset + len(self.image), device=self.image.device)


def local_pairs(image: Tensor, text: Tensor) -> Pairs:
    """Pairs of one process, in float32 at least."""
    image, text = at_least_float32(image), at_least_float32(text)
    return Pairs(image, text, image, text)


def gathered_pairs(image: Tensor, text: Tensor, with_grad: bool = True) -> Pairs:
    """This rank's pairs against those of all ranks, in float32 at least.

    Args:
        image: (B, D) of this rank.
        text: (B, D) of this rank.
        with_grad: See `gather`.

    Returns:
        Pairs for which the mean over ranks of a mean over rows is the value of one process with the global batch.
    """
    image, text = at_least_float32(image), at_least_float32(text)
    return Pairs(image, text, gather(image, with_grad), gather(text, with_grad), rank() * len(image))
