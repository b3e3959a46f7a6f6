"""Matching a student's similarity rows to those of one or several teachers: what the distillation losses share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .pairs import Pairs
from .precision import no_autocast
from .rows import row_means

Average = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Scored:
    """Pairs and the scale of their logits.

    Attributes:
        pairs: Rows and columns, of any width.
        scale: s of `s x·y`.
    """

    pairs: Pairs
    scale: Tensor | float


def soft_contrast(
    student: Scored, teachers: Sequence[Scored], average: Average = "probabilities", chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`0.5 [H(P, S) + H(P', Sᵀ)]`, `H(p, S) = -mean_i Σ_j p_ij log softmax(S)_ij`, P the teachers' rows averaged.

    Args:
        student: Whose logits S get the gradient.
        teachers: K teachers; no gradient flows into them.
        average: Of several teachers: of their `probabilities` (after the softmax) or of their `logits` (before it, a geometric mean).
        chunk: Rows of logits at a time.

    Returns:
        (cross entropy, the teachers' entropy, detached). Their difference is the KL divergence: of several teachers' `probabilities`
        the mean of their divergences (the entropy is then the mean of theirs), of their `logits` that of the one softmax they make.
        Over ranks the mean is that of one process.
    """
    with no_autocast(student.pairs.image):
        to_text = _direction(
            (student.pairs.image, student.pairs.all_text, student.scale),
            [(teacher.pairs.image, teacher.pairs.all_text, teacher.scale) for teacher in teachers],
            average,
            chunk,
        )
        to_image = _direction(
            (student.pairs.text, student.pairs.all_image, student.scale),
            [(teacher.pairs.text, teacher.pairs.all_image, teacher.scale) for teacher in teachers],
            average,
            chunk,
        )
    return 0.5 * (to_text[0] + to_image[0]), 0.5 * (to_text[1] + to_image[1])


_Side = tuple[Tensor, Tensor, Tensor | float]


def _direction(student: _Side, teachers: Sequence[_Side], average: Average, chunk: int | None) -> tuple[Tensor, ...]:
    rows, columns, scale = student

    def term(own: Tensor, *taught: Tensor) -> tuple[Tensor, Tensor]:
        sides = [(part, side[1], side[2]) for part, side in zip(taught, teachers, strict=True)]
        target, entropy = _target(sides, average)
        log_probability = (scale * own @ columns.T).log_softmax(1)
        return -(target.to(own.dtype) * log_probability).sum(), entropy.to(own.dtype)

    return row_means(term, rows, *(side[0] for side in teachers), chunk=chunk)


@torch.no_grad()
def _target(teachers: Sequence[_Side], average: Average) -> tuple[Tensor, Tensor]:
    """(c, N) probabilities of the teachers together, and the entropy that is to come off: summed over rows, a mean over teachers."""
    logits = (scale * rows @ columns.T for rows, columns, scale in teachers)
    if average == "logits":
        target = (sum(logits, start=torch.zeros(())) / len(teachers)).softmax(1)
        return target, torch.special.entr(target).sum()
    target = entropy = torch.zeros(())
    for each in logits:
        probabilities = each.softmax(1)
        target, entropy = target + probabilities, entropy + torch.special.entr(probabilities).sum()
    return target / len(teachers), entropy / len(teachers)
