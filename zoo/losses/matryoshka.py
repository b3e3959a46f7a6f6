"""Matryoshka training of any contrastive loss: every prefix of the vectors must do the task by itself.

Source: Kusupati et al. 2022 (arXiv 2205.13147), equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configure import fill
from ..errors import AssemblyError, RecipeError
from ..registry import LOSSES
from .base import Loss, LossValue
from .parts.precision import at_least_float32


def prefix(vectors: Tensor, width: int) -> Tensor:
    """`v[:m] / ||v[:m]||`: the first m coordinates as unit vectors, in float32 at least.

    Args:
        vectors: (..., D).
        width: m.

    Raises:
        AssemblyError: If the vectors are not that wide.
    """
    if width > vectors.shape[-1]:
        raise AssemblyError(
            f"a prefix of {width} coordinates is longer than the vectors, which have {vectors.shape[-1]}; see dims"
        )
    return F.normalize(at_least_float32(vectors)[..., :width], dim=-1)


class MatryoshkaLoss(Loss):
    """`Σ_m c_m L(x[:m], y[:m])` for a loss L of the registry; every prefix is normalised again, the logit scale is the same for all.

    A teacher's vectors stay whole where L compares similarities or distances, which have no width: the student's prefix is to say what the
    teacher says with all it has. Where L compares number by number (`Loss.aligned`: feature distillation) the teacher's are cut too, to
    the same prefix made unit again, and must be as wide as the student's.

    Over ranks: what the loss L means over ranks.

    Args:
        base: {loss: NAME, ...settings of that loss}.
        dims: Widths m of the prefixes.
        weights: c_m of each; 1 by default.
        entries: Names of the vectors that are cut; by default those that L reads and whose name ends in `_embedding`, teachers' only
            where L compares number by number.

    Raises:
        RecipeError: For an unknown loss or setting, if dims and weights do not go together, if L reads nothing that is cut (it would be
            the same at every width), or if only one side of what L compares number by number is cut.
    """

    def __init__(
        self,
        base: dict[str, Any],
        dims: list[int],
        weights: list[float] | None = None,
        entries: list[str] | None = None,
    ) -> None:
        super().__init__()
        if not dims or min(dims) < 1 or len(set(dims)) < len(dims) or (weights is not None and len(weights) != len(dims)):
            raise RecipeError(f"dims: {dims} with weights {weights}; give each width once, with one weight or none per width")
        if weights is not None and not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise RecipeError(f"weights: {weights}; each is a finite number of 0 or more, and one at least is above 0")
        settings = dict(base)
        if "loss" not in settings:
            raise RecipeError("base: say which loss, for example {loss: clip}")
        self.base: Loss = fill(LOSSES.get(settings.pop("loss")), settings, "matryoshka.base")
        self.dims, self.weights = list(dims), [1.0] * len(dims) if weights is None else list(weights)
        cut = {name for name in self.base.inputs() if name.endswith("_embedding") and not name.startswith("teacher")}
        self.entries = sorted(cut | self.base.aligned()) if entries is None else list(entries)
        self._check_entries(str(base["loss"]))

    def _check_entries(self, name: str) -> None:
        read, aligned, cut = self.base.inputs(), self.base.aligned(), set(self.entries)
        if not cut & read:
            raise RecipeError(
                f"base: {name} reads {', '.join(sorted(read))}, of which nothing is cut, so that it would be the same at every width; use "
                f"{name} by itself beside matryoshka, or name its vectors in entries"
            )
        if cut & aligned and not aligned <= cut:
            raise RecipeError(
                f"entries: {name} compares {' and '.join(sorted(aligned))} number by number; cut both, or leave entries out"
            )

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return self.base.inputs() | frozenset(self.entries)

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """Sum over the prefixes; reports the base loss of each width m as `loss_m`, and its metrics as `NAME_m`.

        Raises:
            AssemblyError: If a prefix is longer than its vectors, or what is compared number by number differs in width.
        """
        whole = {name: self.entry(name, outputs, batch) for name in sorted(self.entries)}
        self._check_widths(whole)
        terms: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        for width, weight in zip(self.dims, self.weights, strict=True):
            result = self.base({**outputs, **{name: prefix(vectors, width) for name, vectors in whole.items()}}, batch)
            terms.append(weight * result.value)
            metrics |= {f"{name}_{width}": value for name, value in {"loss": result.value.detach(), **result.metrics}.items()}
        return LossValue(torch.stack(terms).sum(), metrics)

    def _check_widths(self, whole: Mapping[str, Tensor]) -> None:
        """Prefixes of vectors of different widths could be compared, and would mean nothing."""
        widths = {name: whole[name].shape[-1] for name in sorted(self.base.aligned() & set(whole))}
        if len(set(widths.values())) > 1:
            raise AssemblyError(
                "matryoshka: what is compared number by number has one width, not "
                f"{', '.join(f'{width} ({name})' for name, width in widths.items())}; take a teacher of the same width, or the base "
                "structure_distillation or logit_distillation, which take any"
            )
