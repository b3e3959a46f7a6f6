"""Loss and gradients that are no finite numbers: the step leaves no trace in weights or optimiser, and the run says whose fault it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modalign.zoo.errors import DataError


@dataclass
class _Step:
    """What is remembered of a step until its flag is read."""

    number: int
    keys: Sequence[str]
    mine: Tensor
    anyones: Tensor


class FiniteGuard:
    """Marks steps whose loss or gradient is not finite; their update is left out on every rank.

    The flag stays on the device: a fused optimiser skips by itself, so that no step waits for the host. It is read at `check`,
    which comes with every row of the log and before every checkpoint.

    Args:
        budget: Steps that may be skipped before it is an error.
        skipped: Steps skipped before, when a run goes on.
    """

    def __init__(self, budget: int = 0, skipped: int = 0) -> None:
        self.budget, self.skipped = budget, skipped
        self._unread: list[_Step] = []
        self._statistics: list[tuple[Tensor, Tensor]] = []

    def remember(self, statistics: Sequence[Tensor]) -> None:
        """Copies what the forward pass changes besides weights (batch-norm statistics), for the case that the step is left out.

        Args:
            statistics: The tensors, before the forward pass.
        """
        self._statistics = [(tensor, tensor.detach().clone()) for tensor in statistics]

    def watch(self, step: int, keys: Sequence[str], loss: Tensor, norm: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Looks at a step before its update.

        Args:
            step: Number of the step.
            keys: Sample keys of this rank's part of the batch.
            loss: This rank's loss.
            norm: Norm of the gradients as they will be applied.
            optimizer: Made to leave the update out if it must.
        """
        finite_loss = torch.isfinite(loss)
        mine = (~(finite_loss & torch.isfinite(norm))).float()
        anyones = mine
        if dist.is_initialized() and dist.get_world_size() > 1:
            anyones = mine.clone()
            dist.all_reduce(anyones, dist.ReduceOp.MAX)
        local = (~finite_loss).float()  # the norm is everyone's; the loss is this rank's own
        self._unread.append(_Step(step, keys, local, anyones))
        _leave_out(optimizer, anyones)
        self._put_back(anyones)

    @torch.no_grad()
    def _put_back(self, flag: Tensor) -> None:
        """Undoes the change of the statistics if the flag is 1; chosen on the device, and by value, since NaN times 0 is NaN."""
        for tensor, before in self._statistics:
            tensor.copy_(torch.where(flag.to(tensor.device) > 0, before, tensor))
        self._statistics = []

    def check(self) -> None:
        """Reads the flags since the last time.

        Raises:
            DataError: If more steps were skipped than the budget allows; it names the first such step, the ranks and their samples.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        flags = torch.stack([entry.anyones for entry in unread]).cpu().tolist()
        for entry in (entry for entry, flag in zip(unread, flags, strict=True) if flag):
            self.skipped += 1
            if self.skipped > self.budget:
                raise DataError(self._message(entry))

    def _message(self, entry: _Step) -> str:
        mine = (bool(entry.mine.item()), list(entry.keys)[:8])
        ranks: list[Any] = [mine]
        if dist.is_initialized() and dist.get_world_size() > 1:
            ranks = [None] * dist.get_world_size()
            dist.all_gather_object(ranks, mine)
        culprits = {rank: keys for rank, (bad, keys) in enumerate(ranks) if bad} or {r: keys for r, (_, keys) in enumerate(ranks)}
        what = "the loss" if any(bad for bad, _ in ranks) else "the gradient"
        where = "; ".join(f"rank {rank}: {', '.join(keys)}" for rank, keys in culprits.items())
        allowed = f" ({self.skipped} such steps, trainer.skip_nonfinite allows {self.budget})" if self.budget else ""
        return (
            f"{what} is not a finite number at step {entry.number}{allowed}; samples of that step: {where}. Weights and optimiser are "
            "as they were before it. Lower the learning rate or the loss weights, use precision 32-true, look at those samples, "
            "or allow some with trainer.skip_nonfinite"
        )

    def state_dict(self) -> Mapping[str, int]:
        """For checkpoints."""
        return {"skipped": self.skipped}


def _leave_out(optimizer: Any, flag: Tensor) -> None:
    """Makes the next step of an optimiser change nothing if the flag is 1."""
    inner = getattr(optimizer, "_optimizer", optimizer)
    if all(group.get("fused") for group in inner.param_groups):
        inner.found_inf = flag  # read by the fused kernels; grad_scale stays unset
        return
    if flag.item():
        for group in inner.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # a parameter without gradient is not stepped
