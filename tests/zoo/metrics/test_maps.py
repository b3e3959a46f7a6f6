"""Procrustes, CSLS, RCSLS, refinement and P@k: fastText's numbers, plain formulas, invariants."""

import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.maps.csls import csls, translate
from modalign.zoo.metrics.maps.lexicon import Lexicon, build_lexicon, by_frequency, translation_precision
from modalign.zoo.metrics.maps.procrustes import clip_spectrum, orthogonality_step, procrustes
from modalign.zoo.metrics.maps.rcsls import RcslsSettings, rcsls, rcsls_objective
from modalign.zoo.metrics.maps.refinement import induced_pairs, refine
from modalign.zoo.metrics.rows import unit as to_unit


@pytest.fixture
def bli(golden):
    data = golden("bli")
    return {name: torch.tensor(value) if value.ndim else value.item() for name, value in data.items()}


def test_fasttexts_numbers(bli):
    x, y, n, k = bli["src"], bli["tgt"], bli["n_train"], bli["knn"]
    matrix = procrustes(x[:n], y[:n])
    assert torch.allclose(matrix, bli["procrustes_R"], rtol=1e-9, atol=1e-10)
    value, gradient = rcsls_objective(x[:n], y[:n], x, y, matrix, k)
    assert value == pytest.approx(bli["rcsls_f"], rel=1e-9)
    assert torch.allclose(gradient, bli["rcsls_grad"], rtol=1e-8, atol=1e-10)
    assert torch.allclose(clip_spectrum(2 * matrix), bli["proj_spectral_2R"], rtol=1e-9, atol=1e-10)
    test = Lexicon(torch.arange(n, 30).repeat(2, 1).T, 30 - n)
    for method in ("nn", "csls"):
        found = translation_precision(x @ matrix.T, y, test, method=method, k=k, chunk=4)
        assert found["P@1"] == pytest.approx(100 * bli[f"{method}_acc"], abs=1e-3) and found["words"] == 15


def test_a_rotation_is_found(unit, rotation):
    x, turn = unit(40, 6), rotation(6)
    found = procrustes(x, x @ turn.T)
    assert torch.allclose(found, turn) and torch.allclose(found @ found.T, torch.eye(6).double())
    same = Lexicon(torch.arange(40).repeat(2, 1).T, 40)
    for method in ("nn", "csls", "invsm"):
        assert translation_precision(x @ found.T, x @ turn.T, same, method=method)["P@1"] == 100


def test_procrustes_is_the_best_rotation(unit, rotation):
    x, y = unit(20, 4, 1), unit(20, 4, 2)
    best = (x @ procrustes(x, y).T - y).norm()
    assert all((x @ rotation(4, seed) - y).norm() > best for seed in range(50))
    assert procrustes(x.float(), y.float()).dtype == torch.float32
    with pytest.raises(AssemblyError, match="one width"):
        procrustes(x, y[:, :3])


@pytest.mark.parametrize("pairs", [3, 8, 12, 40])
def test_directions_no_pair_speaks_of_stay(unit, rotation, pairs):
    """The short cut for few pairs is the same map as the whole one; what is orthogonal to all pairs is not turned."""
    x, y = unit(pairs, 20, 1), unit(pairs, 20, 2)
    eye = torch.eye(20).double()
    u, _, vh = torch.linalg.svd(y.T @ x + 1e-3 * eye)
    found = procrustes(x, y, identity=1e-3)
    assert torch.allclose(found, u @ vh, atol=1e-8) and torch.allclose(found @ found.T, eye, atol=1e-9)
    if pairs == 3:
        outside = torch.linalg.qr(torch.cat((x, y)).T, mode="complete").Q[:, 6:].T
        assert torch.allclose(outside @ found.T, outside, atol=1e-9)
        assert torch.allclose(x @ procrustes(x, x @ rotation(20).T, 1e-9).T, x @ rotation(20).T, atol=1e-5)


def test_orthogonality_steps_converge(rotation):
    turn = rotation(5)
    assert torch.allclose(orthogonality_step(turn), turn)
    matrix = turn + 0.1 * torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    once = orthogonality_step(matrix, 0.01)
    assert torch.allclose(once, 1.01 * matrix - 0.01 * matrix @ matrix.T @ matrix)
    for _ in range(2000):
        matrix = orthogonality_step(matrix, 0.01)
    assert torch.allclose(matrix @ matrix.T, torch.eye(5).double(), atol=1e-6)


def slow_csls(x, y, k):
    x, y = to_unit(x), to_unit(y)
    cosine = x @ y.T
    r_t = [sorted(row, reverse=True)[:k] for row in cosine.tolist()]
    r_s = [sorted(row, reverse=True)[:k] for row in cosine.T.tolist()]
    return [[2 * cosine[i, j].item() - sum(r_t[i]) / k - sum(r_s[j]) / k for j in range(len(y))] for i in range(len(x))]


def test_csls_against_loops(unit):
    x, y = 3 * unit(9, 4, 1), unit(12, 4, 2)
    slow = torch.tensor(slow_csls(x, y, 3)).double()
    assert torch.allclose(csls(x, y, 3), slow)
    assert torch.equal(translate(x, y, k=3, count=4, chunk=5), slow.topk(4).indices)
    assert torch.equal(translate(x, y, torch.tensor([7, 2]), k=3, count=1)[:, 0], slow[[7, 2]].argmax(1))


def test_csls_does_not_matter_where_no_target_is_a_hub(rotation):
    """Targets in the corners of a cross-polytope, sources likewise: every r_S is the same."""
    y = torch.cat((torch.eye(4), -torch.eye(4))).double() @ rotation(4)
    assert torch.equal(translate(y, y, method="csls", k=2, count=1), translate(y, y, method="nn", count=1))


def test_inverted_softmax_against_whole_matrices(unit):
    x, y = unit(9, 4, 1), unit(12, 4, 2)
    scores = torch.softmax(30 * x @ y.T, dim=0)  # over the sources
    assert torch.equal(translate(x, y, method="invsm", count=3, chunk=5), scores.topk(3).indices)
    assert not torch.equal(translate(x, y, method="invsm", count=1), translate(x, y, method="nn", count=1))
    with pytest.raises(AssemblyError, match="did you mean 'invsm'"):
        translate(x, y, method="invsn")


def test_words_without_vectors_are_dropped_or_errors(unit):
    """Three words: two translations, of which one has a vector; none that has; one that is wrong."""
    entries = [("a", "A"), ("a", "AA"), ("b", "missing"), ("gone", "A"), ("c", "A"), ("a", "A")]
    lexicon = build_lexicon(entries, {"a": 0, "b": 1, "c": 2}, {"A": 0, "AA": 1, "B": 2, "C": 3})
    assert lexicon.pairs.tolist() == [[0, 0], [0, 1], [2, 0]]
    assert (lexicon.words, lexicon.missing_words, lexicon.missing_pairs) == (4, 2, 2)
    source, target = torch.eye(4)[[1, 2, 3]], torch.eye(4)
    assert translation_precision(source, target, lexicon, method="nn", ks=(1,)) == {"P@1": 50.0, "words": 2}
    assert translation_precision(source, target, lexicon, method="nn", ks=(1,), missing="errors") == {"P@1": 25.0, "words": 4}
    with pytest.raises(DataError, match="vectors on both sides"):
        build_lexicon([("x", "y")], {}, {})


def test_precision_counts_distinct_source_words(unit):
    source, target = unit(30, 5, 1), unit(40, 5, 2)
    pairs = torch.stack((torch.arange(60) % 20, torch.arange(60) * 7 % 40), 1)
    scores = source @ target.T
    for k in (1, 3):
        best = scores.topk(k).indices.tolist()
        hits = [any(t in best[s] for w, t in pairs.tolist() if w == s) for s in range(20)]
        found = translation_precision(source, target, Lexicon(pairs, 20), method="nn", ks=(k,))
        assert found[f"P@{k}"] == pytest.approx(100 * sum(hits) / 20, abs=1e-3)


def test_test_split_by_frequency():
    lexicon = Lexicon(torch.tensor([[9, 0], [2, 0], [2, 1], [5, 3]]), 3)
    assert by_frequency(lexicon, 1, 3).pairs.tolist() == [[9, 0], [5, 3]] and by_frequency(lexicon, 0, 1).words == 1
    with pytest.raises(DataError, match="none from 5000"):
        by_frequency(lexicon, 5000, 6500)


def test_rcsls_lowers_its_criterion(unit, rotation):
    x = unit(60, 5)
    y = to_unit(x @ rotation(5).T + 0.3 * unit(60, 5, 8))
    start = procrustes(x, y)
    before = rcsls_objective(x, y, x, y, start, 4)[0]
    found = rcsls(x, y, settings=RcslsSettings(k=4))
    after = rcsls_objective(x, y, x, y, found, 4)[0]
    assert after < before and not torch.allclose(found @ found.T, torch.eye(5).double(), atol=1e-3)
    clipped = rcsls(x, y, settings=RcslsSettings(k=4, spectral=True))
    assert torch.linalg.svdvals(clipped).max() <= 1 + 1e-9
    assert rcsls_objective(x, y, x, y, clipped, 4)[0] <= before


def test_rcsls_takes_steps_back_and_halves_them(unit, monkeypatch):
    tried = []

    def worse_and_worse(x, y, sources, targets, matrix, k):
        tried.append(matrix)
        return float(len(tried)), torch.ones(4, 4).double()

    monkeypatch.setattr("modalign.zoo.metrics.maps.rcsls.rcsls_objective", worse_and_worse)
    x, y = unit(20, 4, 1), unit(20, 4, 2)
    found = rcsls(x, y, settings=RcslsSettings(k=3, iterations=100))
    assert torch.equal(found, tried[0]) and torch.allclose(found, procrustes(x, y))
    steps = [(tried[0] - matrix)[0, 0].item() for matrix in tried[1:]]
    assert steps == pytest.approx([0.5**i for i in range(14)]), "until the step is below 1e-4"


def test_rcsls_gradient_is_the_slope(unit):
    x, y = unit(20, 4, 1), unit(20, 4, 2)
    matrix = procrustes(x, y)
    value, gradient = rcsls_objective(x, y, x, y, matrix, 3, chunk=7)
    step = 1e-7 * unit(4, 4, 5)
    slope = (rcsls_objective(x, y, x, y, matrix + step, 3)[0] - value) / 1e-7
    assert slope == pytest.approx((gradient * step / 1e-7).sum().item(), rel=1e-3)


def test_refinement_improves_a_poor_map(unit, rotation):
    x, turn = unit(300, 6), rotation(6)
    y = x @ turn.T
    poor = turn @ torch.linalg.matrix_exp(0.25 * (turn - turn.T))
    everything = Lexicon(torch.arange(300).repeat(2, 1).T, 300)

    def right(matrix):
        return translation_precision(x @ matrix.T, y, everything)["P@1"]

    for mutual in (False, True):
        assert right(refine(x, y, poor, mutual=mutual)) == 100 > 80 > right(poor)
    pairs = induced_pairs(x @ poor.T, y, vocabulary=50)
    assert pairs.max() < 50 and len(pairs) < 50
    mutual = induced_pairs(x, y, mutual=True)  # not mapped at all
    forward, back = translate(x, y, count=1)[:, 0], translate(y, x, count=1)[:, 0]
    both = [(i, j) for i, j in enumerate(forward.tolist()) if back[j] == i]
    assert [tuple(pair) for pair in mutual.tolist()] == both and 0 < len(both) < 250
