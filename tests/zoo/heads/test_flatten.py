"""Flatten heads against loops."""

import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import AssemblyError
from modalign.zoo.heads.flatten import FlattenClassHead, FlattenHead


def test_forecast_head_reads_coordinate_by_coordinate():
    head, states = FlattenHead(5, 3, 4, 2), torch.randn(6, 4, 5)
    row = [states[1, t, d] for d in range(3) for t in range(4)]
    torch.testing.assert_close(head(states)[1], head.linear.weight @ torch.stack(row) + head.linear.bias)


def test_dropout_is_of_the_outputs():
    head = FlattenHead(4, 4, 2, 1000, dropout=0.5).train()
    share = (head(torch.randn(1, 2, 4)) == 0).float().mean()
    assert 0.4 < share < 0.6


def test_class_head():
    head, states = FlattenClassHead(5, 3, 4, 2), torch.randn(6, 4, 5)
    flat = F.gelu(torch.stack([states[1, t, d] for t in range(4) for d in range(3)]))
    flat = (flat - flat.mean()) / (flat.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(states)[1], head.linear.weight @ flat + head.linear.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", [FlattenHead, FlattenClassHead])
def test_more_coordinates_than_there_are(head):
    with pytest.raises(AssemblyError, match="9 coordinates are to be read of states of width 8"):
        head(8, 9, 2, 3)
