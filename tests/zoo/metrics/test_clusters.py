"""Cluster indices and the alignment quality index."""

import math
import sys

import numpy as np
import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.aqi import aqi, aqi_by_axiom, pooled_layers
from modalign.zoo.metrics.cluster_indices import calinski_harabasz, fuzzy_xie_beni, xie_beni


@pytest.fixture
def groups(golden):
    data = golden("cluster_indices")
    return torch.tensor(data["X"]), torch.tensor(data["y"]), data


def test_reference_numbers(groups):
    x, y, data = groups
    assert calinski_harabasz(x, y) == pytest.approx(float(data["calinski_harabasz"]), rel=1e-9)
    assert xie_beni(x, y) == pytest.approx(float(data["xie_beni"]), rel=1e-9)
    explained = float(data["between"] / (data["between"] + data["within"]))
    wanted = 0.5 * explained + 0.5 / (1 + float(data["xie_beni"]))
    assert aqi(x, y) == pytest.approx(wanted, rel=1e-9)
    assert aqi(x, y, g=1) == pytest.approx(explained, rel=1e-9), "for two groups, the share of variance the labels explain"


def test_calinski_harabasz_is_scikit_learns(unit):
    metrics = pytest.importorskip("sklearn.metrics")
    x, labels = unit(50, 4), torch.arange(50) % 4 * 10 - 7
    assert calinski_harabasz(x, labels) == pytest.approx(metrics.calinski_harabasz_score(x.numpy(), labels.numpy()))


def test_xie_beni_of_several_groups_against_loops(unit):
    x, labels = unit(30, 3), torch.arange(30) % 3
    centres = [x[labels == k].mean(0) for k in range(3)]
    spread = sum((x[i] - centres[labels[i]]).square().sum().item() for i in range(30))
    nearest = min((centres[a] - centres[b]).square().sum().item() for a in range(3) for b in range(a))
    assert xie_beni(x, labels) == pytest.approx(spread / 30 / nearest)


def test_fuzzy_xie_beni(unit):
    x = unit(12, 3)
    shares = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)).double()
    shares /= shares.sum(0)
    weights = (shares**2).numpy()
    centres = weights @ x.numpy() / weights.sum(1, keepdims=True)
    spread = sum(weights[k, i] * ((x[i].numpy() - centres[k]) ** 2).sum() for k in range(3) for i in range(12))
    nearest = min(((centres[a] - centres[b]) ** 2).sum() for a in range(3) for b in range(a))
    assert fuzzy_xie_beni(x, shares) == pytest.approx(spread / 12 / nearest)
    hard = torch.nn.functional.one_hot(torch.arange(12) % 3).T.double()
    assert fuzzy_xie_beni(x, hard) == pytest.approx(xie_beni(x, torch.arange(12) % 3))
    for bad in (shares[:, :5], 2 * shares, shares[:1]):
        with pytest.raises(DataError, match="memberships"):
            fuzzy_xie_beni(x, bad)


def test_groups_with_one_centre(unit):
    x = unit(20, 4)
    both, labels = torch.cat((x, x)), torch.arange(40) // 20
    assert calinski_harabasz(both, labels) == pytest.approx(0, abs=1e-20) and xie_beni(both, labels) == math.inf
    assert aqi(both, labels) == pytest.approx(0, abs=1e-20)
    corners = torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0]])
    assert calinski_harabasz(corners, torch.tensor([0, 0, 1, 1])) == math.inf
    assert aqi(corners, torch.tensor([0, 0, 1, 1])) == 1 and xie_beni(corners, torch.tensor([0, 0, 1, 1])) == 0


def test_the_index_sees_no_rotation_shift_or_scale(groups, rotation):
    x, y, _ = groups
    assert aqi(7 * x @ rotation(4) + 3, y) == pytest.approx(aqi(x, y), rel=1e-9)
    assert aqi(x * torch.tensor([1, 1, 1, 9.0]), y) != pytest.approx(aqi(x, y), rel=1e-3)
    apart = x + 5 * y[:, None]
    assert aqi(x, y) < aqi(apart, y) < 1


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0, 1]])
def test_too_few_groups_or_vectors(labels):
    with pytest.raises(DataError, match="groups"):
        xie_beni(torch.eye(3), torch.tensor(labels))


def test_layers_are_pooled():
    hidden = torch.arange(12.0).reshape(3, 2, 2)
    assert torch.allclose(pooled_layers(hidden), hidden.mean(0))
    assert torch.allclose(pooled_layers(hidden, [0.0, 0.25, 0.75]), 0.25 * hidden[1] + 0.75 * hidden[2])
    for bad in ([0.5, 0.5], [1.0, 1.0, 1.0], [2.0, -1.0, 0.0]):
        with pytest.raises(DataError, match="weights"):
            pooled_layers(hidden, bad)


def sets(unit):
    """Three axioms, the later the better separated."""
    return {name: (unit(24, 5, k) + k * (torch.arange(24) % 2)[:, None], torch.arange(24) % 2) for k, name in enumerate("abc")}


def test_axioms(unit):
    found = aqi_by_axiom(sets(unit), g=0.3)
    for name, (x, labels) in sets(unit).items():
        assert found[name] == aqi(x, labels, 0.3)
    assert found["mean"] == pytest.approx((found["a"] + found["b"] + found["c"]) / 3)
    with pytest.raises(AssemblyError, match="between 0 and 1"):
        aqi_by_axiom(sets(unit), g=1.5)


def test_the_variant_of_the_published_code(unit):
    manifold = pytest.importorskip("sklearn.manifold")
    found = aqi_by_axiom(sets(unit), g=0.3, reference="tsne3d")
    ch, xb = [], []
    for x, labels in sets(unit).values():
        points = manifold.TSNE(3, perplexity=23 / 3, init="pca", random_state=0).fit_transform(x.numpy())
        ch.append(calinski_harabasz(torch.tensor(points), labels))
        xb.append(xie_beni(torch.tensor(points), labels))
    scaled = [100 * (value - min(ch)) / (max(ch) - min(ch)) for value in ch]
    low, middle, high = np.quantile(xb, [0.25, 0.5, 0.75])
    compact = [max(10, 100 * (1 - 1 / (1 + math.exp(-(value - middle) / (high - low))))) for value in xb]
    wanted = [0.3 * a + 0.7 * b for a, b in zip(scaled, compact, strict=True)]
    assert [found[name] for name in "abc"] == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(DataError, match="at least 2"):
        aqi_by_axiom({"a": sets(unit)["a"]}, reference="tsne3d")


def test_scaling_over_the_axioms(unit):
    """One of seven hardly separates: its Xie-Beni score would fall below the floor of 10."""
    from modalign.zoo.metrics import aqi as module

    apart = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 0.1)
    points = {str(k): (unit(24, 3, 9) + a * (torch.arange(24) % 2)[:, None], torch.arange(24) % 2) for k, a in enumerate(apart)}
    found = module._relative(points, 0.0)
    xb = np.array([xie_beni(*one) for one in points.values()])
    low, middle, high = np.quantile(xb, [0.25, 0.5, 0.75])
    raw = 100 * (1 - 1 / (1 + np.exp(-(xb - middle) / (high - low))))
    assert raw[-1] < 10 == found["6"] and list(found.values())[:6] == pytest.approx(raw[:6])
    ch = np.array([calinski_harabasz(*one) for one in points.values()])
    assert list(module._relative(points, 1.0).values()) == pytest.approx(100 * (ch - ch.min()) / (ch.max() - ch.min()))


def test_without_scikit_learn_it_says_so(unit, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(AssemblyError, match="scikit-learn"):
        aqi_by_axiom(sets(unit), reference="tsne3d")
