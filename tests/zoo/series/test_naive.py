"""Forecasts without a model against loops, with and without missing values."""

import math

import pytest
import torch

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.series.naive import last_value, naive_forecasts, seasonal_naive, train_mean, window_mean
from modalign.zoo.series.window import check_window, filled

L, H, C = 23, 17, 3


@pytest.fixture
def window():
    generator = torch.Generator().manual_seed(0)
    values, observed = torch.randn(4, L, C, generator=generator), torch.rand(4, L, C, generator=generator) > 0.5
    observed[0, :, 0] = False  # nothing observed at all
    observed[1, :20, 1] = False  # nothing before the last steps
    observed[2, 5:, 2] = False  # nothing in the last steps
    return values, observed


def slow(window, values, observed, season):
    """(last value, mean, seasonal) of one channel by looking back step by step."""
    known = [i for i in range(L) if observed[i]]
    mean = sum(float(values[i]) for i in known) / len(known) if known else 0.0
    last = float(values[known[-1]]) if known else 0.0
    seasonal = []
    for h in range(H):
        place = L - season + h % season
        while place >= 0 and not observed[place]:
            place -= season
        seasonal.append(float(values[place]) if place >= 0 else mean)
    return last, mean, seasonal


@pytest.mark.parametrize("season", [1, 5, 7, 12, 23])
def test_against_loops(window, season):
    values, observed = window
    found = {
        "last": last_value(values, observed, H),
        "mean": window_mean(values, observed, H),
        "seasonal": seasonal_naive(values, observed, H, season),
    }
    for b in range(4):
        for c in range(C):
            last, mean, seasonal = slow(window, values[b, :, c], observed[b, :, c], season)
            for name, expected in (("last", [last] * H), ("mean", [mean] * H), ("seasonal", seasonal)):
                assert found[name][b, :, c].tolist() == pytest.approx(expected, abs=1e-5), (name, b, c)


def test_what_is_missing_is_never_read(window):
    values, observed = window
    spoiled = values.masked_fill(~observed, math.nan)
    for name, forecast in naive_forecasts(values, observed, H, [7]).items():
        assert torch.equal(forecast, naive_forecasts(spoiled.nan_to_num(1e9), observed, H, [7])[name]), name
    assert torch.equal(filled(values, observed), filled(values.masked_fill(~observed, 5e8), observed))


def test_everything_observed_is_the_same_as_no_mask(window):
    values, _ = window
    everything = torch.ones_like(values, dtype=torch.bool)
    for name, forecast in naive_forecasts(values, None, H, [5]).items():
        torch.testing.assert_close(forecast, naive_forecasts(values, everything, H, [5])[name])
        assert forecast.shape == (4, H, C)


def test_seasonal_naive_of_96_equals_that_of_512():
    values = torch.randn(2, 512, 2)
    for season in (24, 96):
        assert torch.equal(seasonal_naive(values, None, 200, season), seasonal_naive(values[:, -96:], None, 200, season))
    assert torch.equal(last_value(values, None, 5), last_value(values[:, -96:], None, 5))


def test_train_mean_is_zero_and_forecasts_are_their_own_memory(window):
    values, _ = window
    assert not train_mean(values, None, H).any()
    before = values.clone()
    for forecast in naive_forecasts(values, None, H, [5]).values():
        forecast += 1
    assert torch.equal(values, before)


def test_season_longer_than_the_window():
    with pytest.raises(DataError, match="a season of 24 steps must be from 1 to the 23"):
        seasonal_naive(torch.zeros(1, L, 1), None, H, 24)
    assert "seasonal_naive_24" not in naive_forecasts(torch.zeros(1, L, 1), None, H, [24])


def test_fill_carries_the_last_value_forward():
    values = torch.tensor([9.0, 1.0, 9.0, 9.0, 4.0, 9.0])[None, :, None]
    observed = torch.tensor([False, True, False, False, True, False])[None, :, None]
    assert filled(values, observed).flatten().tolist() == [2.5, 1, 1, 1, 4, 4]


def test_a_window_of_another_length_is_refused():
    with pytest.raises(AssemblyError, match=r"dlinear: the window has 5 steps, model.look_back is 7"):
        check_window(torch.zeros(1, 5, 2), 7, "dlinear")
    with pytest.raises(AssemblyError, match=r"shape \(7, 2\)"):
        check_window(torch.zeros(7, 2), 7, "dlinear")
