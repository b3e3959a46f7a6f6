"""Patch tokens against the reference's patches and tokens, and against loops."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.zoo.encoders.series.patch_tokens import PatchTokens, cut_patches, patch_count, sinusoids
from modalign.zoo.errors import AssemblyError

GOLDEN = Path(__file__).parents[2] / "golden" / "time_series"


@pytest.mark.parametrize(("case", "size", "stride"), [("split2", 8, 8), ("split2_oddpatches_revin", 8, 4)])
def test_reference(case, size, stride):
    data, weights = np.load(GOLDEN / f"fsca_{case}_io.npz"), np.load(GOLDEN / f"fsca_{case}_weights.npz")
    x = torch.tensor(data["x"])
    scaled = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    rows = scaled.transpose(1, 2).flatten(0, 1)[:, None]
    torch.testing.assert_close(cut_patches(rows, size, stride), torch.tensor(data["patches"]), rtol=1e-5, atol=1e-5)
    tokens = PatchTokens(x.shape[1], size, stride, 64)
    tokens.conv.weight.data = torch.tensor(weights["enc_embedding.value_embedding.tokenConv.weight"])
    torch.testing.assert_close(tokens(rows), torch.tensor(data["patch_tokens"]), rtol=1e-5, atol=1e-5)
    pe = torch.tensor(weights["enc_embedding.position_embedding.pe"])[0]
    torch.testing.assert_close(sinusoids(50, 64), pe[:50])


COUNTS = [((512, 48, 48), 11), ((96, 16, 8), 12), ((336, 8, 8), 43), ((64, 8, 8), 9), ((5, 5, 3), 2)]


@pytest.mark.parametrize(("settings", "count"), COUNTS)
def test_count(settings, count):
    assert patch_count(*settings) == count == cut_patches(torch.zeros(1, 1, settings[0]), *settings[1:]).shape[1]


def test_shorter_than_a_patch():
    with pytest.raises(AssemblyError, match="12 steps are fewer than a patch of 16"):
        PatchTokens(12, 16, 8, 4)


def test_channels_of_a_step_stand_side_by_side():
    series = torch.arange(12.0).view(1, 2, 6)  # channel 0: 0..5, channel 1: 6..11
    patches = cut_patches(series, 3, 2)
    assert patches[0].tolist() == [[0, 6, 1, 7, 2, 8], [2, 8, 3, 9, 4, 10], [4, 10, 5, 11, 5, 11]]


def test_tokens_against_loops():
    tokens = PatchTokens(10, 4, 3, 6, channels=2)
    series = torch.randn(2, 2, 10, generator=torch.Generator().manual_seed(0))
    patches = cut_patches(series, 4, 3)
    count, weight = patches.shape[1], tokens.conv.weight
    for row in range(2):
        for n in range(count):
            value = sum(weight[:, :, 1 + step] @ patches[row, (n + step) % count] for step in (-1, 0, 1))
            position = [(math.sin if i % 2 == 0 else math.cos)(n / 10000 ** (i // 2 * 2 / 6)) for i in range(6)]
            torch.testing.assert_close(tokens(series)[row, n], value + torch.tensor(position), rtol=1e-5, atol=1e-5)


def test_positions_are_not_saved():
    assert set(PatchTokens(10, 4, 3, 6).state_dict()) == {"conv.weight"}
