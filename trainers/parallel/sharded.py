"""FSDP2 for our checkpoints: what is saved is whole, so a run goes on with any number of ranks, sharded or not.

The sharding itself is torch's `fully_shard` under Lightning's `ModelParallelStrategy`; here is only how its tensors go in and out of
a checkpoint, and how a plain model becomes a sharded one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from .units import blocks_of


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel training with whole checkpoints, written by the first rank through the checkpoint plugin.

    Args:
        ranks: Number of ranks; the model is sharded over all of them.
        timeout: How long a rank waits for the others.
        backend: Process group backend; None takes the device's.
    """

    def __init__(self, ranks: int, timeout: timedelta, backend: str | None = None) -> None:
        super().__init__(
            data_parallel_size=ranks,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
            timeout=timeout,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Optimiser states come from our checkpoint, like everything else."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole tensors; a collective: every rank must call it."""
        return gathered(self.lightning_module)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's state with whole tensors; a collective."""
        task: Any = self.lightning_module
        inner = getattr(optimizer, "_optimizer", optimizer)
        names = {id(entry.parameter): f"model.{entry.name}" for entry in task.trained}
        scalar = [names[id(p)] in task.scalars for group in inner.param_groups for p in group["params"]]
        state = inner.state_dict()
        entries = {i: {k: _out(v, scalar[i]) for k, v in entry.items()} for i, entry in state["state"].items()}
        return {**state, "state": entries}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes on the first rank."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads on every rank."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Each rank takes its shard of every tensor."""
        assert self.lightning_module is not None
        own = dict(self.lightning_module.state_dict(keep_vars=True))
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                own[name].copy_(shard_like(value, own[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each rank takes its shard of every moment."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            entries = {
                i: {k: v if k == "step" else shard_like(v, parameters[int(i)]) for k, v in entry.items()}
                for i, entry in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": entries})


def _out(value: Any, scalar: bool) -> Any:
    value = whole(value)
    return value.reshape(()) if scalar and isinstance(value, Tensor) else value


def whole(value: Any) -> Any:
    """A sharded tensor in one piece on the CPU; anything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, laid out like another."""
    value = value.reshape(like.shape)
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device, like.dtype), like.device_mesh, like.placements, src_data_rank=None)


def whole_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, over all shards; 0 without gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def shard_model(model: nn.Module, mesh: Any) -> None:
    """Shards a model over a mesh, block by block, the rest with the root.

    Scalars become vectors of length one, which is what can be sharded. A parameter of a block that is also held outside of the blocks (by a
    store that saves it) is the block's there too: sharded twice, it would be saved as it was before training.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                setattr(module, name, nn.Parameter(parameter.detach().reshape(1), requires_grad=parameter.requires_grad))
    blocks = list(blocks_of(model))
    held = _held_outside(model, blocks)
    shards: set[nn.Parameter] = set()
    for block in blocks:
        places = [(module, name, held.get(id(p), [])) for module in block.modules() for name, p in module._parameters.items()]
        fully_shard(block, mesh=mesh)
        for module, name, holders in places:
            if (shard := module._parameters[name]) is None:
                continue
            for holder, own_name in holders:
                holder._parameters[own_name] = shard
                shards.add(shard)
    fully_shard(model, mesh=mesh, ignored_params=shards)


def _held_outside(model: nn.Module, blocks: Sequence[nn.Module]) -> dict[int, list[tuple[nn.Module, str]]]:
    """The id of a parameter -> the modules outside of the blocks that hold it, and its name there."""
    inside = {id(module) for block in blocks for module in block.modules()}
    held: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        if id(module) not in inside:
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    held.setdefault(id(parameter), []).append((module, name))
    return held


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's parameters are shards."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


@contextmanager
def usable(model: nn.Module) -> Iterator[None]:
    """Within it a sharded model's methods can be called as if it were whole: what no block holds is gathered; blocks gather themselves."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def gathered(task: Any) -> dict[str, Tensor]:
    """Name -> whole tensor of what a task trains; a collective."""
    state = {name: whole(value) for name, value in task.state_dict().items()}
    return {name: value.reshape(()) if name in task.scalars else value for name, value in state.items()}
