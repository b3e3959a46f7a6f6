"""Where the blocks, the final norm and the position table of a transformers model are: found by looking, whatever the architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..errors import AssemblyError

ParameterKind = Literal["lora", "norm", "position", "matrix", "attention"]


@dataclass(frozen=True)
class Anatomy:
    """Names of the parts of a decoder's body, so that copies of it find their own.

    Attributes:
        blocks: Name of the list of blocks.
        final_norm: Name of the norm behind the last block; None where there is none.
    """

    blocks: str
    final_norm: str | None


def anatomy(body: Any, shown: str) -> Anatomy:
    """Finds the blocks by their number and the final norm by running two positions.

    The order in which modules are registered says nothing (OPT registers its final norm before its blocks, BLOOM a norm on the
    embeddings), the order in which they are called does.

    Args:
        body: A transformers model without output layer.
        shown: What messages call it.

    Raises:
        AssemblyError: If there are no such blocks, or a later position changes an earlier one.
    """
    blocks = _list_of_blocks(body, shown)
    inside = f"{blocks}."
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in body.named_modules()
        if name and (not name.startswith(inside) or name.count(".") == inside.count("."))
    ]
    try:
        _check_causal(body, shown)
    finally:
        for hook in hooks:
            hook.remove()
    last = len(called) - 1 - called[::-1].index(f"{inside}{len(body.get_submodule(blocks)) - 1}")
    norms = [name for name in called[last + 1 :] if is_norm(body.get_submodule(name))]
    return Anatomy(blocks, norms[0] if norms else None)


def _list_of_blocks(body: Any, shown: str) -> str:
    count = body.config.num_hidden_layers
    lists = [name for name, module in body.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not lists:
        raise AssemblyError(f"{shown}: found no list of {count} blocks in a {type(body).__name__}; take another decoder")
    return max(lists, key=lambda name: sum(parameter.numel() for parameter in body.get_submodule(name).parameters()))


@torch.no_grad()
def _check_causal(body: Any, shown: str) -> None:
    """Two positions, the second of them in two versions: the first must come out the same."""
    training = body.training
    width = body.get_input_embeddings().weight.shape[1]
    if width != body.config.hidden_size:
        raise AssemblyError(
            f"{shown}: its embeddings are {width} wide, its states {body.config.hidden_size}; take a model with one width"
        )
    tokens = (torch.arange(2.0 * 2 * width) ** 2).sin().view(2, 2, width)  # a straight ramp is all the same to a norm
    tokens[1, 0] = tokens[0, 0]
    states = body.eval()(inputs_embeds=tokens, use_cache=False).last_hidden_state[:, 0]
    body.train(training)
    if not torch.allclose(states[0], states[1], rtol=1e-5, atol=1e-6):
        raise AssemblyError(f"{shown}: a later token changes an earlier one, so it is no causal language model; take a decoder")


def is_norm(module: nn.Module) -> bool:
    """Layer norm, RMS norm and their kind, by the class's name, for every architecture has a class of its own."""
    return "norm" in type(module).__name__.lower() and not list(module.children())


def parameter_kinds(body: nn.Module) -> dict[str, ParameterKind]:
    """Parameter name -> what it is: of an adapter, of a norm, a table of positions, or one of the large matrices and their biases."""
    kinds: dict[str, ParameterKind] = {}
    for name, module in body.named_modules():
        for own, _ in module.named_parameters(recurse=False):
            kinds[f"{name}.{own}" if name else own] = _kind(name, module)
    return kinds


def _kind(name: str, module: nn.Module) -> ParameterKind:
    if ".lora_" in f".{name}":
        return "lora"
    if is_norm(module):
        return "norm"
    return "position" if isinstance(module, nn.Embedding) else "matrix"
