"""Sentence vectors from the hidden states of a language model's layers, as MEXA takes them."""

from __future__ import annotations

import torch
from torch import Tensor


def position_weighted(states: Tensor, mask: Tensor, from_first_token: bool = True) -> Tensor:
    """`sum_t m_t t h_t / sum_t m_t t`: later tokens of a causal model have seen more, and count more.

    Args:
        states: (..., N, T, D) hidden states, of one layer or several.
        mask: (N, T) 1 for tokens, 0 for padding.
        from_first_token: t counts from the first token, so that padding changes nothing. False counts columns, as MEXA's code does; with
            padding on the left that gives other weights (it embeds one sentence at a time, where both are the same).

    Returns:
        (..., N, D).
    """
    places = mask.cumsum(1) if from_first_token else torch.arange(1, mask.shape[1] + 1, device=mask.device)
    weights = (mask * places).to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(-2) / weights.sum(-2).clamp(min=1)


def last_token(states: Tensor, mask: Tensor) -> Tensor:
    """The state of the last real token.

    Args:
        states: (..., N, T, D) hidden states, of one layer or several.
        mask: (N, T) 1 for tokens, 0 for padding.

    Returns:
        (..., N, D).
    """
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
    return states[..., torch.arange(len(mask), device=mask.device), last, :]
