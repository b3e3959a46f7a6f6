"""CLIP's loss with hard negative texts as further columns from image to text.

Source: NegCLIP (Yüksekgönül et al. 2022, arXiv 2210.01936).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .base import Loss, LossValue
from .explicit_negatives import explicit_negatives_loss
from .parts.candidates import candidates_loss, gathered_negatives
from .parts.pairs import gathered_pairs
from .parts.rows import check_chunk


def negclip_loss(
    image: Tensor, text: Tensor, negative_text: Tensor, logit_scale: Tensor | float, *, chunk: int | None = None
) -> Tensor:
    """`0.5 [CE(s x [Y ; N]ᵀ) + CE(s y Xᵀ)]`: negative texts are further columns of image to text only.

    Args:
        image: x (B, D) unit vectors.
        text: y (B, D) unit vectors; row i belongs to image i.
        negative_text: N (B, K, D) or (B·K, D) unit vectors.
        logit_scale: s, already exponentiated.
        chunk: Rows of logits at a time.

    Returns:
        Scalar. Over ranks: local; `NegClipLoss` gathers.
    """
    labels = torch.arange(len(image), device=image.device)
    to_image, _ = candidates_loss(text, image, labels, logit_scale, chunk=chunk)
    return 0.5 * (explicit_negatives_loss(image, text, negative_text, logit_scale, chunk=chunk) + to_image)


class NegClipLoss(Loss):
    """CLIP's loss with negative texts as further columns of image to text; see `negclip_loss`.

    Over ranks: pairs and negatives of all ranks count; mean value and averaged gradients are those of one process.

    Args:
        chunk: Rows of logits at a time, computed again in the backward pass.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        negative: Name of the negative texts' vectors (B, K, D) or (B·K, D).
        scale: Name of the exponentiated logit scale.
    """

    def __init__(
        self,
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        negative: str = "negative_text_embedding",
        scale: str = "logit_scale",
    ) -> None:
        super().__init__()
        self.chunk = check_chunk(chunk)
        self.image, self.text, self.negative, self.scale = image, text, negative, scale

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.negative, self.scale})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `negclip_loss`; also reports the top-1 accuracy of both directions, image to text with the negatives."""
        pairs = gathered_pairs(self.entry(self.image, outputs, batch), self.entry(self.text, outputs, batch))
        scale = self.entry(self.scale, outputs, batch)
        texts = torch.cat((pairs.all_text, gathered_negatives(self.entry(self.negative, outputs, batch))))
        to_text, found_text = candidates_loss(pairs.image, texts, pairs.labels, scale, chunk=self.chunk)
        to_image, found_image = candidates_loss(pairs.text, pairs.all_image, pairs.labels, scale, chunk=self.chunk)
        metrics = {"i2t_accuracy": found_text, "t2i_accuracy": found_image, "scale": scale.detach().squeeze()}
        return LossValue(0.5 * (to_text + to_image), metrics)
