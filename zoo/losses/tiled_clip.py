"""CLIP's loss without its logits: exact value and gradients in O(tile² + N) memory.

Source: Inf-CL (Cheng et al. 2024, arXiv 2410.17243) and its distributed form, here in plain torch, with the maximum of each
tile subtracted (their unfused path exponentiates raw logits), and with both directions from one pass over the tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import Loss, LossValue
from .parts.distributed import check_equal_rows
from .parts.precision import at_least_float32, no_autocast
from .parts.rows import check_chunk
from .parts.tiles import LogSum, Side, Tiles, add_gradients, add_log_sums, ring


def tiled_clip_loss(image: Tensor, text: Tensor, logit_scale: Tensor, *, tile: int | None = None) -> Tensor:
    """`0.5 [CE(s x Yᵀ) + CE(s y Xᵀ)]`, mean over this rank's rows, logits made one (tile, tile) block at a time.

    The row-wise and column-wise log-sum-exp are accumulated together, so each logit is computed once forward and once backward (4 matrix
    products in all; plain logits take 3 if computed once, 6 if once per direction). Computed in float32 at least, whatever the autocast.
    Differentiable once.

    Args:
        image: (B, D) unit vectors.
        text: (B, D) unit vectors; row i belongs to image i.
        logit_scale: s, already exponentiated; one number.
        tile: Rows and columns of a block of logits; by default 1024 on a CPU, where two such blocks stay in the cache, and 4096
            elsewhere.

    Returns:
        Scalar, 0 for a batch of one and for an empty batch. Over ranks: images stay, texts travel round the ring with their partial
        sums, and in the backward pass with their gradients; no rank holds more than two blocks of texts. The mean of the ranks' values
        is the value of one process, and so are the rank-averaged gradients. The scale's gradient is that of the logits a rank computed,
        so only its average over ranks has a meaning.
    """
    tile = tile or (1024 if image.device.type == "cpu" else 4096)
    with no_autocast(image):
        return _TiledContrast.apply(at_least_float32(image), at_least_float32(text), logit_scale, tile)


class _TiledContrast(torch.autograd.Function):
    """See `tiled_clip_loss`."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, scale: Tensor, tile: int) -> Tensor:
        check_equal_rows(image)
        count = len(image)
        ctx.tile = min(tile, max(count, 1))
        scaled, text, pairs = image * scale, text.contiguous(), image.new_empty(count)
        of_images, of_texts = LogSum.empty(count, image), LogSum.empty(count, image)
        tiles = Tiles(ctx.tile, image)
        for (columns,), sums, own in ring([text], [of_texts.top, of_texts.total]):
            add_log_sums(tiles, scaled, columns, of_images, LogSum(*sums), pairs if own else None)
        ctx.save_for_backward(image, text, scale, of_images.top, of_images.total, of_texts.top, of_texts.total)
        to_text, to_image = (side.top - pairs + side.total.log() for side in (of_images, of_texts))
        return 0.5 * (to_text + to_image).sum() / max(count, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale, image_top, image_total, text_top, text_total = ctx.saved_tensors
        weight = (0.5 * grad / max(len(image), 1)).expand(len(image)).contiguous()
        text_grad, tiles = torch.zeros_like(text), Tiles(ctx.tile, image)
        rows = Side(image * scale, image_top, weight, weight / image_total, torch.zeros_like(image))
        for fixed, (of_columns,), own in ring([text, text_top, weight, weight / text_total], [text_grad]):
            vectors, top, its_weight, its_share = fixed
            add_gradients(tiles, rows, Side(vectors, top, its_weight, its_share, of_columns), own)
        scale_grad = (image * rows.grad).sum().reshape(scale.shape)  # ds = Σ_i x_i · (G Y)_i: no pass over the logits of its own
        return rows.grad * scale, text_grad, scale_grad, None


class TiledClipLoss(Loss):
    """CLIP's loss over the global batch in O(tile² + N) memory; see `tiled_clip_loss` for its meaning over ranks.

    Args:
        tile: Rows and columns of a block of logits; by default 1024 on a CPU and 4096 elsewhere.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        scale: Name of the exponentiated logit scale.
        bias: Name of the logit bias, read if the model has one; see `ClipLoss`.
    """

    def __init__(
        self,
        tile: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
        bias: str = "logit_bias",
    ) -> None:
        super().__init__()
        self.tile = check_chunk(tile, "tile")
        self.image, self.text, self.scale, self.bias = image, text, scale, bias

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.scale})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `tiled_clip_loss`."""
        image, text, scale = (self.entry(name, outputs, batch) for name in (self.image, self.text, self.scale))
        value, bias = tiled_clip_loss(image, text, scale, tile=self.tile), self.optional(self.bias, outputs, batch)
        value = value if bias is None else value + 0.0 * bias.sum()
        return LossValue(value, {"scale": scale.detach().squeeze()})
