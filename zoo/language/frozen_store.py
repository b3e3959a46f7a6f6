"""Frozen weights in one place: one prefix in files, one copy in memory, however many networks use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class FrozenStore(nn.Module):
    """Parameters by the names they have in the pretrained model; backbones that use them leave them out of their own state.

    So an adapter release leaves out one prefix that no stage trained, although adapters, norms and positions between those matrices did
    train; and two branches of one language model hold and save its matrices once.

    Args:
        parameters: Name -> parameter.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            node: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in node._modules:
                    node.add_module(part, nn.Module())
                node = node.get_submodule(part)
            node.register_parameter(leaf, parameter)


def leave_to_store(user: nn.Module, names: list[str]) -> None:
    """Takes parameters out of the state of a network whose store saves and loads them.

    Args:
        user: The network; the parameters stay where they are in it.
        names: Their names in it.
    """

    def drop(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in names:
            state.pop(prefix + name, None)

    def keep(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        for name in names:
            state[prefix + name] = module.get_parameter(name).detach()

    user.register_state_dict_post_hook(drop)
    user.register_load_state_dict_pre_hook(keep)
