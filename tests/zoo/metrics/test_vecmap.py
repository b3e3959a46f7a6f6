"""VecMap: the steps against the sequence written out, the presets on a rotated vocabulary."""

import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.maps.csls import translate
from modalign.zoo.metrics.maps.lexicon import Lexicon, translation_precision
from modalign.zoo.metrics.maps.self_learning import (
    SelfLearning,
    identical_pairs,
    learn_dictionary,
    unsupervised_pairs,
    vecmap,
)
from modalign.zoo.metrics.maps.vecmap import advanced_map, normalised, whitening


def test_normalisation(unit):
    x = normalised(5 * unit(30, 4) + 1)
    assert torch.allclose(x.norm(dim=1), torch.ones(30).double())
    centred = normalised(unit(30, 4), ("unit", "center"))
    assert torch.allclose(centred.mean(0), torch.zeros(4).double(), atol=1e-12)
    with pytest.raises(AssemblyError, match="normalisation"):
        normalised(x, ("centre",))


def test_whitening_whitens(unit):
    x = unit(30, 4) @ torch.diag(torch.tensor([1.0, 5, 0.1, 2])).double()
    white = x @ whitening(x)
    assert torch.allclose(white.T @ white, torch.eye(4).double())
    assert torch.allclose(whitening(x), whitening(x).T)
    for poor in (x[:3], torch.cat((x[:, :3], x[:, :1]), 1)):
        with pytest.raises(DataError, match="span all 4 dimensions"):
            whitening(poor)


@pytest.mark.parametrize("dewhiten", [True, False])
@pytest.mark.parametrize("reweight", [(0.5, 0.5), (0.0, 1.0)])
def test_the_whole_sequence(unit, dewhiten, reweight):
    """Step by step over the vectors, as the reference does it, instead of one matrix."""
    x, z = unit(40, 5, 1), unit(40, 5, 2) + 0.5 * unit(40, 5, 1)
    white_x, white_z = (torch.linalg.inv(torch.linalg.cholesky(v.T @ v)) for v in (x, z))
    white_x, white_z = whitening(x), whitening(z)
    xw, zw = x @ white_x, z @ white_z
    u, s, vh = torch.linalg.svd(xw.T @ zw)
    xw, zw = xw @ u * s ** reweight[0], zw @ vh.T * s ** reweight[1]
    if dewhiten:
        xw = xw @ u.T @ torch.linalg.inv(white_x) @ u
        zw = zw @ vh @ torch.linalg.inv(white_z) @ vh.T
    found = advanced_map(x, z, reweight=reweight, dewhiten=dewhiten)
    assert torch.allclose(x @ found.source, xw) and torch.allclose(z @ found.target, zw)
    cut = advanced_map(x, z, reweight=reweight, dewhiten=dewhiten, dimensions=2)
    assert torch.allclose(cut.source, found.source[:, :2]) and cut.target.shape == (5, 2)


def test_without_reweighting_and_whitening_it_is_canonical(unit, rotation):
    """Whitened and rotated, the two sides' dimensions are uncorrelated but for their partners."""
    x, z = unit(60, 4, 1), unit(60, 4, 2) + unit(60, 4, 1)
    found = advanced_map(x, z, reweight=(0, 0), dewhiten=False)
    product = (x @ found.source).T @ (z @ found.target)
    assert torch.allclose(product, torch.diag(product.diagonal()), atol=1e-10) and product.diagonal().diff().max() <= 0


@pytest.fixture
def vocabularies(rotation):
    """600 words of a clustered vocabulary, and the same ones turned, with a little noise; in no order that helps."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(25, 8, generator=generator, dtype=torch.float64)
    x = centres[torch.randint(0, 25, (600,), generator=generator)] + 0.7 * torch.randn(600, 8, generator=generator).double()
    y = x @ rotation(8).T + 0.02 * torch.randn(600, 8, generator=generator).double()
    return x, y


def right(x, y, found):
    everything = Lexicon(torch.arange(len(x)).repeat(2, 1).T, len(x))
    return translation_precision(normalised(x) @ found.source, normalised(y) @ found.target, everything)["P@1"]


FAST = SelfLearning(patience=3, start=600, neighbourhood=5, chunk=256)


def test_supervised_and_semi_supervised(vocabularies):
    x, y = vocabularies
    pairs = torch.arange(300).repeat(2, 1).T
    assert right(x, y, vecmap(x, y, pairs=pairs)) > 95
    few = pairs[:10]
    assert right(x, y, vecmap(x, y, "semi_supervised", pairs=few, settings=FAST)) > 95


def test_identical_words(vocabularies):
    x, y = vocabularies
    words = [f"w{i}" for i in range(600)]
    others = [w if i % 20 == 0 else f"x{i}" for i, w in enumerate(words)]
    assert identical_pairs(words, others).tolist() == [[i, i] for i in range(0, 600, 20)]
    assert right(x, y, vecmap(x, y, "identical", words=(words, others), settings=FAST)) > 95


def test_unsupervised(vocabularies):
    x, y = vocabularies
    shuffled = torch.randperm(600, generator=torch.Generator().manual_seed(5))
    found = vecmap(x, y[shuffled], "unsupervised", settings=FAST)
    assert right(x, y, found) > 95
    first = unsupervised_pairs(normalised(x), normalised(y[shuffled]), 600, 5)
    assert len(first) == 1200 and (shuffled[first[:, 1]] == first[:, 0]).double().mean() > 0.5


def test_dictionaries_are_induced_by_csls(vocabularies):
    from modalign.zoo.metrics.maps import self_learning

    x, y = (normalised(v)[:200] for v in vocabularies)
    settings = SelfLearning(neighbourhood=4, chunk=64)
    found, value = self_learning._translate(x, y, 1.0, torch.Generator(), settings)
    assert torch.equal(found, translate(x, y, method="csls", k=4, count=1)[:, 0])
    assert not torch.equal(found, translate(x, y, method="nn", count=1)[:, 0])
    assert value == pytest.approx((x @ y.T).amax(1).mean().item()), "of the plain similarities"
    dropped, same = self_learning._translate(x, y, 0.1, torch.Generator().manual_seed(0), settings)
    assert 0 < (dropped == found).double().mean() < 0.5 and same == value


def test_self_learning_keeps_its_schedule(vocabularies, monkeypatch):
    """Keep is doubled after `patience` iterations without an improvement, and learning ends once it is 1 and stays so."""
    from modalign.zoo.metrics.maps import self_learning

    seen = []

    def translate(source, target, keep, generator, settings):
        seen.append(keep)
        return torch.zeros(len(source), dtype=torch.long), 0.5  # never better after the first time

    monkeypatch.setattr(self_learning, "_translate", translate)
    x, y = (normalised(v) for v in vocabularies)
    learn_dictionary(x, y, torch.arange(300).repeat(2, 1).T, SelfLearning(patience=50))
    kept = seen[::2]
    assert [round(k, 6) for k in dict.fromkeys(kept)] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert [kept.count(k) for k in dict.fromkeys(kept)] == [51, 51, 51, 51, 51]
    seen.clear()
    learn_dictionary(x, y, torch.arange(300).repeat(2, 1).T, SelfLearning(iterations=4))
    assert len(seen) == 8


def test_presets_say_what_they_lack(vocabularies):
    x, y = vocabularies
    for preset, message in (
        ("supervised", "needs a dictionary"),
        ("semi_supervised", "needs a dictionary"),
        ("identical", "spelt alike"),
    ):
        with pytest.raises(DataError, match=message):
            vecmap(x, y, preset)
    with pytest.raises(AssemblyError, match="did you mean 'supervised'"):
        vecmap(x, y, "supervise")
