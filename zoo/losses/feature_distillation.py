"""Feature distillation: squared distance between a student's and a teacher's vectors.

Source: ProCLIP (arXiv 2510.18795) sections "representation inheritance" (L_ins) and "self-distillation"; the official code sums
over batch and width, which is the default here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .base import Loss, LossValue
from .parts.distributed import gather, world_size
from .parts.precision import at_least_float32, no_autocast

Reduction = Literal["sum", "mean"]


def feature_distillation(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "sum") -> Tensor:
    """`Σ_i ||u_i - v_i||²`; for unit vectors each term is `2 - 2 cos`. Computed in float32 at least, whatever the autocast.

    Args:
        student: u (B, D).
        teacher: v (B, D); no gradient flows into it.
        mask: (B,) bool; rows that are False contribute nothing.
        reduction: `sum` over rows (the reference; grows with the batch) or `mean` over the rows that count.

    Returns:
        Scalar, 0 if no row counts (and then still attached to the graph).
    """
    with no_autocast(student):
        student = at_least_float32(student)
        rows = (student - teacher.detach().to(student.dtype)).square().sum(-1)
        if mask is None:
            return rows.sum() if reduction == "sum" else rows.sum() / max(len(rows), 1)
        total = torch.where(mask, rows, 0.0).sum()
        return total if reduction == "sum" else total / mask.sum().clamp(min=1)


class FeatureDistillation(Loss):
    """Feature distillation of named vectors.

    Over ranks: by default the local sum, as in the reference, so that the rank-averaged gradient is the mean over ranks of local
    sums (1/W of one process with the global batch). With `gather` it equals one process.

    Args:
        student: Name of the student's vectors (B, D).
        teacher: Name of the teacher's vectors (B, D).
        mask: Name of a (B,) bool entry that says which rows count; None counts all.
        reduction: `sum` (reference) or `mean`.
        gather: Make the value over ranks equal that of one process.
    """

    def __init__(
        self,
        student: str = "image_embedding",
        teacher: str = "teacher_image_embedding",
        mask: str | None = None,
        reduction: Reduction = "sum",
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.mask = student, teacher, mask
        self.reduction: Reduction = reduction
        self.gather = gather

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.student, self.teacher} | ({self.mask} if self.mask else set()))

    def aligned(self) -> frozenset[str]:
        """See `Loss.aligned`: both sides."""
        return frozenset({self.student, self.teacher})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `feature_distillation`."""
        student, teacher = self.entry(self.student, outputs, batch), self.entry(self.teacher, outputs, batch)
        mask = None if self.mask is None else self.entry(self.mask, outputs, batch).bool()
        if self.gather and world_size() > 1:
            student, teacher = gather(student), gather(teacher)
            mask = None if mask is None else gather(mask.to(torch.uint8)).bool()
        value = feature_distillation(student, teacher, mask=mask, reduction=self.reduction)
        with torch.no_grad():
            cosine = torch.cosine_similarity(student, teacher, dim=-1)
            if mask is not None:
                cosine = cosine[mask]
            mean = cosine.mean() if len(cosine) else cosine.new_zeros(())
        return LossValue(value, {"cosine": mean})
