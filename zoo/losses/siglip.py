"""The sigmoid loss of SigLIP: every image-text pair of the global batch is a yes-or-no question of its own.

Source: Zhai et al. 2023 (arXiv 2303.15343), algorithm 1; exchanges between ranks as in open_clip's `SigLipLoss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RecipeError, nearest
from .base import Loss, LossValue
from .parts.exchange import Exchange, blocks
from .parts.precision import at_least_float32, no_autocast
from .parts.rows import check_chunk, row_means


def siglip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    positives: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """`(1/B) Σ_i Σ_j softplus(-z_ij (s x_i·y_j + b))`, z = +1 for i = j, else -1: sum over texts, mean over images.

    Computed in float32 at least, whatever the autocast.

    Args:
        image: (B, D) unit vectors.
        text: (M, D) unit vectors; with `positives` M = B and row i belongs to image i.
        logit_scale: s, already exponentiated.
        logit_bias: b; -10 at the start, because nearly all pairs are negative.
        positives: False if no text belongs to any image: a block of another rank.
        chunk: Rows of logits at a time; the same value and gradients, with memory O(chunk M) and one more forward product.

    Returns:
        Scalar, 0 for an empty batch. Over ranks: the sum over every rank's block of texts is this rank's loss, and the mean over ranks
        of that is the value of one process.
    """
    image, text = at_least_float32(image), at_least_float32(text)

    def term(rows: Tensor, labels: Tensor) -> tuple[Tensor]:
        logits = logit_scale * rows @ text.T + logit_bias
        if positives:
            place = torch.arange(len(rows), device=rows.device), labels
            logits.index_put_(place, -logits[place])
        return (F.softplus(logits, threshold=50.0).sum(),)  # beyond 20, torch's default, softplus(a) = a is wrong by 2e-9

    with no_autocast(image):
        return row_means(term, image, torch.arange(len(image), device=image.device), chunk=chunk)[0]


class SigLipLoss(Loss):
    """SigLIP's loss over the global batch.

    Over ranks: images stay, texts travel; the mean of the ranks' values and the rank-averaged gradients (of encoders, scale and bias)
    are those of one process, for every exchange.

    Args:
        exchange: How texts travel: `bidir`, `shift`, `reduce` or `gather`; see `blocks`.
        chunk: Rows of logits at a time, computed again in the backward pass; None keeps the W blocks of B x B logits.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        scale: Name of the exponentiated logit scale.
        bias: Name of the logit bias.

    Raises:
        RecipeError: For an unknown exchange.
    """

    def __init__(
        self,
        exchange: Exchange = "bidir",
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
        bias: str = "logit_bias",
    ) -> None:
        super().__init__()
        if exchange not in get_args(Exchange):
            raise RecipeError(f"exchange: {exchange!r} is none{nearest(str(exchange), get_args(Exchange))}")
        self.exchange: Exchange = exchange
        self.chunk = check_chunk(chunk)
        self.image, self.text, self.scale, self.bias = image, text, scale, bias

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.scale, self.bias})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `siglip_loss`; also reports scale and bias."""
        image, text = self.entry(self.image, outputs, batch), self.entry(self.text, outputs, batch)
        scale, bias = self.entry(self.scale, outputs, batch), self.entry(self.bias, outputs, batch)
        value = torch.stack(
            [
                siglip_loss(image, block, scale, bias, positives=own, chunk=self.chunk)
                for block, own in blocks(at_least_float32(text), self.exchange)
            ]
        ).sum()
        return LossValue(value, {"scale": scale.detach().squeeze(), "bias": bias.detach().squeeze()})
