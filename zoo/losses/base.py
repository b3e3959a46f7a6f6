"""The loss contract: how a loss finds its inputs, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..errors import AssemblyError, nearest

_NO_BIAS = ": this model has no logit bias; take the loss clip, or a model of family siglip"


@dataclass
class LossValue:
    """What a loss returns.

    Attributes:
        value: Scalar with gradient.
        metrics: Detached scalars worth a curve.
    """

    value: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Loss(nn.Module):
    """A loss of a step: reads named entries of the model's outputs and of the batch.

    Every recipe can combine any losses whose inputs the model provides.
    """

    def inputs(self) -> frozenset[str]:
        """Names of the entries it reads, so that a step computes and a loader decodes only what some loss needs."""
        raise NotImplementedError

    def aligned(self) -> frozenset[str]:
        """Names of the vectors it compares number by number, which are cut together or not at all; none for most losses."""
        return frozenset()

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """Computes the loss of one step."""
        raise NotImplementedError

    def entry(self, name: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor:
        """The tensor of that name, from the outputs or else the batch.

        Raises:
            AssemblyError: If neither has it; the message lists what there is.
        """
        found = outputs[name] if name in outputs else batch.get(name)
        if isinstance(found, Tensor):
            return found
        have = sorted(key for key, value in {**batch, **outputs}.items() if isinstance(value, Tensor))
        if found is not None:
            raise AssemblyError(
                f"loss {type(self).__name__} reads {name!r}, which is no tensor but {type(found).__name__} (this step provides: "
                f"{', '.join(have)}); change the loss's settings"
            )
        hint = _NO_BIAS if name == "logit_bias" else nearest(name, have)  # the nearest to it is the scale, another thing
        raise AssemblyError(
            f"loss {type(self).__name__} needs {name!r}{hint} (this step provides: {', '.join(have)}); "
            "change the loss's settings or the stage's data and teacher"
        )

    @staticmethod
    def optional(name: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor | None:
        """The tensor of that name where there is one; what is optional is not among `inputs`."""
        return outputs[name] if name in outputs else batch.get(name)
