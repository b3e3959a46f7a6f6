"""Alignment, uniformity, gap, CKA, neighbours and CCA: golden numbers, plain formulas over whole matrices, invariants."""

import math

import numpy as np
import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.alignment_uniformity import alignment, cross_uniformity, uniformity
from modalign.zoo.metrics.cca import canonical_correlations, svcca
from modalign.zoo.metrics.cka import cka, hsic
from modalign.zoo.metrics.cknna import cknna
from modalign.zoo.metrics.modality_gap import gap_vector, modality_gap
from modalign.zoo.metrics.neighbours import cycle_knn, edit_distance_knn, lcs_knn, mutual_knn, nearest_neighbours


def test_alignment_and_uniformity_are_the_references(golden):
    data = golden("align_uniform")
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
    assert alignment(x, y) == pytest.approx(float(data["align"]), rel=1e-12)
    assert uniformity(x) == pytest.approx(float(data["uniform_x"]), rel=1e-12)
    assert uniformity(x, chunk=4) == pytest.approx(float(data["uniform_x"]), rel=1e-12)
    assert alignment(x.float(), y.float()) == pytest.approx(float(data["align"]), rel=1e-5)
    assert alignment(x, y) == pytest.approx(2 - 2 * (x * y).sum(1).mean().item())


def test_uniformity_against_loops(unit):
    x, y = unit(9, 4, 1), unit(9, 4, 2)
    pairs = [math.exp(-3 * (x[i] - x[j]).square().sum().item()) for i in range(9) for j in range(i)]
    cross = [math.exp(-2 * (x[i] - y[j]).square().sum().item()) for i in range(9) for j in range(9) if i != j]
    assert uniformity(x, t=3, chunk=4) == pytest.approx(math.log(sum(pairs) / len(pairs)))
    assert cross_uniformity(x, y, chunk=2) == pytest.approx(math.log(sum(cross) / len(cross)))
    assert alignment(x, y, alpha=1) == pytest.approx((x - y).norm(dim=1).mean().item())


def test_bounds_of_uniformity(unit):
    assert uniformity(torch.ones(5, 2).double() / math.sqrt(2)) == pytest.approx(0)
    assert uniformity(torch.tensor([[1.0, 0], [-1, 0]]).double()) == pytest.approx(-8)
    assert uniformity(unit(400, 2000)) == pytest.approx(-4, abs=0.01)
    with pytest.raises(DataError, match="at least 2"):
        uniformity(unit(1, 3))


def test_modality_gap(unit, rotation):
    x, y = unit(30, 5, 1), unit(20, 5, 2)
    assert modality_gap(x, y) == pytest.approx((x.mean(0) - y.mean(0)).norm().item())
    assert modality_gap(7 * x, y / 3) == pytest.approx(modality_gap(x, y))
    turn = rotation(5)
    assert modality_gap(x @ turn, y @ turn) == pytest.approx(modality_gap(x, y)) and modality_gap(x, x) == 0
    assert torch.allclose(gap_vector(x, y), -gap_vector(y, x))
    assert modality_gap(torch.tensor([[1.0, 0]]), torch.tensor([[-1.0, 0]])) == 2


def kernels(x, y, kernel, sigma):
    if kernel == "linear":
        return x @ x.T, y @ y.T
    return (torch.exp(-(torch.cdist(v, v) ** 2) / (2 * sigma**2)) for v in (x, y))


def slow_hsic(k, m, unbiased):
    """The formulas over whole matrices."""
    n = len(k)
    if not unbiased:
        centre = torch.eye(n, dtype=k.dtype) - 1 / n
        return torch.trace(k @ centre @ m @ centre)
    k, m = k.clone().fill_diagonal_(0), m.clone().fill_diagonal_(0)
    middle = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return ((k * m.T).sum() + middle - 2 * (k @ m).sum() / (n - 2)) / (n * (n - 3))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_against_whole_matrices(unit, kernel, unbiased):
    x, y = unit(20, 6, 1) + 1, unit(20, 4, 2)
    k, m = kernels(x, y, kernel, 0.7)
    both, first, second = (slow_hsic(*pair, unbiased).item() for pair in ((k, m), (k, k), (m, m)))
    settings = {"kernel": kernel, "sigma": 0.7, "unbiased": unbiased, "chunk": 7}
    assert hsic(x, y, **settings) == pytest.approx(both, rel=1e-9, abs=1e-12)
    assert cka(x, y, **settings) == pytest.approx(both / (math.sqrt(first * second) + 1e-6), rel=1e-9)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_of_equal_representations(unit, rotation, kernel, unbiased):
    x = unit(60, 6)
    settings = {"kernel": kernel, "unbiased": unbiased}
    assert cka(x, x, **settings) == pytest.approx(1, abs=2e-3) and cka(x, x, **settings) < 1
    assert cka(x, x @ rotation(6), **settings) == pytest.approx(cka(x, x, **settings), rel=1e-9)
    assert cka(x, x[:, :3], **settings) < 0.95


def test_cka_sees_neither_rotation_nor_scale(unit, rotation):
    x, y = unit(40, 6, 1), unit(40, 4, 2)
    whole = cka(10 * x, 10 * y)  # large, so that the 1e-6 does not matter
    assert cka(30 * x @ rotation(6), 10 * y @ rotation(4)) == pytest.approx(whole, rel=1e-5)
    assert cka(10 * x + 5, 10 * y - 3) == pytest.approx(whole, rel=1e-9)
    assert cka(1000 * unit(60, 6), 1000 * unit(60, 6)) == pytest.approx(1, abs=1e-7)


def test_only_the_unbiased_cka_of_unrelated_vectors_is_near_0(unit):
    x, y = 10 * unit(60, 100, 1), 10 * unit(60, 100, 2)
    assert cka(x, y) > 0.5 and abs(cka(x, y, unbiased=True)) < 0.05
    with pytest.raises(DataError, match="at least 4"):
        cka(x[:3], y[:3], unbiased=True)
    with pytest.raises(AssemblyError, match="kernel"):
        cka(x, y, kernel="gauss")


def slow_neighbours(x, k):
    scores = (x @ x.T).fill_diagonal_(-1e8)
    return [sorted(range(len(x)), key=lambda j: (-row[j], j))[:k] for row in scores.tolist()]


def test_neighbour_measures_against_loops(unit):
    x, y, k = unit(30, 5, 1), unit(30, 7, 2), 6
    y[:, :5] += 2 * x
    in_x, in_y = slow_neighbours(x, k), slow_neighbours(y, k)
    assert nearest_neighbours(x, k, chunk=4).tolist() == in_x
    shared = [len(set(a) & set(b)) / k for a, b in zip(in_x, in_y, strict=True)]
    assert mutual_knn(x, y, k, chunk=7) == pytest.approx(np.mean(shared))
    back = [any(i in in_x[j][:3] for j in in_y[i][:3]) for i in range(30)]
    assert cycle_knn(x, y, 3) == pytest.approx(np.mean(back)) and cycle_knn(y, x, 3) != pytest.approx(np.mean(back))
    assert lcs_knn(x, y, k) == pytest.approx(np.mean([lcs(a, b) for a, b in zip(in_x, in_y, strict=True)]))
    distance = np.mean([edits(a, b) for a, b in zip(in_x, in_y, strict=True)])
    assert edit_distance_knn(x, y, k) == pytest.approx(1 - distance / k)


def lcs(a, b):
    if not a or not b:
        return 0
    return lcs(a[:-1], b[:-1]) + 1 if a[-1] == b[-1] else max(lcs(a[:-1], b), lcs(a, b[:-1]))


def edits(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[:-1], b[:-1]) + (a[-1] != b[-1]), edits(a[:-1], b) + 1, edits(a, b[:-1]) + 1)


def test_edit_distance_is_torchaudios(unit):
    functional = pytest.importorskip("torchaudio.functional")
    x, y = unit(12, 3, 1), unit(12, 3, 2)
    distances = [functional.edit_distance(a, b) for a, b in zip(slow_neighbours(x, 5), slow_neighbours(y, 5), strict=True)]
    assert edit_distance_knn(x, y, 5) == pytest.approx(1 - np.mean(distances) / 5)


def test_a_representation_has_its_own_neighbours(unit, rotation):
    x = unit(30, 5)
    for same in (x, x @ rotation(5)):
        assert mutual_knn(x, same, 4) == 1 and lcs_knn(x, same, 4) == 4 and edit_distance_knn(x, same, 4) == 1
    assert cycle_knn(x, x, 4) > 0.9
    assert mutual_knn(unit(400, 9, 1), unit(400, 9, 2), 10) == pytest.approx(10 / 399, abs=0.01)
    with pytest.raises(DataError, match="between 1 and 29"):
        mutual_knn(x, x, 30)


def slow_cknna(x, y, k):
    """Whole matrices with masks."""

    def similarity(a, b):
        kernel = [v @ v.T for v in (a, b)]
        masks = []
        for v in (a, b):
            mask = torch.zeros(len(x), len(x), dtype=x.dtype)
            for i, row in enumerate(slow_neighbours(v, k)):
                mask[i, row] = 1
            masks.append(mask)
        mask = masks[0] * masks[1]
        return slow_hsic(mask * kernel[0], mask * kernel[1], True)

    return (similarity(x, y) / ((similarity(x, x) * similarity(y, y)).sqrt() + 1e-6)).item()


@pytest.mark.parametrize("k", [2, 5, 12])
def test_cknna_against_whole_matrices(unit, k):
    x, y = 3 * unit(20, 5, 1), 3 * unit(20, 6, 2)
    assert cknna(x, y, k, chunk=6) == pytest.approx(slow_cknna(x, y, k), rel=1e-9)


def test_cknna_with_all_neighbours_is_unbiased_cka(unit):
    x, y = 3 * unit(20, 5, 1), 3 * unit(20, 6, 2)
    assert cknna(x, y, 19) == pytest.approx(cka(x, y, unbiased=True), rel=1e-9)
    assert cknna(x, x, 5) == pytest.approx(1, abs=1e-4)


def test_nothing_holds_all_pairs(unit, largest_tensor):
    x, y = unit(300, 3, 1), unit(300, 3, 2)
    for measure in (cka, mutual_knn, cknna, uniformity_of_first, cross_uniformity):
        with largest_tensor() as largest:
            measure(x, y, chunk=16)
        assert largest.numel <= 300 * 40, measure


def uniformity_of_first(x, _, chunk):
    return uniformity(x, chunk=chunk)


def test_canonical_correlations(unit, rotation):
    x = unit(80, 5, 1)
    mixed = x @ torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    assert torch.allclose(canonical_correlations(x, mixed), torch.ones(5, dtype=torch.float64))
    noise = unit(80, 4, 2)
    found = canonical_correlations(x, torch.cat((x[:, :2], noise), 1))
    assert torch.allclose(found[:2], torch.ones(2, dtype=torch.float64)) and float(found[2]) < 0.8
    assert len(canonical_correlations(x, torch.cat((x[:, :1], x[:, :1]), 1))) == 2


def test_cca_is_scikit_learns(unit):
    decomposition = pytest.importorskip("sklearn.cross_decomposition")
    x, y = unit(80, 4, 1), unit(80, 3, 2)
    y[:, 0] += x[:, 1]
    a, b = decomposition.CCA(3, max_iter=5000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    wanted = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)]
    assert canonical_correlations(x, y).tolist() == pytest.approx(wanted, abs=1e-5)


def test_svcca(unit, rotation):
    x, y = unit(60, 6, 1), unit(60, 8, 2)
    assert svcca(x, x @ rotation(6), 3) == pytest.approx(1) and svcca(x, 5 * x - 2, 6) == pytest.approx(1)
    assert 0 < svcca(x, y, 3) < 0.6
    strongest = [
        torch.pca_lowrank(v, 8)[0][:, :3] if v.shape[1] >= 8 else torch.linalg.svd(v - v.mean(0))[0][:, :3] for v in (x, y)
    ]
    assert svcca(x, y, 3) == pytest.approx(canonical_correlations(*strongest).mean().item(), abs=1e-3)
    with pytest.raises(DataError, match="between 1 and 6"):
        svcca(x, y, 7)


def test_rows_must_be_paired_and_finite(unit):
    x = unit(8, 3)
    for measure in (alignment, cross_uniformity, cka, canonical_correlations, svcca, mutual_knn, cknna):
        with pytest.raises(DataError, match="pair by pair"):
            measure(x, x[:5])
    x[2, 1] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        cka(x, x)
