"""The loss of a language model inside a stack: cross entropy of the tokens that are to be learnt.

Source: the autoregressive loss of LLaVA and its relatives. How it is averaged differs between repositories, so it is a setting: over the
tokens of the global batch (transformers with `num_items_in_batch`), or first over each sample's tokens (LLaVA-ST).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .base import Loss, LossValue
from .parts.distributed import world_size
from .parts.linear_cross_entropy import linear_cross_entropy_sum
from .parts.precision import at_least_float32, no_autocast
from .parts.rows import check_chunk


class NextTokenLoss(Loss):
    """`-(1/K) Σ_k log p(token_k)` over the K tokens to be learnt of the global batch, or the mean over samples of each sample's mean.

    Logits are made a chunk at a time and never kept. Over ranks: each rank's sum is divided by the mean number of tokens (or samples) per
    rank, so that the mean of the ranks' values is the value of one process even where conversations differ in length.

    Args:
        mean_over: `tokens`, or `samples`: every sample weighs the same, however long its answers.
        chunk: Positions at a time.
    """

    def __init__(self, mean_over: Literal["tokens", "samples"] = "tokens", chunk: int = 1024) -> None:
        super().__init__()
        self.mean_over, self.chunk = mean_over, check_chunk(chunk) or chunk

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({"token_labels"})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See the class; reads `token_states`, `head_weight` and perhaps `head_bias`, or `token_logits` where the model gives those."""
        found = self._entries(outputs, batch)
        labels = found["token_labels"]
        if self.mean_over == "tokens":
            count = torch.tensor(float(len(labels)), device=labels.device)
            return LossValue(next_token_sum(found, chunk=self.chunk) / _share(count))
        _, sample, sizes = self.entry("token_rows", outputs, batch).unique(return_inverse=True, return_counts=True)
        total = next_token_sum(found, chunk=self.chunk, shares=1 / sizes.to(torch.float64)[sample])
        return LossValue(total / _share(torch.tensor(float(len(sizes)), device=labels.device)))

    def _entries(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What `next_token_sum` reads, from outputs or batch."""
        found = {"token_labels": self.entry("token_labels", outputs, batch)}
        if (logits := self.optional("token_logits", outputs, batch)) is not None:
            return found | {"token_logits": logits}
        found |= {name: self.entry(name, outputs, batch) for name in ("token_states", "head_weight")}
        bias = self.optional("head_bias", outputs, batch)
        return found if bias is None else found | {"head_bias": bias}


def next_token_sum(
    outputs: Mapping[str, Any], chosen: Tensor | None = None, chunk: int = 1024, shares: Tensor | None = None
) -> Tensor:
    """`-Σ_k w_k log p(token_k)` over the tokens to be learnt.

    Args:
        outputs: Of a stack given labels: `token_labels` (K,), and `token_states` (K, D) with `head_weight` and perhaps `head_bias`, or
            `token_logits` (K, V).
        chosen: (K,) which of them; None is all.
        chunk: Positions at a time.
        shares: w of all chosen ones; None is 1.

    Returns:
        Scalar; 0, with a graph, where there is none. Over ranks: local.
    """

    def of(name: str) -> Tensor:
        return outputs[name] if chosen is None else outputs[name][chosen]

    if "token_logits" in outputs:
        logits = of("token_logits")
        with no_autocast(logits):
            each = F.cross_entropy(at_least_float32(logits), of("token_labels"), reduction="none")
            return each.sum() if shares is None else (each * shares.to(each.dtype)).sum()
    return linear_cross_entropy_sum(
        of("token_states"),
        outputs["head_weight"],
        of("token_labels"),
        bias=outputs.get("head_bias"),
        chunk=chunk,
        shares=shares,
    )


def _share(count: Tensor) -> Tensor:
    """What a rank divides by: the mean count over ranks, or 1 of all ranks' if there is nothing."""
    if world_size() > 1:
        count = count.clone()
        dist.all_reduce(count)
    return (count / world_size()).clamp(min=1 / world_size())
