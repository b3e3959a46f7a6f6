"""Frozen weights in one place: one prefix in files, one copy in memory, however many networks use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


def leave_all_but(user: nn.Module, kept: Callable[[str], bool]) -> None:
    """Takes everything out of the state of a network, whose store saves and loads it, but what is its own.

    By names as they are when a state is made or loaded, so that adapters may be put in or merged in between.

    Args:
        user: The network; its parameters stay where they are in it.
        kept: Whether a name in it is its own.
    """

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in [name for name in state if name.startswith(prefix) and not kept(name.removeprefix(prefix))]:
            state.pop(name)

    def keep(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        for name, tensor in _saved(module):
            if not kept(name):
                state.setdefault(prefix + name, tensor.detach())

    user.register_state_dict_post_hook(drop)
    user.register_load_state_dict_pre_hook(keep)


def _saved(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything of a module that its state holds, tied parameters under each of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    for place, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name not in part._non_persistent_buffers_set:
                yield (f"{place}.{name}" if place else name), buffer
