"""The gate and the vector it weighs together: numbers worked out by hand, and the paper's size."""

import pytest
import torch

from modalign.zoo.stack.methods.level_gate import LevelGate, combined_level, mean_embedding


def test_the_vector_of_three_levels():
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert combined_level(table, torch.tensor([[0.25, 0.75]])).tolist() == [[1.25, 1.75]]


def test_the_papers_gate_has_149511_parameters():
    assert sum(parameter.numel() for parameter in LevelGate(576, 8).parameters()) == 149_511


def test_weights_sum_to_1():
    weights = LevelGate(16, 8)(torch.randn(5, 16))
    assert weights.shape == (5, 7) and torch.allclose(weights.sum(1), torch.ones(5))


def test_a_gate_that_says_nothing_takes_the_mean():
    gate, table = LevelGate(16, 8), torch.randn(8, 6)
    torch.nn.init.zeros_(gate.layers[-1].weight)
    torch.nn.init.zeros_(gate.layers[-1].bias)
    weights = gate(torch.randn(3, 16))
    assert torch.allclose(weights, torch.full((3, 7), 1 / 7))
    assert torch.allclose(combined_level(table, weights), (table[7] + table[:7].mean(0)).expand(3, -1), atol=1e-6)


def test_the_mean_is_of_the_chosen_tokens():
    embeddings = torch.arange(12.0).view(2, 3, 2)
    chosen = torch.tensor([[True, False, True], [False, False, False]])
    assert mean_embedding(embeddings, chosen) == pytest.approx(torch.tensor([[2.0, 3.0], [0.0, 0.0]]))
