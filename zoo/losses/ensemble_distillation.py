"""Distillation from an ensemble of teachers, with the contrastive loss mixed in, as in MobileCLIP's reinforced training.

Source: Vasu et al. 2023 (arXiv 2311.17049); the two ways to average as in the training patch of its official repository,
whose released recipes use weight 1.0 for distillation, 0.0 for the contrastive term and a teacher scale of 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from ..errors import RecipeError, nearest
from .base import Loss, LossValue
from .clip import contrast
from .parts.pairs import gathered_pairs, local_pairs
from .parts.rows import check_chunk, check_number
from .parts.soft_targets import Average, Scored, soft_contrast


def ensemble_distillation(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    teachers: Sequence[tuple[Tensor, Tensor, Tensor | float]],
    *,
    share: float = 1.0,
    average: Average = "probabilities",
    chunk: int | None = None,
) -> Tensor:
    """`(1 - λ) L_clip + λ (1/K) Σ_k 0.5 [KL(P_k, S) + KL(P_k', Sᵀ)]`, `P_k = softmax(s_k a_k b_kᵀ)`.

    The mean of the K divergences is `H(P, S) - (1/K) Σ_k H(P_k)` with `P = (1/K) Σ_k P_k`, because the cross entropy H is linear in P:
    one pass over the averaged probabilities gives value and gradient. With one teacher and λ = 1 it is `logit_distillation` less the
    teacher's entropy, a constant.

    Args:
        image: (B, D) the student's unit vectors.
        text: (B, D).
        logit_scale: The student's s, exponentiated.
        teachers: (image vectors (B, D_k), text vectors (B, D_k), scale s_k = 1/temperature) of each; no gradient flows into them.
        share: λ, the part of the distillation.
        average: `probabilities` (after the softmax), or `logits`: one divergence, from the softmax of the teachers' mean logits.
        chunk: Rows of logits at a time; the same value and gradients.

    Returns:
        Scalar; with λ = 1 and one teacher 0 where the student agrees with it. Over ranks: local; `EnsembleDistillation` gathers.
    """
    taught = [Scored(local_pairs(a, b), scale) for a, b, scale in teachers]
    return _mixture(Scored(local_pairs(image, text), logit_scale), taught, logit_scale, share, average, chunk)[0]


def _mixture(
    student: Scored,
    teachers: Sequence[Scored],
    clip_scale: Tensor | float | None,
    share: float,
    average: Average,
    chunk: int | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    cross_entropy, entropy = soft_contrast(student, teachers, average, chunk)
    divergence = cross_entropy - entropy
    metrics = {"kl": divergence.detach()}
    if share == 1.0 or clip_scale is None:
        return share * divergence, metrics
    clip = contrast(student.pairs, clip_scale, chunk=chunk)
    return (1 - share) * clip.value + share * divergence, metrics | clip.metrics | {"clip": clip.value.detach()}


class EnsembleDistillation(Loss):
    """MobileCLIP-style distillation from K teachers over the global batch.

    Over ranks: rows are scored against the gathered batch; mean value and averaged gradients are those of one process.

    Args:
        teachers: K; entries of teacher 1 begin with `teacher_`, those of the others with `teacher2_`, `teacher3_`, ...
        share: λ, the part of the distillation; the rest, 1 - λ, is CLIP's loss.
        average: Of the teachers' `probabilities` (after the softmax) or `logits` (before it).
        teacher_scales: A number for each teacher's logits, instead of their own scales.
        student_scale: A number for the student's logits in the distillation, instead of its learned scale.
        chunk: Rows of logits at a time, computed again in the backward pass.
        image: Name of the student's image vectors (B, D).
        text: Name of the student's text vectors (B, D).
        scale: Name of the student's exponentiated scale.

    Raises:
        RecipeError: For settings that do not go together.
    """

    def __init__(
        self,
        teachers: int = 2,
        share: float = 1.0,
        average: Average = "probabilities",
        teacher_scales: list[float] | None = None,
        student_scale: float | None = None,
        chunk: int | None = None,
        image: str = "image_embedding",
        text: str = "text_embedding",
        scale: str = "logit_scale",
    ) -> None:
        super().__init__()
        if teachers < 1 or (teacher_scales is not None and len(teacher_scales) != teachers):
            raise RecipeError(f"teachers: {teachers} teachers with teacher_scales {teacher_scales}; give one scale per teacher")
        for scale_number in (student_scale, *(teacher_scales or ())):
            check_number(scale_number, "student_scale, teacher_scales", open_end=True)
        if not 0.0 <= share <= 1.0:
            raise RecipeError(f"share: {share} is not between 0 (CLIP's loss alone) and 1 (distillation alone)")
        if average not in get_args(Average):
            raise RecipeError(f"average: {average!r} is none{nearest(str(average), get_args(Average))}")
        self.prefixes = ["teacher_", *(f"teacher{number}_" for number in range(2, teachers + 1))]
        self.share, self.teacher_scales, self.student_scale, self.chunk = share, teacher_scales, student_scale, check_chunk(chunk)
        self.average: Average = average
        self.image, self.text, self.scale = image, text, scale

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        names = {f"{prefix}{name}" for prefix in ["", *self.prefixes] for name in (self.image, self.text)}
        names |= {f"{prefix}{self.scale}" for prefix in self.prefixes} if self.teacher_scales is None else set()
        return frozenset(names | ({self.scale} if self.student_scale is None or self.share < 1.0 else set()))

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `ensemble_distillation`; also reports the KL divergence and, with λ < 1, CLIP's loss and both accuracies."""
        image, text = self.entry(self.image, outputs, batch), self.entry(self.text, outputs, batch)
        learned = self.entry(self.scale, outputs, batch) if self.scale in self.inputs() else None
        number = self.student_scale if self.student_scale is not None else learned
        teachers = [self._teacher(number, outputs, batch) for number in range(len(self.prefixes))]
        student = Scored(gathered_pairs(image, text), number)  # type: ignore[arg-type]
        return LossValue(*_mixture(student, teachers, learned, self.share, self.average, self.chunk))

    def _teacher(self, number: int, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Scored:
        image, text = (self.entry(f"{self.prefixes[number]}{name}", outputs, batch) for name in (self.image, self.text))
        if self.teacher_scales is not None:
            return Scored(gathered_pairs(image, text), self.teacher_scales[number])
        return Scored(gathered_pairs(image, text), self.entry(f"{self.prefixes[number]}{self.scale}", outputs, batch))
