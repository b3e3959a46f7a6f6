"""M4's measures against numpy and by hand."""

import numpy as np
import pytest
import torch

from modalign.zoo.errors import DataError
from modalign.zoo.metrics.m4 import mase, mase_scale, owa, smape, subset_scores


def series(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, n, generator=generator) + 3 for n in (6, 6, 20)], torch.rand(4, 6, generator=generator) > 0.3


def test_against_numpy():
    (f, y, history), mask = series()
    for observed in (None, mask):
        m = np.ones((4, 6), bool) if observed is None else mask.numpy()
        a, b, x = f.double().numpy(), y.double().numpy(), history.double().numpy()
        for i in range(4):
            expected = np.mean([200 * abs(p - t) / (abs(p) + abs(t)) for p, t, k in zip(a[i], b[i], m[i], strict=True) if k])
            assert smape(f, y, observed)[i].item() == pytest.approx(expected)
            for season in (1, 4):
                scale = np.mean([abs(x[i, t] - x[i, t - season]) for t in range(season, 20)])
                assert mase_scale(history, season)[i].item() == pytest.approx(scale)
                expected = np.mean(np.abs(a[i] - b[i])[m[i]]) / scale
                assert mase(f, y, mase_scale(history, season), observed)[i].item() == pytest.approx(expected)


def test_known_values():
    y = torch.tensor([[1.0, 2.0, 0.0]])
    assert smape(y, y).item() == 0
    assert smape(torch.zeros(1, 2), y[:, :2]).item() == 200
    assert owa(10, 2, 10, 2) == 1 and owa(5, 1, 10, 2) == 0.5


def test_padded_histories_count_only_their_own_steps():
    history = torch.tensor([[9.0, 9.0, 1.0, 3.0, 4.0]])
    observed = torch.tensor([[False, False, True, True, True]])
    assert mase_scale(history, 1, observed).item() == pytest.approx(1.5)
    assert mase_scale(history, 2, observed).item() == pytest.approx(3.0)


def test_constant_history_has_no_mase():
    assert mase(torch.zeros(1, 2), torch.ones(1, 2), mase_scale(torch.ones(1, 5), 1)).isnan().all()
    with pytest.raises(DataError, match="longer than a season of 5"):
        mase_scale(torch.ones(1, 5), 5)


def test_groups():
    scores = {"Yearly": [1.0, 3.0], "Weekly": [10.0], "Daily": [20.0, 30.0], "Hourly": [float("nan")]}
    found = subset_scores({name: torch.tensor(values) for name, values in scores.items()})
    assert found == {"Yearly": 2.0, "Others": 20.0, "Average": pytest.approx(64 / 5)}
    with pytest.raises(DataError, match="no subset 'Secondly'"):
        subset_scores({"Secondly": torch.ones(1)})
    with pytest.raises(DataError, match="no series has a score"):
        subset_scores({"Yearly": torch.tensor([float("nan")])})
