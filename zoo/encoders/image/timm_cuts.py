"""Cutting a timm network between two of its blocks: what lies below a cut is computed once, what lies above trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_KINDS = ("EfficientNet", "MobileNetV3", "VisionTransformer")


def block_cuts(trunk: Any) -> list[str]:
    """`blocks.0`, `blocks.1` … of a network whose forward is stem, blocks, tail; none for others."""
    blocks = getattr(trunk, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or type(trunk).__name__ not in _KINDS:
        return []
    return [f"blocks.{i}" for i in range(len(blocks))]


def block_number(cut: str) -> int:
    """3 for `blocks.3`."""
    return int(cut.removeprefix("blocks."))


def below_block(trunk: Any, images: Tensor, start: int) -> Tensor:
    """What enters block `start`, from normalised images."""
    return run_blocks(trunk.blocks[:start], _stem(trunk, images), checkpointed(trunk))


def above_block(trunk: Any, hidden: Tensor, start: int, pre_logits: bool = True) -> Tensor:
    """From what enters block `start` to the pooled features, or with `pre_logits` off through the network's own classifier."""
    hidden = run_blocks(trunk.blocks[start:], hidden, checkpointed(trunk))
    return trunk.forward_head(_tail(trunk, hidden), pre_logits=pre_logits)


def parameter_below_block(path: str, start: int) -> bool:
    """Whether a parameter of the network (`blocks.3.norm1.weight`) works below block `start`."""
    if path.startswith("blocks."):
        return int(path.split(".")[1]) < start
    if path.startswith("norm_pre."):  # before the blocks, unlike every other norm
        return True
    return not path.startswith(("conv_head", "bn2", "norm", "fc_norm", "attn_pool", "head"))


def checkpointed(module: Any) -> bool:
    """Whether a library's body is set to recompute activations, now that gradients are wanted."""
    return bool(getattr(module, "grad_checkpointing", False)) and torch.is_grad_enabled()


def run_blocks(blocks: Iterable[nn.Module], hidden: Tensor, recompute: bool = False) -> Tensor:
    """Runs blocks one after the other; with `recompute` each keeps its input only."""
    for block in blocks:
        hidden = checkpoint(block, hidden, use_reentrant=False) if recompute else block(hidden)
    return hidden


def _stem(trunk: Any, images: Tensor) -> Tensor:
    if hasattr(trunk, "patch_embed"):  # VisionTransformer
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
    return trunk.bn1(trunk.conv_stem(images))


def _tail(trunk: Any, hidden: Tensor) -> Tensor:
    if hasattr(trunk, "patch_embed"):
        return trunk.norm(hidden)
    if hasattr(trunk, "bn2"):  # EfficientNet; MobileNetV3 has its last convolution in the head
        return trunk.bn2(trunk.conv_head(hidden))
    return hidden
