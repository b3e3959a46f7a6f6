"""Instance norm of windows: masks, inverses, the official imputation's statistics, channels without anything to measure."""

import pytest
import torch

from modalign.zoo.encoders.series.instance_norm import InstanceNorm, series_statistics
from modalign.zoo.errors import AssemblyError


def windows(*shape, seed=3, dtype=torch.float64):
    return 5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 2


def mask(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4)) > 0.3


def test_statistics_are_biased_and_per_window_and_channel():
    x = windows(2, 7, 3)
    mean, std = series_statistics(x)
    for row in range(2):
        for channel in range(3):
            values = x[row, :, channel]
            assert mean[row, 0, channel] == pytest.approx(values.mean().item())
            assert std[row, 0, channel] == pytest.approx((values.var(correction=0).item() + 1e-5) ** 0.5)


def test_only_observed_entries_count_one_by_one():
    x, observed = windows(2, 9, 3), mask(2, 9, 3)
    normalised, (mean, std) = InstanceNorm()(torch.where(observed, x, 99.0), observed)
    for row in range(2):
        for channel in range(3):
            there = observed[row, :, channel]
            values = x[row, there, channel]
            assert mean[row, 0, channel] == pytest.approx(values.mean().item())
            assert std[row, 0, channel] == pytest.approx((values.var(correction=0).item() + 1e-5) ** 0.5)
            torch.testing.assert_close(normalised[row, there, channel], (values - mean[row, 0, channel]) / std[row, 0, channel])
            assert (normalised[row, ~there, channel] == 0).all()


def test_a_full_mask_is_no_mask():
    x = windows(2, 9, 3)
    torch.testing.assert_close(InstanceNorm()(x, torch.ones(2, 9, 3, dtype=torch.bool))[0], InstanceNorm()(x)[0])


def test_the_official_imputation_counts_what_is_missing_as_zero_in_the_mean():
    x, observed = windows(2, 9, 3), mask(2, 9, 3)
    mean, std = series_statistics(x * observed, observed, mean_over="all")
    row, channel = 1, 2
    there = observed[row, :, channel]
    by_hand = sum(x[row, t, channel].item() for t in range(9) if there[t]) / 9
    assert mean[row, 0, channel] == pytest.approx(by_hand)
    around = sum((x[row, t, channel].item() - by_hand) ** 2 for t in range(9) if there[t]) / int(there.sum())
    assert std[row, 0, channel] == pytest.approx((around + 1e-5) ** 0.5)


@pytest.mark.parametrize("mean_over", ["observed", "all"])
def test_a_constant_channel_and_one_never_observed_stay_finite(mean_over):
    x, observed = windows(1, 8, 3, dtype=torch.float32), torch.ones(1, 8, 3, dtype=torch.bool)
    x[..., 0], x[..., 1], observed[..., 1] = 3e6, 0.0, False
    norm = InstanceNorm(mean_over=mean_over)
    normalised, statistics = norm(x, observed)
    assert normalised.isfinite().all() and normalised[..., :2].abs().max() == 0
    back = norm.inverse(normalised, statistics)
    assert back.isfinite().all() and torch.equal(back[..., 0], x[..., 0])


@pytest.mark.parametrize("affine", ["none", "shared", "per_channel"])
def test_the_inverse_returns_the_window(affine):
    norm = InstanceNorm(affine=affine, channels=3).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(windows(*parameter.shape, seed=8))
    x = windows(2, 9, 3)
    normalised, statistics = norm(x)
    torch.testing.assert_close(norm.inverse(normalised, statistics), x)
    quantiles = torch.stack([normalised, 2 * normalised], -1)
    torch.testing.assert_close(norm.inverse(quantiles, statistics)[..., 1], norm.inverse(2 * normalised, statistics))
    assert sum(parameter.numel() for parameter in norm.parameters()) == {"none": 0, "shared": 2, "per_channel": 6}[affine]


def test_the_inverse_divides_by_the_weight_and_a_little():
    norm = InstanceNorm(affine="shared").double()
    with torch.no_grad():
        norm.weight.zero_()
    _, statistics = norm(windows(1, 4, 1))
    found = norm.inverse(torch.full((1, 2, 1), 1e-10, dtype=torch.float64), statistics)
    torch.testing.assert_close(found, (statistics.std + statistics.mean).expand(1, 2, 1))


def test_no_gradient_through_the_statistics():
    x = windows(1, 5, 1).requires_grad_()
    normalised, (mean, std) = InstanceNorm()(x)
    assert not mean.requires_grad and not std.requires_grad
    normalised.sum().backward()
    torch.testing.assert_close(x.grad, (1 / std).expand(1, 5, 1))


def test_statistics_of_half_precision_are_float32():
    mean, std = series_statistics(windows(1, 5, 1).bfloat16())
    assert mean.dtype == std.dtype == torch.float32


def test_per_channel_wants_a_number():
    with pytest.raises(AssemblyError, match="per_channel needs the number of channels"):
        InstanceNorm(affine="per_channel")
