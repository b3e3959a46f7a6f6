"""Stretching a table of positions as Long-CLIP does."""

import pytest
import torch

from modalign.zoo.encoders.text.positional_stretch import stretch_positions
from modalign.zoo.errors import AssemblyError


def test_every_row_of_clips_table_equals_the_formula():
    p = torch.randn(77, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = stretch_positions(p)
    assert found.shape == (248, 6)
    for row in range(20):
        assert torch.equal(found[row], p[row])
    for i in range(56):
        for k in range(4):
            torch.testing.assert_close(
                found[20 + 4 * i + k], (1 - k / 4) * p[20 + i] + (k / 4) * p[21 + i], rtol=1e-14, atol=1e-15
            )
    for k in range(4):
        torch.testing.assert_close(found[244 + k], p[76] + (k / 4) * (p[76] - p[75]), rtol=1e-14, atol=1e-15)


def test_a_straight_line_stays_straight():
    line = torch.arange(77.0)[:, None] * torch.tensor([1.0, -2.0])
    found = stretch_positions(line)
    torch.testing.assert_close(found[20:, 0], 20 + torch.arange(228.0) / 4)
    torch.testing.assert_close(found[:, 1], -2 * found[:, 0])


@pytest.mark.parametrize(("keep", "factor", "rows"), [(0, 1, 10), (0, 3, 30), (8, 2, 12), (4, 4, 28)])
def test_other_lengths(keep, factor, rows):
    p = torch.randn(10, 3)
    found = stretch_positions(p, keep, factor)
    assert len(found) == rows
    torch.testing.assert_close(found[:keep], p[:keep], rtol=0, atol=0)
    torch.testing.assert_close(found[keep::factor], p[keep:], rtol=0, atol=0)


def test_the_dtype_stays_and_the_mean_of_bfloat16_rows_is_rounded_once():
    p = torch.tensor([[1.0], [1.0078125], [3.0]]).bfloat16()
    found = stretch_positions(p, 0, 2)
    assert found.dtype == torch.bfloat16 and found[3].item() == torch.tensor((1.0078125 + 3.0) / 2).bfloat16().item()


def test_gradients_reach_the_table():
    p = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda table: stretch_positions(table, 4, 4), p)


@pytest.mark.parametrize(("keep", "factor"), [(9, 4), (10, 4), (12, 4), (-1, 4), (2, 0)])
def test_what_cannot_be_stretched_is_refused(keep, factor):
    with pytest.raises(AssemblyError, match=f"cannot keep {keep} and stretch the rest {factor} times"):
        stretch_positions(torch.zeros(10, 3), keep, factor)
