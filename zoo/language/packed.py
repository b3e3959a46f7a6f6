"""Whether a language model keeps sequences apart that share a row; found out by trying, for not every one of transformers does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LENGTH = 3  # tokens of each of the two sequences that are tried


@torch.no_grad()
def keeps_apart(body: Any, table: Tensor) -> bool:
    """Whether what stands in front of a sequence in its row leaves its states as they are.

    Args:
        body: A model of transformers without its output layer.
        table: Its token embeddings (vocabulary, D).

    Returns:
        False where positions that begin anew do not part sequences.
    """
    scale = table.float().std()
    first, other = (
        scale * torch.linspace(low, high, _LENGTH * table.shape[1], device=table.device) for low, high in ((-2, 1), (2, -1))
    )
    second = scale * torch.linspace(-1, 1, _LENGTH * table.shape[1], device=table.device).sin()
    rows = [torch.cat([front, second]).view(1, 2 * _LENGTH, -1).to(table) for front in (first, other)]
    positions = torch.arange(_LENGTH, device=table.device).repeat(2)[None]
    modes = [(part, part.training) for part in body.modules()]
    body.eval()
    try:
        one, two = (
            body(inputs_embeds=row, position_ids=positions, use_cache=False).last_hidden_state[:, _LENGTH:].float()
            for row in rows
        )
    finally:
        for part, training in modes:
            part.training = training
    return bool((one - two).norm() < 1e-2 * one.norm())
