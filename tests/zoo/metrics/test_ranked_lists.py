"""mAP and nDCG against scikit-learn, a loop, and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.ranked_lists import Relevance, average_precision, ndcg, ranked_lists
from modalign.zoo.metrics.top_k import mean_top, ordered_top, top_rows


def slow_lists(scores, grades, k, gain):
    """One query after the other, by the formulas."""
    precisions, gains = [], []
    for row, right in zip(scores, grades, strict=True):
        if not right.any():
            continue
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))[:k]
        found, precision = 0, 0.0
        for place, j in enumerate(order, 1):
            if right[j] > 0:
                found += 1
                precision += found / place
        precisions.append(precision / min(k, int((right > 0).sum())))
        value = (lambda g: 2**g - 1) if gain == "exponential" else (lambda g: g)
        dcg = sum(value(right[j]) / math.log2(place + 1) for place, j in enumerate(order, 1))
        ideal = sum(value(g) / math.log2(place + 1) for place, g in enumerate(sorted(right, reverse=True)[:k], 1))
        gains.append(dcg / ideal)
    return 100 * np.mean(precisions), 100 * np.mean(gains)


@pytest.mark.parametrize("gain", ["linear", "exponential"])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_against_a_loop(unit, gain, k):
    queries, gallery = unit(12, 5, 1), unit(9, 5, 2)
    grades = np.random.default_rng(3).integers(-3, 4, (12, 9)).clip(0)
    grades[4] = 0  # a query without a right answer is not counted
    query, row = (torch.tensor(part) for part in grades.nonzero())
    relevant = Relevance(query, row, torch.tensor(grades[grades > 0]).double())
    found = ranked_lists(queries, gallery, relevant, (k,), gain=gain, chunk=5)
    wanted = slow_lists((queries @ gallery.T).numpy(), grades, k, gain)
    assert (found[f"mAP@{k}"], found[f"nDCG@{k}"]) == pytest.approx(wanted, abs=1e-3)


def test_ndcg_is_scikit_learns(unit):
    metrics = pytest.importorskip("sklearn.metrics")
    queries, gallery = unit(12, 5, 1), unit(9, 5, 2)
    grades = np.random.default_rng(4).integers(0, 4, (12, 9))
    query, row = (torch.tensor(part) for part in grades.nonzero())
    found = ranked_lists(queries, gallery, Relevance(query, row, torch.tensor(grades[grades > 0]).double()), (4,))
    assert found["nDCG@4"] == pytest.approx(100 * metrics.ndcg_score(grades, (queries @ gallery.T).numpy(), k=4), abs=1e-3)


def test_by_hand():
    hits = torch.tensor([[True, False, True, False]])
    assert average_precision(hits, torch.tensor([2]), 4).item() == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(hits, torch.tensor([5]), 2).item() == pytest.approx(1 / 2)
    found, ideal = torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 1.0]])
    assert ndcg(found, ideal, 2).item() == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert ndcg(found, ideal, 2, "exponential").item() == pytest.approx((1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3)))


def test_a_perfect_order_is_perfect(unit):
    vectors = unit(6, 4)
    found = ranked_lists(vectors, vectors, Relevance(torch.arange(6), torch.arange(6)), (1, 10))
    assert set(found.values()) == {100.0}


@pytest.mark.parametrize("pairs", [([], []), ([0, 0], [1, 1])])
def test_pairs_must_be_there_once(unit, pairs):
    relevant = Relevance(*(torch.tensor(part, dtype=torch.long) for part in pairs))
    with pytest.raises(DataError, match="each once"):
        ranked_lists(unit(3, 2), unit(3, 2), relevant)
    with pytest.raises(DataError, match="above 0"):
        ranked_lists(unit(3, 2), unit(3, 2), Relevance(torch.tensor([0]), torch.tensor([0]), torch.tensor([0.0])))
    with pytest.raises(AssemblyError, match="gain"):
        ranked_lists(unit(3, 2), unit(3, 2), relevant, gain="linea")


@pytest.mark.parametrize("tile", [1, 2, 5, 100])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_top_rows_breaks_ties_by_row(tile, exclude_self):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randint(-1, 2, (23, 3), generator=generator).float()
    penalty = torch.randint(0, 2, (23,), generator=generator).float()
    scores = 2 * vectors @ vectors.T - penalty
    if exclude_self:
        scores.fill_diagonal_(-math.inf)
    values, rows = top_rows(vectors, vectors, 6, scale=2, penalty=penalty, exclude_self=exclude_self, chunk=4, tile=tile)
    order = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(rows, order.indices[:, :6]) and torch.equal(values, order.values[:, :6])


def test_ordered_top_and_mean_top():
    values, columns = ordered_top(torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]), 2)
    assert columns.tolist() == [[1, 2], [0, 1]] and values.tolist() == [[2, 2], [0, 0]]
    assert mean_top(torch.tensor([[1.0]]), torch.tensor([[3.0], [1.0], [2.0]]), 2).item() == 2.5
    assert mean_top(torch.tensor([[1.0]]), torch.tensor([[3.0], [1.0]]), 10).item() == 2.0
    with pytest.raises(DataError, match="between 1 and 2"):
        top_rows(torch.eye(3), torch.eye(3), 3, exclude_self=True)
