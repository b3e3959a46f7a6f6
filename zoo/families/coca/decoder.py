"""CoCa's multimodal decoder, from open_clip, and decoding with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...checkpoints.weights import load_strictly
from ...encoders.image.timm_cuts import checkpointed


def build_decoder(cfg: dict[str, Any], state: dict[str, Tensor] | None, shown: str) -> Any:
    """open_clip's decoder.

    Args:
        cfg: multimodal_cfg, vocab_size, quick_gelu.
        state: Its weights; None for random ones.
        shown: What messages call the model.

    Raises:
        ReleaseError: If the weights do not fit.
    """
    from open_clip.coca_model import MultimodalCfg, _build_text_decoder_tower

    settings = MultimodalCfg(**cfg["multimodal_cfg"])
    decoder = _build_text_decoder_tower(cfg["vocab_size"], settings, bool(cfg.get("quick_gelu", False)))
    if state is None:  # open_clip leaves this matrix as it finds the memory
        nn.init.normal_(decoder.text_projection, std=decoder.width**-0.5)
    else:
        load_strictly(decoder, state, f"{shown}: text decoder")
    return decoder.eval()


def decode(decoder: Any, seen: Tensor, states: Tensor) -> Tensor:
    """Each text token attends to those before it, then to the picture, layer by layer.

    Args:
        decoder: open_clip's `MultimodalTransformer`.
        seen: (B, V, D) image tokens.
        states: (B, T, D) token states of the text tower.

    Returns:
        (B, T, D) normed hidden states; times `decoder.text_projection` they are logits.
    """
    length = states.shape[1]
    mask = decoder.attn_mask[:length, :length]
    recompute = checkpointed(decoder)
    for block, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
        if recompute:
            states = checkpoint(block, states, None, None, mask, use_reentrant=False)
            states = checkpoint(cross, states, seen, seen, None, use_reentrant=False)
        else:
            states = cross(block(states, attn_mask=mask), k_x=seen, v_x=seen)
    return decoder.ln_final(states)


def greedy(
    step: Callable[[Tensor], Tensor], rows: int, start: int, end: int, limit: int, device: torch.device, pad: int = 0
) -> Tensor:
    """Rows of token ids, the likeliest token each time.

    Args:
        step: (B, T) ids -> (B, V) logits of the next token.
        rows: B.
        start: First id of every row.
        end: Id that ends a row; what follows it is padding.
        limit: Most ids per row, start and end included; a row that is not over by then ends there.
        device: Where to compute.
        pad: Id after the end.

    Returns:
        (B, T) ids, T at most `limit`.
    """
    ids = torch.full((rows, 1), start, dtype=torch.long, device=device)
    over = torch.zeros(rows, dtype=torch.bool, device=device)
    while ids.shape[1] < limit and not bool(over.all()):
        chosen = step(ids).argmax(-1)
        if ids.shape[1] == limit - 1:
            chosen = torch.full_like(chosen, end)
        chosen = torch.where(over, torch.full_like(chosen, pad), chosen)
        ids = torch.cat((ids, chosen[:, None]), 1)
        over |= chosen == end
    return ids
