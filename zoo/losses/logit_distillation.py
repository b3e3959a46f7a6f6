"""Logit distillation: a student ranks the global batch as its teacher does.

Source: open_clip's `DistillClipLoss`; TinyCLIP and others use the same term. Cross entropy, that is, KL divergence plus the teacher's
entropy, so the value does not reach 0; the metric `kl` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .base import Loss, LossValue
from .parts.pairs import gathered_pairs, local_pairs
from .parts.rows import check_chunk, check_number
from .parts.soft_targets import Scored, soft_contrast


def logit_distillation(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    teacher_image: Tensor,
    teacher_text: Tensor,
    teacher_scale: Tensor | float,
    *,
    chunk: int | None = None,
) -> Tensor:
    """`0.5 [H(softmax(T), S) + H(softmax(Tᵀ), Sᵀ)]`, `H(p, S) = -mean_i Σ_j p_ij log softmax(S)_ij`.

    Computed in float32 at least, whatever the autocast.

    Args:
        image: (B, D) the student's unit vectors; S = s x yᵀ.
        text: (B, D).
        logit_scale: The student's s, exponentiated.
        teacher_image: (B, D_t) the teacher's unit vectors, of any width; no gradient flows into it.
        teacher_text: (B, D_t).
        teacher_scale: The teacher's own s.
        chunk: Rows of logits at a time; the same value and gradients.

    Returns:
        Scalar; the entropy of the teacher where the student agrees with it. Over ranks: local; `LogitDistillation` gathers.
    """
    student = Scored(local_pairs(image, text), logit_scale)
    teacher = Scored(local_pairs(teacher_image, teacher_text), teacher_scale)
    return soft_contrast(student, [teacher], chunk=chunk)[0]


class LogitDistillation(Loss):
    """Logit distillation of named vectors over the global batch.

    Over ranks: rows are scored against the gathered batch; mean value and averaged gradients are those of one process.

    Args:
        student_scale: A number for the student's logits here, instead of its learned scale.
        teacher_scale: A number for the teacher's logits, instead of its own scale.
        chunk: Rows of logits at a time, computed again in the backward pass.
        image: Name of the student's image vectors (B, D).
        text: Name of the student's text vectors (B, D).
        scale: Name of the student's exponentiated scale.
        teacher: Prefix of the teacher's entries, whose names are else the student's.
    """

    def __init__(
        self,
        student_scale: float | None = None,
        teacher_scale: float | None = None,
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
        teacher: str = "teacher_",
    ) -> None:
        super().__init__()
        for name, number in (("student_scale", student_scale), ("teacher_scale", teacher_scale)):
            check_number(number, name, open_end=True)
        self.student_scale, self.teacher_scale, self.chunk = student_scale, teacher_scale, check_chunk(chunk)
        self.image, self.text, self.scale, self.teacher = image, text, scale, teacher

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        names = {self.image, self.text, f"{self.teacher}{self.image}", f"{self.teacher}{self.text}"}
        names |= {self.scale} if self.student_scale is None else set()
        return frozenset(names | ({f"{self.teacher}{self.scale}"} if self.teacher_scale is None else set()))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `logit_distillation`; also reports the KL divergence."""
        student = self._scored("", self.student_scale, outputs, batch)
        teacher = self._scored(self.teacher, self.teacher_scale, outputs, batch)
        value, least = soft_contrast(student, [teacher], chunk=self.chunk)
        return LossValue(value, {"kl": value.detach() - least})

    def _scored(self, prefix: str, scale: float | None, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Scored:
        image, text = (self.entry(f"{prefix}{name}", outputs, batch) for name in (self.image, self.text))
        number = self.entry(f"{prefix}{self.scale}", outputs, batch) if scale is None else scale
        return Scored(gathered_pairs(image, text), number)
