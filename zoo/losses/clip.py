"""The symmetric contrastive loss of CLIP (InfoNCE in both directions).

Source: Radford et al. 2021 (arXiv 2103.00020), figure 3; distributed forms as in open_clip's `ClipLoss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import RecipeError
from .base import Loss, LossValue
from .parts.pairs import Pairs, gathered_pairs, local_pairs
from .parts.precision import at_least_float32, no_autocast
from .parts.rows import check_chunk, check_number, hits, row_means


def clip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    all_image: Tensor | None = None,
    all_text: Tensor | None = None,
    offset: int = 0,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """`0.5 [CE(s x Yᵀ) + CE(s y Xᵀ)]`, mean over the rows; a logit bias would cancel in the softmax.

    Computed in float32 at least, whatever the autocast.

    Args:
        image: (B, D) unit vectors.
        text: (B, D) unit vectors; row i belongs to image i.
        logit_scale: s, already exponentiated.
        all_image: (N, D) the global batch; default `image`.
        all_text: (N, D) the global batch; default `text`.
        offset: Row of the global batch at which the local rows start.
        label_smoothing: eps; the target becomes `(1 - eps) onehot + eps / N`.
        chunk: Rows of logits at a time; the same value and gradients, with memory O(chunk N) and one more forward product.

    Returns:
        Scalar; 0 for a batch of one and for an empty batch. Over ranks: the mean of the ranks' values is the value of one process
        with the global batch.
    """
    pairs = local_pairs(image, text)
    all_image = pairs.all_image if all_image is None else at_least_float32(all_image)
    all_text = pairs.all_text if all_text is None else at_least_float32(all_text)
    pairs = Pairs(pairs.image, pairs.text, all_image, all_text, offset)
    return contrast(pairs, logit_scale, label_smoothing=label_smoothing, chunk=chunk).value


def contrast(pairs: Pairs, logit_scale: Tensor | float, *, label_smoothing: float = 0.0, chunk: int | None = None) -> LossValue:
    """`clip_loss` of pairs; its metrics are the shares of images whose own text scores highest, and of texts whose image does."""

    def score(columns: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def term(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = logit_scale * rows @ columns.T
            smoothing = label_smoothing if len(columns) else 0.0  # torch divides by the number of columns
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
            return loss, hits(logits, labels)

        return term

    with no_autocast(pairs.image):
        image_to_text, found_text = row_means(score(pairs.all_text), pairs.image, pairs.labels, chunk=chunk)
        text_to_image, found_image = row_means(score(pairs.all_image), pairs.text, pairs.labels, chunk=chunk)
        return LossValue(0.5 * (image_to_text + text_to_image), {"i2t_accuracy": found_text, "t2i_accuracy": found_image})


class ClipLoss(Loss):
    """CLIP's loss over the global batch.

    Over ranks the mean of the values is always that of one process; the rank-averaged gradient depends on the two flags:

    | local_loss | gather_with_grad | logits per rank | gradient of the encoders | |
    |---|---|---|---|---|
    | yes | yes | 2 B N | that of one process | default, the only one that scales |
    | no | yes | N N | that of one process | |
    | no | no | N N | exactly 1/W of it | harmless for Adam; wrong for SGD, clipping and weight decay |
    | yes | no | 2 B N | another direction | refused |

    Args:
        label_smoothing: eps of the smoothed target; 0 is CLIP.
        local_loss: A rank scores its own rows against the global batch, instead of every rank scoring all.
        gather_with_grad: Gradients flow back through the gather to the rank that a row came from.
        chunk: Rows of logits at a time, computed again in the backward pass; None keeps all logits.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        scale: Name of the exponentiated logit scale.
        bias: Name of the logit bias, read if the model has one. It cancels in the softmax, and gets the gradient 0 instead of none
            so that data-parallel training does not wait for it.

    Raises:
        RecipeError: For `local_loss` without `gather_with_grad`.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        local_loss: bool = True,
        gather_with_grad: bool = True,
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
        bias: str = "logit_bias",
    ) -> None:
        super().__init__()
        if local_loss and not gather_with_grad:
            raise RecipeError(
                "gather_with_grad: false with local_loss: true would train in a wrong direction: each rank scores only its own rows, and "
                "what other ranks' rows contribute to its encoders is lost; leave gather_with_grad on, or set local_loss: false"
            )
        check_number(label_smoothing, "label_smoothing", most=1.0)
        self.label_smoothing, self.chunk = label_smoothing, check_chunk(chunk)
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad
        self.image, self.text, self.scale, self.bias = image, text, scale, bias

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.scale})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `clip_loss`; also reports the top-1 accuracy of both directions and the scale."""
        image, text = self.entry(self.image, outputs, batch), self.entry(self.text, outputs, batch)
        scale = self.entry(self.scale, outputs, batch)
        pairs = gathered_pairs(image, text, self.gather_with_grad)
        if not self.local_loss:
            pairs = Pairs(pairs.all_image, pairs.all_text, pairs.all_image, pairs.all_text)
        found = contrast(pairs, scale, label_smoothing=self.label_smoothing, chunk=self.chunk)
        bias = self.optional(self.bias, outputs, batch)
        value = found.value if bias is None else found.value + 0.0 * bias.sum()
        return LossValue(value, found.metrics | {"scale": scale.detach().squeeze()})
