"""Losses of time series: every distance against loops, masks, both means, layers, quantiles, labels."""

import math

import pytest
import torch

from modalign.zoo.errors import AssemblyError
from modalign.zoo.losses.label_cross_entropy import LabelCrossEntropy
from modalign.zoo.losses.layerwise_alignment import LayerwiseAlignment, layerwise_alignment
from modalign.zoo.losses.output_consistency import OutputConsistency
from modalign.zoo.losses.parts.series_distance import series_distance
from modalign.zoo.losses.pinball import Pinball, pinball
from modalign.zoo.losses.series_error import SeriesError

KINDS = ["l1", "smooth_l1", "mse", "smape", "mape", "mase"]
B, L, H, C = 3, 9, 4, 2


def draw(*shape, seed=1, shift=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + shift


def kept(seed=5):
    mask = torch.rand(B, H, C, generator=torch.Generator().manual_seed(seed)) > 0.4
    assert mask.any() and not mask.all()
    return mask


def one_term(f, y, kind, scale):
    error = abs(f - y)
    if kind == "mse":
        return error**2
    if kind == "smooth_l1":
        return 0.5 * error**2 if error < 1 else error - 0.5
    if kind == "smape":
        return 0.0 if f == y == 0 else 200 * error / (abs(f) + abs(y))
    if kind == "mape":
        return 0.0 if y == 0 else error / abs(y)
    return error / scale if kind == "mase" and scale else error if kind != "mase" else 0.0


def by_loops(first, second, kind, mask, mean_over, past, season):
    total, count = 0.0, 0
    for b in range(B):
        for c in range(C):
            steps = [abs(past[b, t, c] - past[b, t - season, c]).item() for t in range(season, L)]
            scale = sum(steps) / len(steps)
            for h in range(H):
                if mask is None or mask[b, h, c]:
                    total += one_term(first[b, h, c].item(), second[b, h, c].item(), kind, scale)
                    count += 1
    return total / (B * H * C if mean_over == "all" or mask is None else max(count, 1))


@pytest.mark.parametrize("mean_over", ["kept", "all"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_series_error_equals_loops(kind, masked, mean_over):
    prediction, target, past = draw(B, H, C), draw(B, H, C, seed=2), draw(B, L, C + 1, seed=3)
    mask = kept() if masked else None
    outputs = {"prediction": prediction.clone().requires_grad_()}
    batch = {"target": target, "values": past} | ({} if mask is None else {"target_observed": mask})
    found = SeriesError(kind, mean_over=mean_over, seasonality=3)(outputs, batch)
    assert found.value.item() == pytest.approx(by_loops(prediction, target, kind, mask, mean_over, past, 3), rel=1e-9)
    assert found.metrics["mse"].item() == pytest.approx(by_loops(prediction, target, "mse", mask, "kept", past, 3), rel=1e-9)
    found.value.backward()
    grad = outputs["prediction"].grad
    assert grad.abs().max() > 0 and (mask is None or (grad[~mask] == 0).all())
    both = OutputConsistency(distance=kind, mean_over=mean_over, seasonality=3)
    again = both({"prediction": prediction, "text_prediction": target}, batch).value
    assert again.item() == pytest.approx(found.value.item(), rel=1e-12)


def test_the_two_means_differ_by_the_share_that_is_kept():
    first, second, mask = draw(B, H, C), draw(B, H, C, seed=2), kept()
    share = mask.double().mean().item()
    ratio = series_distance(first, second, mask=mask, mean_over="all") / series_distance(first, second, mask=mask)
    assert ratio.item() == pytest.approx(share)


def test_known_values_of_smape():
    """0 for a perfect forecast, 200 for zero against anything positive, and 0 / 0 counts as 0."""
    y = draw(B, H, C).abs() + 1
    assert series_distance(y, y, "smape").item() == 0
    assert series_distance(torch.zeros_like(y), y, "smape").item() == pytest.approx(200)
    mask = torch.zeros_like(y, dtype=torch.bool)
    mask[0, 0, 0] = True
    found = series_distance(torch.zeros_like(y), y, "smape", mask=mask, mean_over="all")
    assert found.item() == pytest.approx(200 / y.numel())
    zeros = torch.zeros(1, 2, 1, requires_grad=True)
    value = series_distance(zeros, torch.tensor([[[0.0], [1.0]]]), "smape")
    value.backward()
    assert value.item() == pytest.approx(100) and zeros.grad.isfinite().all()


def test_the_denominators_of_smape_carry_no_gradient():
    f = torch.tensor([[[3.0]]], requires_grad=True)
    series_distance(f, torch.tensor([[[1.0]]]), "smape").backward()
    assert f.grad.item() == pytest.approx(200 / 4)  # with the denominator's share it would be 200 · 2 · 1 / 16


@pytest.mark.parametrize("kind", ["mape", "mase"])
def test_a_scale_of_zero_counts_as_nothing(kind):
    f = torch.ones(1, 2, 2, requires_grad=True)
    y, past = torch.zeros(1, 2, 2), torch.zeros(1, 5, 2)
    y[..., 1], past[:, 1::2, 1] = 2.0, 4.0  # the first channel has no scale
    value = series_distance(f, y, kind, insample=past)
    value.backward()
    assert value.item() == pytest.approx({"mape": 0.25, "mase": 0.125}[kind])
    assert f.grad.isfinite().all() and (f.grad[..., 0] == 0).all()


@pytest.mark.parametrize("mean_over", ["kept", "all"])
def test_the_scale_of_mase_leaves_out_what_is_missing(mean_over):
    """A pair needs both its values; the reference reads what stands at missing places, zeros of a padding. A covariate has no say."""
    f, y, past = draw(B, H, C), draw(B, H, C, seed=2), draw(B, L, C + 1, seed=3)
    there = torch.rand(B, L, C + 1, generator=torch.Generator().manual_seed(6)) > 0.3
    there[0, :, 0] = False  # no pair at all: no scale, so that nothing of it counts
    past = past * there
    total = 0.0
    for b in range(B):
        for c in range(C):
            pairs = [t for t in range(2, L) if mean_over == "all" or (there[b, t, c] and there[b, t - 2, c])]
            steps = [abs(past[b, t, c] - past[b, t - 2, c]).item() for t in pairs]
            scale = sum(steps) / len(steps) if steps else 0.0
            total += sum(abs(f[b, h, c] - y[b, h, c]).item() / scale for h in range(H)) if scale else 0.0
    batch = {"target": y, "values": past, "observed": there}
    error = SeriesError("mase", mean_over=mean_over, seasonality=2)({"prediction": f}, batch).value
    both = OutputConsistency(distance="mase", mean_over=mean_over, seasonality=2)({"prediction": f, "text_prediction": y}, batch)
    assert error.item() == pytest.approx(total / (B * H * C), rel=1e-9) == both.value.item()
    other = SeriesError("mase", seasonality=2, insample_mask=None)({"prediction": f}, batch).value
    assert (other.item() == pytest.approx(error.item())) is (mean_over == "all")


def test_mase_without_a_season_in_the_look_back():
    with pytest.raises(AssemblyError, match=r"9 steps; lower seasonality"):
        series_distance(draw(B, H, C), draw(B, H, C), "mase", insample=draw(B, L, C), seasonality=9)
    with pytest.raises(AssemblyError, match="none was given"):
        series_distance(draw(B, H, C), draw(B, H, C), "mase")


def test_other_shapes_are_refused_not_broadcast():
    zeros, one_step = torch.zeros(2, 4, 3), torch.ones(2, 1, 3)
    for kind in KINDS:
        with pytest.raises(AssemblyError, match=r"shape \(2, 4, 3\) is compared with another of shape \(2, 1, 3\); both must"):
            series_distance(zeros, one_step, kind, insample=torch.zeros(2, L, 3))
    with pytest.raises(AssemblyError, match=r"\(2, 4, 3\).*a mask of shape \(2, 4, 1\)"):
        series_distance(zeros, zeros, mask=torch.ones(2, 4, 1, dtype=torch.bool))
    for loss, outputs, batch in (
        (SeriesError(), {"prediction": zeros}, {"target": one_step}),
        (OutputConsistency(), {"prediction": zeros, "text_prediction": one_step}, {}),
    ):
        with pytest.raises(AssemblyError, match=r"\(2, 4, 3\).*\(2, 1, 3\)"):
            loss(outputs, batch)


def test_nothing_that_counts_is_zero_with_a_graph():
    f = draw(B, H, C).requires_grad_()
    value = series_distance(f, draw(B, H, C, seed=2), mask=torch.zeros(B, H, C, dtype=torch.bool))
    value.backward()
    assert value.item() == 0 and (f.grad == 0).all()


def test_what_mask_reads():
    outputs, mask = {"prediction": draw(B, H, C)}, kept()
    batch = {"target": draw(B, H, C, seed=2), "target_observed": mask}
    plain = SeriesError(mask=None)(outputs, batch).value
    assert plain.item() == pytest.approx((outputs["prediction"] - batch["target"]).abs().mean().item())
    assert SeriesError()(outputs, batch).value.item() != pytest.approx(plain.item())
    assert SeriesError().inputs() == {"prediction", "target"}
    assert SeriesError("mase").inputs() == {"prediction", "target", "values"}
    assert OutputConsistency().inputs() == {"prediction", "text_prediction"}


@pytest.mark.parametrize("distance", ["l1", "smooth_l1", "mse"])
def test_layers_by_loops(distance):
    first, second = draw(B, 4, C, 6), draw(B, 4, C, 6, seed=2)
    wanted = 0.0
    for layer in range(4):
        terms = [
            one_term(a, b, distance, 1.0) for a, b in zip(first[:, layer].flatten().tolist(), second[:, layer].flatten().tolist())
        ]
        wanted += 0.8 ** (3 - layer) * sum(terms) / len(terms)
    found = LayerwiseAlignment(distance=distance)({"series_layers": first, "text_layers": second}, {})
    assert found.value.item() == pytest.approx(wanted, rel=1e-9)
    cosine = torch.cosine_similarity(first[:, -1], second[:, -1], dim=-1).mean().item()
    assert found.metrics["last_layer_cosine"].item() == pytest.approx(cosine, rel=1e-5)


def test_the_same_distance_at_every_layer():
    """c (1 - 0.8^(N + 1)) / 0.2, which is 3.951424 c for N = 6."""
    first = draw(2, 7, 3, 5)
    found = layerwise_alignment(first, first + 0.3, distance="l1").item()
    assert found == pytest.approx(0.3 * (1 - 0.8**7) / 0.2) == pytest.approx(0.3 * 3.951424)
    assert layerwise_alignment(first, first + 0.3, distance="l1", gamma=1.0).item() == pytest.approx(0.3 * 7)


def test_gradient_of_layers_flows_into_both():
    first, second = draw(B, 4, C, 6).requires_grad_(), draw(B, 4, C, 6, seed=2).requires_grad_()
    layerwise_alignment(first, second).backward()
    assert torch.equal(first.grad, -second.grad) and first.grad.abs().max() > 0


def test_pinball_by_loops():
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    quantiles, target, mask = draw(B, H, C, 3), draw(B, H, C, seed=2), kept()
    for chosen in (None, mask):
        total, count = 0.0, 0
        for b in range(B):
            for h in range(H):
                for c in range(C):
                    if chosen is None or chosen[b, h, c]:
                        errors = [(target[b, h, c] - quantiles[b, h, c, q]).item() for q in range(3)]
                        total += sum(max(q * e, (q - 1) * e) for q, e in zip((0.1, 0.5, 0.9), errors)) / 3
                        count += 1
        assert pinball(quantiles, target, levels, mask=chosen).item() == pytest.approx(total / count, rel=1e-9)
    entries = {"quantiles": quantiles, "quantile_levels": levels, "target": target, "target_observed": mask}
    assert Pinball()({}, entries).value.item() == pytest.approx(total / count)
    below = (target <= quantiles[..., -1])[mask].double().mean().item()
    assert Pinball()({}, entries).metrics["below_highest"].item() == pytest.approx(below)


def test_pinball_is_least_at_the_quantile():
    """The minimum over a constant forecast of 0 … 100 at level q is 100 q."""
    target = torch.arange(101.0).view(-1, 1, 1)
    for level in (0.1, 0.5, 0.9):
        values = [pinball(torch.full((101, 1, 1, 1), float(f)), target, torch.tensor([level])).item() for f in range(101)]
        assert values.index(min(values)) == round(100 * level)
    half = pinball(target[..., None] + 2, target, torch.tensor([0.5])).item()
    assert half == pytest.approx(1.0)  # half the l1 error


def test_label_cross_entropy():
    logits, label = draw(5, 4), torch.tensor([0, 3, 1, 1, 2])
    found = LabelCrossEntropy()({"logits": logits}, {"label": label})
    wanted = 0.0
    for row, y in zip(logits.tolist(), label.tolist()):
        wanted -= row[y] - math.log(sum(math.exp(value) for value in row))
    assert found.value.item() == pytest.approx(wanted / 5)
    right = sum(max(range(4), key=row.__getitem__) == y for row, y in zip(logits.tolist(), label.tolist()))
    assert found.metrics["accuracy"].item() == pytest.approx(right / 5)
