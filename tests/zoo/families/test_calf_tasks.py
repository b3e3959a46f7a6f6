"""Classification and short series against a second, slow version; covariates, missing values, quantiles."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modalign.trainers.objective import Objective
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.series.description import SeriesDescription

from . import calf_slow as slow
from .calf_reference import GPT2, calf

CLOSE = {"rtol": 1e-5, "atol": 3e-5}


def perturbed(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.both_branches = True
    return model


def draw(*shape, seed=7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def feature_loss(w, states, distance):
    """Σ 0.8^(N - i) of the mean smooth L1 between mapped states; states (B, 2, N + 1, C, D)."""
    total, layers = 0.0, states.shape[2]
    for number in range(layers):
        first = states[:, 0, number] @ w[f"series_features.{number}.weight"].T
        second = states[:, 1, number] @ w[f"text_features.{number}.weight"].T
        total += 0.8 ** (layers - 1 - number) * distance(np.abs(first - second)).mean()
    return total


def smooth(error):
    return np.where(error < 1, 0.5 * error**2, error - 0.5)


def test_classification_equals_the_slow_version():
    labels = SeriesDescription(target=["a", "b", "c"], labels=["x", "y", "z", "u"])
    model = calf(task="classification")
    model.describe(labels)
    perturbed(model)
    batch = {"values": draw(5, 32, 3), "label": torch.tensor([0, 3, 1, 1, 2])}
    found = model(batch)
    w = slow.weights_of(model)
    states = np.array([slow.branches(w, sample.T, 4, 2, 2.0) for sample in batch["values"].double().numpy()])
    logits = [slow.linear(states[:, side, -1].reshape(5, -1), w["head.linear.weight"], w["head.linear.bias"]) for side in (0, 1)]
    torch.testing.assert_close(found["logits"].double(), torch.as_tensor(logits[0]), **CLOSE)
    torch.testing.assert_close(found["text_logits"].double(), torch.as_tensor(logits[1]), **CLOSE)
    total, metrics = Objective(
        {
            "task": {"loss": "label_cross_entropy", "weight": 1.0},
            "output": {"loss": "output_consistency", "first": "logits", "second": "text_logits", "weight": 1.0},
            "feature": {"loss": "layerwise_alignment", "weight": 0.01},
        }
    )(found, batch)
    chances = slow.softmax(logits[0])
    wanted = -np.log(chances[np.arange(5), batch["label"].numpy()]).mean() + np.abs(logits[0] - logits[1]).mean()
    wanted += 0.01 * feature_loss(w, states, smooth)
    assert total.item() == pytest.approx(wanted, rel=1e-5)
    assert "prediction" not in found and metrics["loss/task"].isfinite()


def m4_batch():
    """Levels around 100, 2H = 12 values back padded with zeros on the left, up to 6 after it."""
    values, target = 100 + 10 * draw(3, 12, 1), 100 + 10 * draw(3, 6, 1, seed=8)
    kept, there = torch.ones(3, 6, 1, dtype=torch.bool), torch.ones(3, 12, 1, dtype=torch.bool)
    kept[1, 4:], there[2, :5] = False, False
    return {"values": values * there, "target": target * kept, "target_observed": kept, "observed": there}


def m4_objective(mean_over):
    common = {"mean_over": mean_over, "seasonality": 4}
    return Objective(
        {
            "task": {"loss": "series_error", "kind": "smape", "weight": 1.0, **common},
            "output": {"loss": "output_consistency", "distance": "mase", "weight": 1.0, **common},
            "feature": {"loss": "layerwise_alignment", "distance": "smooth_l1", "weight": 0.01},
        }
    )


@pytest.mark.parametrize("strict", [True, False])
def test_short_series_equal_the_slow_version(strict):
    """Strict: zeros of the padding enter the statistics and MASE's scale, and masked terms stay in the mean's denominator."""
    model = perturbed(calf(task="short_term", look_back=12, horizon=6, strict_reference=strict, last_feature_with_residual=True))
    batch = m4_batch()
    found = model(batch)
    w = slow.weights_of(model)
    x, y, mask = (batch[key].double().numpy()[..., 0] for key in ("values", "target", "target_observed"))
    there = np.ones_like(x) if strict else batch["observed"].double().numpy()[..., 0]
    predictions, states = np.zeros((2, 3, 6)), []
    for row in range(3):
        used = x[row][there[row] > 0]
        mean, std = used.mean(), np.sqrt(used.var() + 1e-5)
        states.append(slow.branches(w, np.where(there[row] > 0, (x[row] - mean) / std, 0)[None], 4, 2, 2.0))
        for side in (0, 1):
            predicted = slow.linear(states[-1][side][-1], w["head.linear.weight"], w["head.linear.bias"])[0]
            predictions[side, row] = predicted * std + mean
    for side, name in enumerate(("prediction", "text_prediction")):
        torch.testing.assert_close(found[name].double()[..., 0], torch.as_tensor(predictions[side]), rtol=1e-5, atol=1e-4)
    count = mask.size if strict else mask.sum()
    smape = (200 * np.abs(predictions[0] - y) / (np.abs(predictions[0]) + np.abs(y)) * mask).sum() / count
    scale = np.zeros((3, 1))
    for row in range(3):
        pairs = [abs(x[row, t] - x[row, t - 4]) for t in range(4, 12) if there[row, t] and there[row, t - 4]]
        scale[row] = sum(pairs) / len(pairs)
    mase = (np.abs(predictions[0] - predictions[1]) * mask / scale).sum() / count
    wanted = smape + mase + 0.01 * feature_loss(w, np.array(states), smooth)
    total, _ = m4_objective("all" if strict else "kept")(found, batch)
    assert total.item() == pytest.approx(wanted, rel=1e-5)


def test_padding_changes_nothing_unless_strict():
    batch = m4_batch()
    garbage = batch | {"values": torch.where(batch["observed"], batch["values"], 55.0)}
    clean = calf(task="short_term", look_back=12, horizon=6, strict_reference=False)
    assert torch.equal(clean(batch)["prediction"], clean(garbage)["prediction"])
    clean.both_branches = True
    found = clean(batch)
    assert m4_objective("kept")(found, batch)[0] == m4_objective("kept")(found, garbage)[0], "nor is it in the losses"
    assert m4_objective("all")(found, batch)[0] != m4_objective("all")(found, garbage)[0]
    strict = calf(task="short_term", look_back=12, horizon=6)
    assert (strict(batch)["prediction"] - strict(garbage)["prediction"]).abs().max() > 1


def test_imputation_reads_nothing_of_what_is_missing():
    model = calf(task="imputation", strict_reference=False)
    values, observed = draw(2, 32, 3), draw(2, 32, 3, seed=9) > -0.5
    found = model({"values": values * observed, "observed": observed})["prediction"]
    assert found.shape == (2, 32, 3)
    assert torch.equal(found, model({"values": torch.where(observed, values, 1e4), "observed": observed})["prediction"])


def test_a_constant_channel_and_one_without_a_value_stay_finite():
    model = calf()
    values, observed = draw(2, 32, 3), torch.ones(2, 32, 3, dtype=torch.bool)
    values[..., 0], observed[..., 1] = 1234.5, False
    found = model({"values": values, "observed": observed})["prediction"]
    assert found.isfinite().all()
    assert (found[..., 0] - 1234.5).abs().max() < 0.1


def test_past_covariates_are_tokens_before_the_targets():
    model = calf(series={"target": ["a", "b"], "past": ["p"]})
    values = draw(2, 32, 3)
    plain = model({"values": values})["prediction"]
    assert plain.shape == (2, 16, 2)
    changed = values.clone()
    changed[..., 2] = draw(2, 32, seed=9)
    moved = model({"values": changed})["prediction"]
    assert ((moved - plain).abs().amax((0, 1)) > 1e-3).all()  # both targets see it, the first one too
    z, _ = model.norm(values)
    tokens = model.tokens(z, 2)
    assert torch.allclose(model.tokens(z[..., [2, 0, 1]], 3), tokens, atol=1e-6)  # the order of tokens is p, a, b


def test_targets_behind_a_covariate_equal_the_slow_version():
    """Tokens are p, a, b; the head reads the last two, and each goes back to its own level and scale."""
    model = perturbed(calf(series={"target": ["a", "b"], "past": ["p"]}))
    values = draw(2, 32, 3) * torch.tensor([1.0, 10.0, 100.0]) + torch.tensor([5.0, -50.0, 500.0])
    found = model({"values": values})["prediction"]
    w = slow.weights_of(model)
    for row, x in enumerate(values.double().numpy()):
        mean, std = x.mean(0), np.sqrt(x.var(0) + 1e-5)
        states, _ = slow.branches(w, ((x - mean) / std).T[[2, 0, 1]], 4, 2, 2.0)
        predicted = slow.linear(states[-1][1:], w["head.linear.weight"], w["head.linear.bias"]).T * std[:2] + mean[:2]
        torch.testing.assert_close(found[row].double(), torch.as_tensor(predicted), rtol=1e-5, atol=3e-4)


def test_known_future_covariates():
    described = SeriesDescription(target=["a", "b"], known=["k", "m"])
    model = calf()
    before = {name for name, _ in model.named_parameters()}
    model.describe(described)
    assert {name for name, _ in model.named_parameters()} - before == {"tokens.known.weight", "tokens.known.bias"}
    assert model.role_of("tokens.known.weight") == "encoder"
    values, known = draw(2, 32, 2), draw(2, 48, 2, seed=9)
    plain = model({"values": values, "known": known})["prediction"]
    future = known.clone()
    future[:, 40:] += 1
    assert plain.shape == (2, 16, 2)
    assert ((model({"values": values, "known": future})["prediction"] - plain).abs().amax((0, 1)) > 1e-4).all()
    with pytest.raises(AssemblyError, match=r"known-future columns \(k, m\).*give them"):
        model({"values": values})
    with pytest.raises(AssemblyError, match="covariates of 32 steps were given, the model takes 48 steps"):
        model({"values": values, "known": known[:, :32]})
    with pytest.raises(AssemblyError, match="trained with known-future columns"):
        model.describe(SeriesDescription(target=["a", "b"]))
    with pytest.raises(AssemblyError, match="imputation has no future; take k out"):
        calf(task="imputation").describe(described)


SIZED = SeriesDescription(target=["a", "b"], static=["s", "t"], static_scale={"s": [1e9, 1e8], "t": [0.0, 1e-3]})


def test_static_numbers_are_one_token_in_front():
    model = calf()
    before, plain = {name for name, _ in model.named_parameters()}, model.state_dict()
    model.describe(SIZED)
    assert {name for name, _ in model.named_parameters()} - before == {"tokens.static.weight", "tokens.static.bias"}
    assert model.role_of("tokens.static.weight") == "encoder" and all(
        torch.equal(model.state_dict()[k], v) for k, v in plain.items()
    )
    model, values = perturbed(model).eval(), draw(3, 32, 2)
    static = torch.tensor([[1e9, 0.0], [1.1e9, 0.0], [1e9, 1e-3]])
    with torch.no_grad():
        same = model({"values": values[:1].expand(3, -1, -1), "static": static})["prediction"]
        seen = model.tokens(values, 2, None, SIZED.scaled_static(static))
    assert seen.shape[1] == 3 and (same[1] - same[0]).abs().max() > 1e-4 < (same[2] - same[0]).abs().max()
    assert same.abs().max() < 100, "numbers of any size count as ones near 1"
    torch.testing.assert_close(SIZED.scaled_static(static), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    with pytest.raises(AssemblyError, match=r"needs the static numbers of every series \(s, t\); give them"):
        model({"values": values})
    with pytest.raises(AssemblyError, match="1 static numbers were given, the model takes 2"):
        model.tokens(values, 2, None, static[:, :1])


def test_static_numbers_that_do_not_fit():
    with pytest.raises(AssemblyError, match="trained with 2 static numbers, these data name 0"):
        described = calf()
        described.describe(SIZED)
        described.describe(SeriesDescription(target=["a", "b"]))
    with pytest.raises(
        AssemblyError, match=r"data\.series\.static: s is 34 in every training series, so there is nothing to learn"
    ):
        calf().describe(SeriesDescription(target=["a"], static=["s"], static_scale={"s": [34.0, 0.0]}))
    for task in ("imputation", "anomaly", "classification"):
        with pytest.raises(AssemblyError, match=f"{task} makes no use of static numbers; take s out"):
            calf(task=task).describe(replace(SIZED, labels=["x", "y"]))
    wide = SeriesDescription(target=[f"c{number}" for number in range(GPT2["n_positions"])], static=["s"])
    with pytest.raises(AssemblyError, match="positions"):
        calf(language={"name": None, "architecture": GPT2, "blocks": 1}).describe(wide)


def test_static_numbers_stay_scaled_as_they_were_trained():
    """On other data, of one series or of larger ones, the same number means the same."""
    model = calf()
    model.describe(SIZED)
    model.describe(replace(SIZED, target=["c"], static_scale={"s": [5.0, 0.0], "t": [5.0, 1.0]}))
    assert model.config.series.target == ["c"] and model.config.series.static_scale == SIZED.static_scale


def test_quantiles_never_cross_and_the_median_is_the_prediction():
    model = perturbed(calf(head="quantile", quantiles=[0.1, 0.5, 0.8]))
    batch = {"values": draw(4, 32, 3), "target": draw(4, 16, 3)}
    found = model(batch)
    assert found["quantiles"].shape == (4, 16, 3, 3)
    assert (found["quantiles"].diff(dim=-1) >= 0).all() and (found["quantiles"].diff(dim=-1) > 0).any()
    assert torch.equal(found["prediction"], found["quantiles"][..., 1])
    assert torch.allclose(found["quantile_levels"], torch.tensor([0.1, 0.5, 0.8]))
    assert found["text_prediction"].shape == (4, 16, 3)
    total, _ = Objective({"q": {"loss": "pinball", "weight": 1.0}})(found, batch)
    total.backward()
    assert model.head.linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize("levels", [[0.1, 0.9], [0.5, 0.1], [0.5, 1.0], [0.5, 0.5]])
def test_levels_that_are_none(levels):
    with pytest.raises(RecipeError, match=r"model\.quantiles"):
        calf(head="quantile", quantiles=levels)


def test_bfloat16_keeps_level_and_scale():
    """Under autocast the statistics and the way back stay in float32: a level of 10,000 is not rounded to 32."""
    model, values = calf(), draw(2, 32, 3) + 10_000
    with torch.autocast("cpu", torch.bfloat16):
        found = model({"values": values})["prediction"]
    assert found.dtype == torch.float32
    assert (found - model({"values": values})["prediction"]).abs().max() < 0.1


def test_classification_wants_to_know_its_data():
    model = calf(task="classification")
    with pytest.raises(AssemblyError, match="describe the data to it first"):
        model({"values": draw(1, 32, 2)})
    with pytest.raises(AssemblyError, match="two classes or more, the data have 0"):
        model.describe(SeriesDescription(target=["a"]))
    model.describe(SeriesDescription(target=["a"], labels=["x", "y"]))
    with pytest.raises(AssemblyError, match="trained for 1 channels and 2 classes, the data have 2 and 3"):
        model.describe(SeriesDescription(target=["a", "b"], labels=["x", "y", "z"]))
    with pytest.raises(RecipeError, match="quantile has no meaning for classification"):
        calf(task="classification", head="quantile")
