"""Contrastive loss with several positives per row: duplicate captions, labels or groups are not each other's negatives.

Source: Khosla et al. 2020 (SupCon, arXiv 2004.11362, equation 2) in the two-modality form of UniCL (Yang et al. 2022, arXiv
2204.03610).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import RecipeError, nearest
from .base import Loss, LossValue
from .parts.distributed import gather
from .parts.pairs import Pairs, gathered_pairs, local_pairs
from .parts.precision import no_autocast
from .parts.rows import check_chunk, row_means

Duplicates = Literal["positives", "masked"]


def multi_positive_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    ids: Sequence[Tensor],
    *,
    duplicates: Duplicates = "positives",
    chunk: int | None = None,
) -> Tensor:
    """`0.5 [L(S) + L(Sᵀ)]`, `L(S) = mean_i (1/Σ_j M_ij) Σ_j M_ij (log Σ_k exp S_ik - S_ij)`, S = s x yᵀ.

    M_ij = 1 where any of the ids of rows i and j is equal, and on the diagonal. With `masked` the duplicates are left out of the row
    instead: the positive is the diagonal, and k runs over the diagonal and M_ik = 0. CLIP's loss if no id is equal. Computed in float32
    at least, whatever the autocast.

    Args:
        image: (B, D) unit vectors.
        text: (B, D) unit vectors; row i belongs to image i.
        logit_scale: s, already exponentiated.
        ids: One or several (B,) int64: hash of the caption, label, group.
        duplicates: `positives` or `masked`.
        chunk: Rows of logits at a time; the same value and gradients.

    Returns:
        Scalar. Over ranks: local; `MultiPositiveLoss` gathers.
    """
    return _contrast(local_pairs(image, text), list(zip(ids, ids, strict=True)), logit_scale, duplicates, chunk)[0]


def _contrast(
    pairs: Pairs, ids: Sequence[tuple[Tensor, Tensor]], scale: Tensor | float, duplicates: Duplicates, chunk: int | None
) -> tuple[Tensor, Tensor]:
    """Loss and mean number of positives per row; `ids` are (own, everyone's)."""
    own = [mine for mine, _ in ids]
    with no_autocast(pairs.image):
        to_text, positives = row_means(
            _term(pairs.all_text, ids, scale, duplicates), pairs.image, pairs.labels, *own, chunk=chunk
        )
        to_image, _ = row_means(_term(pairs.all_image, ids, scale, duplicates), pairs.text, pairs.labels, *own, chunk=chunk)
    return 0.5 * (to_text + to_image), positives


def _term(
    columns: Tensor, ids: Sequence[tuple[Tensor, Tensor]], scale: Tensor | float, duplicates: Duplicates
) -> Callable[..., tuple[Tensor, Tensor]]:
    def term(rows: Tensor, labels: Tensor, *own: Tensor) -> tuple[Tensor, Tensor]:
        logits = scale * rows @ columns.T
        place = torch.arange(len(rows), device=rows.device), labels
        same = torch.zeros_like(logits, dtype=torch.bool)
        for mine, (_, everyone) in zip(own, ids, strict=True):
            same |= mine[:, None] == everyone[None, :]
        same[place] = True
        count = same.sum(1)
        if duplicates == "masked":
            same[place] = False
            logits = logits.masked_fill(same, -torch.inf)
            return (logits.logsumexp(1) - logits[place]).sum(), count.to(logits.dtype).sum()
        of_positives = torch.where(same, logits, 0.0).sum(1) / count
        return (logits.logsumexp(1) - of_positives).sum(), count.to(logits.dtype).sum()

    return term


class MultiPositiveLoss(Loss):
    """Contrastive loss over the global batch in which rows that share an id are positives of each other.

    Over ranks: vectors and ids are gathered; mean value and averaged gradients are those of one process.

    Args:
        ids: Names of (B,) int64 entries; rows are positives of each other where any of them is equal. `text_id` is equal for equal
            captions.
        duplicates: `positives`, or `masked` to leave them out of the row's sum instead.
        chunk: Rows of logits at a time, computed again in the backward pass.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        scale: Name of the exponentiated logit scale.

    Raises:
        RecipeError: Without ids, or for an unknown treatment of duplicates.
    """

    def __init__(
        self,
        ids: list[str] | None = None,
        duplicates: Duplicates = "positives",
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
    ) -> None:
        super().__init__()
        self.ids = ["text_id"] if ids is None else list(ids)
        if not self.ids:
            raise RecipeError("ids: name at least one entry, for example [text_id]")
        if duplicates not in get_args(Duplicates):
            raise RecipeError(f"duplicates: {duplicates!r} is none{nearest(str(duplicates), get_args(Duplicates))}")
        self.duplicates: Duplicates = duplicates
        self.chunk = check_chunk(chunk)
        self.image, self.text, self.scale = image, text, scale

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.scale, *self.ids})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `multi_positive_loss`; also reports the mean number of positives per row."""
        image, text, scale = (self.entry(name, outputs, batch) for name in (self.image, self.text, self.scale))
        own = [self.entry(name, outputs, batch) for name in self.ids]
        ids = [(mine, gather(mine, with_grad=False)) for mine in own]
        value, positives = _contrast(gathered_pairs(image, text), ids, scale, self.duplicates, self.chunk)
        return LossValue(value, {"positives": positives, "scale": scale.detach().squeeze()})
