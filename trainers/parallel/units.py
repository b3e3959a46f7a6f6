"""The repeated blocks of a model: the units that are sharded, compiled and recomputed one by one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost repeated blocks of a model, in order of depth.

    A block is a member of a `ModuleList` or `Sequential` of at least two modules of one class, such as the layers of a transformer or
    the stages of a convolutional network.
    """
    for child in model.children():
        members = list(child.children())
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(members) > 1 and len({type(m) for m in members}) == 1:
            yield from (member for member in members if any(True for _ in member.parameters()))
        else:
            yield from blocks_of(child)
