"""Contrastive loss whose in-batch negatives count the more, the harder they are: nothing is asked of the data.

Source: Robinson et al. 2020 (arXiv 2010.04592), importance weights of the negatives; in two modalities as in DiHT (Radenovic et al. 2023,
arXiv 2301.02280).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .base import Loss, LossValue
from .parts.pairs import Pairs, gathered_pairs, local_pairs
from .parts.precision import no_autocast
from .parts.rows import check_chunk, check_number, hits, row_means


def reweighted_negatives_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    beta: float = 0.25,
    with_positive: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """`0.5 [L(S) + L(Sᵀ)]`, `L(S) = mean_i (log Σ_j w_ij exp S_ij - S_ii)`, S = s x yᵀ, no gradient through w.

    With the positive (default) the weights share out the whole row, `w_ij = N softmax(β S_i)_j` for all j: as the positive comes to
    score highest it takes the weight from the negatives and counts N-fold in its own denominator, so that the loss stays above 0
    (towards ln N). Without it they share out the row's N - 1 negatives, `w_ij = (N - 1) exp(β S_ij) / Σ_{k≠i} exp(β S_ik)` and
    `w_ii = 1`, as in the papers: how much a negative counts never depends on how well the positive scores.
    β = 0 is CLIP's loss either way. Computed in float32 at least, whatever the autocast.

    Args:
        image: (B, D) unit vectors.
        text: (B, D) unit vectors; row i belongs to image i.
        logit_scale: s, already exponentiated.
        beta: β >= 0, how strongly hard negatives are preferred.
        with_positive: Whether the positive takes part in the weighting.
        chunk: Rows of logits at a time; the same value and gradients.

    Returns:
        Scalar, 0 for a batch of one. Over ranks: local; `ReweightedNegativesLoss` gathers.
    """
    return _contrast(local_pairs(image, text), logit_scale, beta, with_positive, chunk).value


def _contrast(pairs: Pairs, scale: Tensor | float, beta: float, with_positive: bool, chunk: int | None) -> LossValue:
    def score(columns: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def term(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = scale * rows @ columns.T
            weighted = logits + _log_weights(logits.detach(), labels, beta, with_positive)
            own = logits.gather(1, labels[:, None])
            return (weighted.logsumexp(1, keepdim=True) - own).sum(), hits(logits, labels)

        return term

    with no_autocast(pairs.image):
        to_text, found_text = row_means(score(pairs.all_text), pairs.image, pairs.labels, chunk=chunk)
        to_image, found_image = row_means(score(pairs.all_image), pairs.text, pairs.labels, chunk=chunk)
    return LossValue(0.5 * (to_text + to_image), {"i2t_accuracy": found_text, "t2i_accuracy": found_image})


@torch.no_grad()
def _log_weights(logits: Tensor, labels: Tensor, beta: float, with_positive: bool) -> Tensor:
    """(c, N) log w."""
    count = logits.shape[1]
    if with_positive or count < 2:
        return (beta * logits).log_softmax(1) + math.log(max(count, 1))
    place = torch.arange(len(logits), device=logits.device), labels
    sharpened = beta * logits
    sharpened[place] = -torch.inf
    weights = sharpened.log_softmax(1) + math.log(count - 1)
    weights[place] = 0.0
    return weights


class ReweightedNegativesLoss(Loss):
    """CLIP's loss over the global batch with hard negatives weighted up.

    Over ranks: rows are scored and weighted against the gathered batch; mean value and averaged gradients are those of one process.

    Args:
        beta: β, how strongly hard negatives are preferred; 0 is CLIP's loss.
        with_positive: Whether the positive takes part in the weighting; see `reweighted_negatives_loss`.
        chunk: Rows of logits at a time, computed again in the backward pass.
        image: Name of the image vectors (B, D).
        text: Name of the text vectors (B, D).
        scale: Name of the exponentiated logit scale.
    """

    def __init__(
        self,
        beta: float = 0.25,
        with_positive: bool = True,
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
    ) -> None:
        super().__init__()
        check_number(beta, "beta")
        self.beta, self.with_positive, self.chunk = beta, with_positive, check_chunk(chunk)
        self.image, self.text, self.scale = image, text, scale

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.image, self.text, self.scale})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `reweighted_negatives_loss`; also reports the top-1 accuracy of both directions."""
        image, text, scale = (self.entry(name, outputs, batch) for name in (self.image, self.text, self.scale))
        found = _contrast(gathered_pairs(image, text), scale, self.beta, self.with_positive, self.chunk)
        return LossValue(found.value, found.metrics | {"scale": scale.detach().squeeze()})
