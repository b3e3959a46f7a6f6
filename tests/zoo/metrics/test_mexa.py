"""MEXA against a loop, its invariants, layers and sentence vectors."""

import pytest
import torch

from modalign.zoo.encoders.text.pooling import pool
from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.mexa import chance_mexa, mexa, mexa_by_layer, over_layers
from modalign.zoo.metrics.sentence_vectors import last_token, position_weighted


def slow_mexa(x, y):
    cosine = [[torch.nn.functional.cosine_similarity(a, b, dim=0).item() for b in y] for a in x]
    n = len(x)
    good = 0
    for i in range(n):
        others = [cosine[i][j] for j in range(n) if j != i] + [cosine[j][i] for j in range(n) if j != i]
        good += cosine[i][i] > max(others)
    return good / n


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_against_a_loop(unit, chunk):
    x = 3 * unit(25, 4, 1)
    y = 2 * (unit(25, 4, 1) + 0.8 * unit(25, 4, 2))
    assert mexa(x, y, chunk) == pytest.approx(slow_mexa(x, y)) and 0 < slow_mexa(x, y) < 1


def test_invariants(unit):
    x = unit(20, 6)
    assert mexa(x, x) == 1
    moved = torch.cat((torch.arange(1, 15), torch.tensor([0]), torch.arange(15, 20)))
    assert mexa(x, x[moved]) == pytest.approx(5 / 20), "only what stays in its place counts"
    scale = torch.rand(20, 1, generator=torch.Generator().manual_seed(2)).double() + 0.1
    y = unit(20, 6, 1) + x
    assert mexa(x * scale, y) == mexa(x, y) == mexa(y, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_duplicates_fail(unit, dtype):
    x = unit(40, 300).to(dtype)
    x[31] = x[2]
    for chunk in (1, 7, 40):
        assert mexa(x, x, chunk) == pytest.approx(38 / 40)
    assert mexa(x[:1].repeat(5, 1), x[:1].repeat(5, 1)) == 0


def test_chance(unit):
    scores = [mexa(unit(5, 50, seed), unit(5, 50, 1000 + seed)) for seed in range(400)]
    assert sum(scores) / 400 == pytest.approx(chance_mexa(5), abs=0.03) and chance_mexa(5) == 1 / 9


def test_layers(unit):
    x = torch.stack([unit(20, 6, seed) for seed in range(3)])
    y = torch.stack((x[0], unit(20, 6, 9), x[2].flip(0)))
    scores = mexa_by_layer(x, y)
    assert scores == [mexa(a, b) for a, b in zip(x, y, strict=True)] and scores[0] == 1 and scores[2] == 0
    assert over_layers(scores) == pytest.approx(sum(scores) / 3) and over_layers(scores, "max") == 1
    with pytest.raises(DataError, match="layers, sentences, width"):
        mexa_by_layer(x, y[:2])
    with pytest.raises(AssemblyError, match="pooling"):
        over_layers(scores, "median")


def test_sentence_vectors_against_loops():
    states = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))  # layers, sentences, tokens, width
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])
    for layer in range(3):
        for n in range(4):
            tokens = states[layer, n][mask[n].bool()]
            weights = torch.arange(1.0, len(tokens) + 1)
            wanted = (weights[:, None] * tokens).sum(0) / weights.sum()
            assert torch.allclose(position_weighted(states, mask)[layer, n], wanted, atol=1e-6)
            assert torch.equal(last_token(states, mask)[layer, n], tokens[-1])
    columns = position_weighted(states, mask, from_first_token=False)
    assert torch.allclose(columns[:, :2], position_weighted(states, mask)[:, :2])
    weights = torch.tensor([3.0, 4, 5])
    assert torch.allclose(columns[1, 2], (weights[:, None] * states[1, 2, 2:]).sum(0) / 12, atol=1e-6)
    assert torch.allclose(position_weighted(states[0], mask), pool(states[0], mask, "weighted_mean"), atol=1e-6)
