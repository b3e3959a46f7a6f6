"""Patch tokens: stretches of a series as tokens of a given width, as the models of the GPT4TS line have them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import AssemblyError


def patch_count(look_back: int, size: int, stride: int) -> int:
    """How many patches a series gives: `floor((L - size) / stride) + 2`, one of them for the repeated end.

    Raises:
        AssemblyError: If the series is shorter than a patch.
    """
    if look_back < size:
        raise AssemblyError(
            f"model.look_back: {look_back} steps are fewer than a patch of {size} (model.patch_size); take a longer look-back or smaller "
            "patches"
        )
    return (look_back - size) // stride + 2


def cut_patches(series: Tensor, size: int, stride: int) -> Tensor:
    """Repeats the last value for one stride more and cuts the series into patches.

    Args:
        series: (R, M, L), M channels that go into one patch together; usually 1.
        size: Steps of a patch.
        stride: Steps from one patch to the next.

    Returns:
        (R, N, size · M), step by step, the channels of a step side by side.
    """
    patches = F.pad(series, (0, stride), mode="replicate").unfold(-1, size, stride)  # (R, M, N, size)
    return patches.permute(0, 2, 3, 1).flatten(2)


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) fixed positions: `sin(t / 10000^(2i/D))` and `cos` of the same, in turn (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


class PatchTokens(nn.Module):
    """A convolution over neighbouring patches (kernel 3, circular, no bias) and fixed sinusoidal positions, then dropout.

    Weights start Kaiming normal (fan in, leaky ReLU). Source: the official code of FSCA, whose embedding is Autoformer's.

    Args:
        look_back: L.
        size: Steps of a patch.
        stride: Steps from one patch to the next.
        width: D of a token.
        channels: Channels that go into one patch together.
        dropout: Of the tokens.

    Raises:
        AssemblyError: If the look-back is shorter than a patch.
    """

    positions: Tensor

    def __init__(self, look_back: int, size: int, stride: int, width: int, channels: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.count = patch_count(look_back, size, stride)
        self.conv = nn.Conv1d(size * channels, width, kernel_size=3, padding=1, padding_mode="circular", bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.register_buffer("positions", sinusoids(self.count, width), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, series: Tensor) -> Tensor:
        """Cuts and embeds.

        Args:
            series: (R, M, L).

        Returns:
            (R, N, D).
        """
        patches = cut_patches(series, self.size, self.stride)
        return self.dropout(self.conv(patches.transpose(1, 2)).transpose(1, 2) + self.positions)
