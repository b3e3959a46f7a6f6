"""The symmetric contrastive loss of CLIP (InfoNCE in both directions).

Source: Radford et al. 2021; distributed form as in open_clip's `ClipLoss` with local loss and gathered gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Loss, LossValue
from .distributed import gather, rank


def clip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    all_image: Tensor | None = None,
    all_text: Tensor | None = None,
    offset: int = 0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """`0.5 [CE(s x Yᵀ) + CE(s y Xᵀ)]`, mean over the rows; a logit bias would cancel in the softmax.

    Computed in float32 at least, whatever the autocast: at s = 100 bfloat16 logits lose whole units.

    Args:
        image: (B, D) unit vectors.
        text: (B, D) unit vectors; row i belongs to image i.
        logit_scale: s, already exponentiated.
        all_image: (N, D) the global batch; default `image`.
        all_text: (N, D) the global batch; default `text`.
        offset: Row of the global batch at which the local rows start.
        label_smoothing: eps; the target becomes `(1 - eps) onehot + eps / N`.

    Returns:
        Scalar. Over ranks: the mean of the ranks' values is the value of one process with the global batch.
    """
    with torch.autocast(image.device.type, enabled=False):
        image, text = _at_least_float32(image), _at_least_float32(text)
        all_image = image if all_image is None else _at_least_float32(all_image)
        all_text = text if all_text is None else _at_least_float32(all_text)
        labels = torch.arange(offset, offset + len(image), device=image.device)
        image_to_text = F.cross_entropy(logit_scale * image @ all_text.T, labels, label_smoothing=label_smoothing)
        text_to_image = F.cross_entropy(logit_scale * text @ all_image.T, labels, label_smoothing=label_smoothing)
        return 0.5 * (image_to_text + text_to_image)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class ClipLoss(Loss):
    """CLIP's loss over the global batch.

    Every rank scores its own rows against the gathered batch; gradients flow back through the gather, so that the
    rank-averaged gradient equals that of one process.

    Args:
        label_smoothing: eps of the smoothed target; 0 is CLIP.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        scale: Name of the exponentiated logit scale.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.image, self.text, self.scale = image, text, scale

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.scale})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `clip_loss`; also reports the local batch's top-1 accuracy from image to text."""
        image, text = self.entry(self.image, outputs, batch), self.entry(self.text, outputs, batch)
        scale = self.entry(self.scale, outputs, batch)
        all_image, all_text, offset = gather(image), gather(text), rank() * len(image)
        value = clip_loss(
            image, text, scale, all_image=all_image, all_text=all_text, offset=offset, label_smoothing=self.label_smoothing
        )
        with torch.no_grad():
            labels = torch.arange(offset, offset + len(image), device=image.device)
            accuracy = ((image @ all_text.T).argmax(1) == labels).float().mean()
        return LossValue(value, {"accuracy": accuracy, "scale": scale.detach()})
