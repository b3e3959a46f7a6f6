"""Errors of forecasts against numpy: masks, units, quantiles, batches, ranks."""

import os

import numpy as np
import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.forecast import ForecastMetric

N, H, C, LEVELS = 13, 5, 3, [0.1, 0.5, 0.9]
MEAN, STD = torch.tensor([1.0, -20.0, 300.0]), torch.tensor([0.5, 2.0, 40.0])


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)
    target, prediction = (torch.randn(N, H, C, generator=generator) for _ in range(2))
    observed = torch.rand(N, H, C, generator=generator) > 0.3
    quantiles = torch.randn(N, H, C, 3, generator=generator).sort(-1).values
    return prediction, target, observed, quantiles


def collected(rows, batch, observed=True, **settings):
    prediction, target, mask, quantiles = rows
    metric = ForecastMetric(H, ["a", "b", "c"], MEAN, STD, LEVELS, **settings)
    for start in range(0, N, batch):
        part = slice(start, start + batch)
        metric.update(prediction[part], target[part], mask[part] if observed else None, quantiles[part])
    return metric


@pytest.mark.parametrize("masked", [True, False])
def test_against_numpy(masked):
    rows = made()
    f, y, m, q = (tensor.double().numpy() for tensor in rows)
    m = m.astype(bool) if masked else np.ones_like(m, dtype=bool)
    found = collected(rows, 4, masked).compute()
    assert found["mse"] == pytest.approx(((f - y) ** 2)[m].mean())
    assert found["mae"] == pytest.approx(np.abs(f - y)[m].mean())
    assert (found["windows"], found["elements"]) == (N, m.sum())
    for h in range(H):
        assert found["by_horizon"]["mse"][h] == pytest.approx(((f - y) ** 2)[:, h][m[:, h]].mean())
        assert found["by_horizon"]["mae"][h] == pytest.approx(np.abs(f - y)[:, h][m[:, h]].mean())
    for c, name in enumerate("abc"):
        assert found["by_channel"][name]["mse"] == pytest.approx(((f - y) ** 2)[..., c][m[..., c]].mean())
    own_f, own_y = f * STD.numpy() + MEAN.numpy(), y * STD.numpy() + MEAN.numpy()
    assert found["original"]["mse"] == pytest.approx(((own_f - own_y) ** 2)[m].mean())
    assert found["original"]["mae"] == pytest.approx(np.abs(own_f - own_y)[m].mean())
    assert found["original"]["by_horizon"]["mae"][2] == pytest.approx(np.abs(own_f - own_y)[:, 2][m[:, 2]].mean())
    assert found["original"]["by_channel"]["c"]["mae"] == pytest.approx(np.abs(own_f - own_y)[..., 2][m[..., 2]].mean())
    own_q = q * STD.numpy()[:, None] + MEAN.numpy()[:, None]
    for truth, guess, part in ((y, q, found), (own_y, own_q, found["original"])):
        losses = [
            np.where(truth >= guess[..., i], p * (truth - guess[..., i]), (1 - p) * (guess[..., i] - truth))
            for i, p in enumerate(LEVELS)
        ]
        assert part["pinball"] == pytest.approx(np.mean([loss[m].mean() for loss in losses]))
        assert part["wql"] == pytest.approx(np.mean([2 * loss[m].sum() / np.abs(truth[m]).sum() for loss in losses]))
    for i, p in enumerate(LEVELS):
        assert found["coverage"][f"{p:g}"] == pytest.approx((y <= q[..., i])[m].mean())


@pytest.mark.parametrize("batch", [1, 4, 13])
def test_batches_do_not_matter(batch):
    rows = made()
    one, other = collected(rows, batch).compute(), collected(rows, 5).compute()
    assert one["mse"] == pytest.approx(other["mse"], rel=1e-13) and one["wql"] == pytest.approx(other["wql"], rel=1e-13)


def test_masked_entries_are_not_read():
    prediction, target, observed, quantiles = made()
    whole = collected((prediction, target, observed, quantiles), 4).compute()
    spoiled = collected((prediction, target.masked_fill(~observed, torch.nan), observed, quantiles), 4).compute()
    assert spoiled == whole


def test_merging_is_collecting_together():
    rows = made()
    second = ForecastMetric(H, ["a", "b", "c"], MEAN, STD, LEVELS)
    prediction, target, observed, quantiles = rows
    second.update(prediction[6:], target[6:], observed[6:], quantiles[6:])
    first = ForecastMetric(H, ["a", "b", "c"], MEAN, STD, LEVELS)
    first.update(prediction[:6], target[:6], observed[:6], quantiles[:6])
    first.merge(second)
    assert first.compute()["mse"] == pytest.approx(collected(rows, 13).compute()["mse"], rel=1e-13)


def rank_result(rank, world):
    prediction, target, observed, quantiles = made()
    metric = ForecastMetric(H, ["a", "b", "c"], MEAN, STD, LEVELS)
    mine = slice(rank, None, world)
    metric.update(prediction[mine], target[mine], observed[mine], quantiles[mine])
    metric.merge_ranks()
    found = metric.compute()
    return {"mse": found["mse"], "wql": found["wql"], "windows": found["windows"], "pid": os.getpid()}


def test_two_ranks_give_what_one_gives(ranks):
    results = ranks(2).run(__file__, "rank_result")
    alone = collected(made(), 13).compute()
    assert len({result["pid"] for result in results}) == 2
    for result in results:
        assert result["windows"] == N
        assert result["mse"] == pytest.approx(alone["mse"], rel=1e-12) and result["wql"] == pytest.approx(alone["wql"], rel=1e-12)


def test_without_scaler_or_quantiles():
    prediction, target, *_ = made()
    metric = ForecastMetric(H, ["a", "b", "c"])
    metric.update(prediction, target)
    assert not {"original", "wql", "coverage", "pinball"} & set(metric.compute())


def test_a_channel_never_observed_is_none():
    prediction, target, observed, _ = made()
    observed[..., 1] = False
    metric = ForecastMetric(H, ["a", "b", "c"])
    metric.update(prediction, target, observed)
    assert metric.compute()["by_channel"]["b"] == {"mse": None, "mae": None}


def test_errors():
    prediction, target, _, quantiles = made()
    metric = ForecastMetric(H, ["a", "b", "c"], levels=LEVELS)
    with pytest.raises(DataError, match="no observed value"):
        metric.compute()
    with pytest.raises(AssemblyError, match=r"\(batch, 5, 3\)"):
        metric.update(prediction[:, :4], target[:, :4])
    with pytest.raises(AssemblyError, match=r"quantiles must be \(13, 5, 3, 3\), got none"):
        metric.update(prediction, target)
    bad = prediction.clone()
    bad[2, 1, 1] = torch.nan
    with pytest.raises(DataError, match="the forecast of window 3, step 2, channel 'b' is not finite"):
        metric.update(bad, target, None, quantiles)
    bad = target.clone()
    bad[0, 0, 2] = torch.inf
    with pytest.raises(DataError, match=r"the target of window .* channel 'c' is not finite"):
        metric.update(prediction, bad, None, quantiles)
    with pytest.raises(AssemblyError, match="std must have one number for each of 2 channels"):
        ForecastMetric(H, ["a", "b"], torch.zeros(2), torch.ones(3))
    with pytest.raises(AssemblyError, match="with the other"):
        ForecastMetric(H, ["a", "b"], std=torch.ones(2))
