"""Structure distillation: a student keeps the pairwise distances of its teacher.

Source: ProCLIP (arXiv 2510.18795), L_struct. The official code takes un-squared distances and smooth L1 over the pairs of the
local batch and sums; the paper, as summarised, writes squared distances. Both are options, the code's form is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Loss, LossValue
from .feature_distillation import Reduction
from .parts.distributed import gather
from .parts.precision import at_least_float32, no_autocast

Distance = Literal["l2", "sq_l2"]
Penalty = Literal["smooth_l1", "l1", "l2"]


def structure_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    distance: Distance = "l2",
    penalty: Penalty = "smooth_l1",
    reduction: Reduction = "sum",
) -> Tensor:
    """`Σ_{i<j} penalty(d(u_i, u_j) - d(v_i, v_j))`; invariant to rotating all student vectors.

    The gradient at coincident points, 0/0 for `l2`, is 0 as in `torch.pdist`. Computed in float32 at least, whatever the autocast.

    Args:
        student: u (B, D).
        teacher: v (B, D_t); no gradient flows into it.
        distance: `l2` (reference) or `sq_l2`.
        penalty: `smooth_l1` with threshold 1 (reference), `l1`, or `l2` (the square).
        reduction: `sum` over pairs (reference; grows with B²) or `mean` over pairs.

    Returns:
        Scalar in float32 at least; 0, with a graph, for fewer than two rows.
    """
    if len(student) < 2:
        return at_least_float32(student).sum() * 0.0
    with no_autocast(student):
        student = at_least_float32(student)
        difference = _distances(student, distance) - _distances(teacher.detach().to(student.dtype), distance)
        zeros = torch.zeros_like(difference)
        if penalty == "smooth_l1":
            return F.smooth_l1_loss(difference, zeros, reduction=reduction)
        if penalty == "l1":
            return F.l1_loss(difference, zeros, reduction=reduction)
        return F.mse_loss(difference, zeros, reduction=reduction)


def _distances(vectors: Tensor, distance: Distance) -> Tensor:
    """(B, D) -> (B(B-1)/2,) distances of the pairs i < j."""
    if distance == "l2":
        return F.pdist(vectors)
    row, column = torch.triu_indices(len(vectors), len(vectors), offset=1, device=vectors.device)
    return (vectors[row] - vectors[column]).square().sum(-1)


class StructureDistillation(Loss):
    """Structure distillation of named vectors.

    Over ranks: by default pairs of the local batch only, as in the reference. With `gather` all pairs of the global batch count and
    the value equals that of one process.

    Args:
        student: Name of the student's vectors (B, D).
        teacher: Name of the teacher's vectors (B, D_t).
        distance: See `structure_distillation`.
        penalty: See `structure_distillation`.
        reduction: See `structure_distillation`.
        gather: Count the pairs of the global batch.
    """

    def __init__(
        self,
        student: str = "image_embedding",
        teacher: str = "teacher_image_embedding",
        distance: Distance = "l2",
        penalty: Penalty = "smooth_l1",
        reduction: Reduction = "sum",
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.distance: Distance = distance
        self.penalty: Penalty = penalty
        self.reduction: Reduction = reduction
        self.gather = gather

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.student, self.teacher})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `structure_distillation`."""
        student, teacher = self.entry(self.student, outputs, batch), self.entry(self.teacher, outputs, batch)
        if self.gather:
            student, teacher = gather(student), gather(teacher)
        value = structure_distillation(student, teacher, distance=self.distance, penalty=self.penalty, reduction=self.reduction)
        return LossValue(value)
