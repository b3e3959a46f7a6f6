"""Long-CLIP's loss: the picture against its long caption, and what is left of it in a few components against the short one.

Source: Zhang et al. 2024 (arXiv 2403.15378) and its official code, which adds the two terms 1 : 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .base import Loss, LossValue
from .clip import contrast
from .parts.distributed import gather, rank
from .parts.pairs import Pairs, gathered_pairs, local_pairs
from .parts.precision import at_least_float32
from .parts.principal_components import principal_reconstruction
from .parts.rows import check_chunk, check_number


def long_clip_loss(
    image: Tensor,
    long_text: Tensor,
    short_text: Tensor,
    logit_scale: Tensor | float,
    *,
    components: int = 32,
    short_weight: float = 1.0,
    label_smoothing: float = 0.1,
    chunk: int | None = None,
) -> Tensor:
    """`L_clip(x, y_long) + w L_clip(PCA_k(x), y_short)`; see `clip_loss` and `principal_reconstruction`.

    Args:
        image: x (B, D) unit vectors.
        long_text: y_long (B, D) unit vectors.
        short_text: y_short (B, D) unit vectors, usually of the first sentence.
        logit_scale: s, already exponentiated; the same in both terms.
        components: k; no restriction for a batch of k + 1 or fewer.
        short_weight: w; the official code has 1.
        label_smoothing: eps of both terms.
        chunk: Rows of logits at a time; the same value and gradients.

    Returns:
        Scalar. Over ranks: local; `LongClipLoss` gathers.
    """
    options: dict[str, Any] = {"label_smoothing": label_smoothing, "chunk": chunk}
    detailed = contrast(local_pairs(image, long_text), logit_scale, **options).value
    coarse = contrast(local_pairs(principal_reconstruction(image, components), short_text), logit_scale, **options).value
    return detailed + short_weight * coarse


class LongClipLoss(Loss):
    """Long-CLIP's two terms over the global batch.

    Over ranks: both contrastive terms are gathered. The components are those of the local batch, as in the reference, so that the
    second term depends on how the batch is split; with `gather_components` they are those of the global batch, and mean value and
    averaged gradients are those of one process.

    A sample without a second caption has its first stand in for it (`has_second_text` says where), which is a true pair too. Where
    the first batch has no second caption at all, the first rank warns once.

    Args:
        components: k of the reconstruction.
        short_weight: Weight of the short caption's term.
        label_smoothing: eps of the smoothed target.
        gather_components: Take the components of the global batch.
        chunk: Rows of logits at a time, computed again in the backward pass.
        image: Name of the image vectors (B, D).
        text: Name of the long caption's vectors (B, D).
        short_text: Name of the short caption's vectors (B, D).
        scale: Name of the exponentiated logit scale.
    """

    def __init__(
        self,
        components: int = 32,
        short_weight: float = 1.0,
        label_smoothing: float = 0.1,
        gather_components: bool = False,
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        short_text: str = "second_text_embedding",
        scale: str = "logit_scale",
    ) -> None:
        super().__init__()
        check_number(label_smoothing, "label_smoothing", most=1.0)
        check_number(short_weight, "short_weight")
        self.components = check_chunk(components, "components") or components
        self.short_weight, self.label_smoothing = short_weight, label_smoothing
        self.gather_components, self.chunk = gather_components, check_chunk(chunk)
        self.image, self.text, self.short_text, self.scale = image, text, short_text, scale
        self._told = False

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.short_text, self.scale})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `long_clip_loss`; also reports both terms and the accuracies between image and long caption."""
        image, long_text, short_text, scale = (
            self.entry(name, outputs, batch) for name in (self.image, self.text, self.short_text, self.scale)
        )
        self._tell_stand_ins(batch.get("has_second_text"))
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "chunk": self.chunk}
        detailed = contrast(gathered_pairs(image, long_text), scale, **options)
        coarse = contrast(self._coarse_pairs(image, short_text), scale, **options).value
        metrics = {"long": detailed.value.detach(), "short": coarse.detach(), **detailed.metrics}
        return LossValue(detailed.value + self.short_weight * coarse, metrics)

    def _tell_stand_ins(self, has_second: Tensor | None) -> None:
        """Only at the first batch: looking waits for the device, and data without second captions shows at once."""
        if not self._told and rank() == 0 and has_second is not None and not bool(has_second.any()):
            warnings.warn(
                "long_clip: no sample of the first batch has a second caption, so the long ones stand in for the short; with data of one "
                "caption per picture set data.second_caption: first_sentence",
                stacklevel=3,
            )
        self._told = True

    def _coarse_pairs(self, image: Tensor, short_text: Tensor) -> Pairs:
        if not self.gather_components:
            return gathered_pairs(principal_reconstruction(image, self.components), short_text)
        everyone = principal_reconstruction(gather(at_least_float32(image)), self.components)
        offset, text = rank() * len(image), at_least_float32(short_text)
        return Pairs(everyone[offset : offset + len(image)], text, everyone, gather(text), offset)
