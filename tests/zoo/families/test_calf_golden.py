"""CALF against numbers of the official code: forecast, imputation, anomaly detection, losses, one step of both optimisers."""

import json
from pathlib import Path

import pytest
import torch

from modalign.trainers.objective import Objective

from .calf_reference import calf, load_official, our_name

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "time_series"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def reference(golden):
    weights, io = golden("time_series/calf_weights"), golden("time_series/calf_forecast_io")
    dictionary = golden("time_series/calf_pca")["dictionary"]
    return weights, {key: torch.as_tensor(value) for key, value in io.items()}, dictionary


@pytest.fixture
def model(reference):
    weights, _, dictionary = reference
    made = load_official(calf(), weights, dictionary)
    made.both_branches = True
    return made


def objective(kind):
    return Objective(
        {
            "task": {"loss": "series_error", "kind": kind, "weight": 1.0},
            "output": {"loss": "output_consistency", "distance": kind, "weight": 1.0},
            "feature": {"loss": "layerwise_alignment", "distance": kind, "weight": 0.01},
        }
    )


def test_outputs_and_features_of_both_branches(model, reference):
    _, io, _ = reference
    found = model({"values": io["x"]})
    torch.testing.assert_close(found["prediction"], io["outputs_time"], **CLOSE)
    torch.testing.assert_close(found["text_prediction"], io["outputs_text"], **CLOSE)
    for branch, key in (("time", "series_layers"), ("text", "text_layers")):
        wanted = torch.stack([io[f"feat_{branch}_{number}"] for number in range(3)], 1)
        torch.testing.assert_close(found[key], wanted, **CLOSE)


def test_tokens_and_last_state(model, reference):
    _, io, _ = reference
    normalised, _ = model.norm(io["x"])
    tokens = model.tokens(normalised)
    torch.testing.assert_close(tokens, io["tokens_time"], **CLOSE)
    torch.testing.assert_close(model.match(tokens, model.dictionary()), io["tokens_text"], **CLOSE)
    torch.testing.assert_close(model.language(tokens)[-1], io["lnf_time"], **CLOSE)


def test_without_the_alias_the_last_feature_is_the_norms_output(model, reference):
    _, io, _ = reference
    model.config.last_feature_with_residual = False
    found = model({"values": io["x"]})["series_layers"][:, -1]
    torch.testing.assert_close(found, model.series_features[-1](io["lnf_time"]), **CLOSE)
    assert (found - io["feat_time_2"]).abs().max() > 1.0


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "mse"])
def test_losses(model, reference, kind):
    _, io, _ = reference
    batch = {"values": io["x"], "target": io["y"]}
    total, metrics = objective(kind)(model(batch), batch)
    torch.testing.assert_close(total, io[f"total_{kind}"], **CLOSE)
    for part in ("task", "output", "feature"):
        torch.testing.assert_close(metrics[f"loss/{part}"], io[f"{part}_{kind}"], **CLOSE)
    parts = metrics["loss/task"] + metrics["loss/output"] + 0.01 * metrics["loss/feature"]
    torch.testing.assert_close(total, parts, rtol=1e-6, atol=0.0)


def test_gradients_and_one_step_of_two_optimisers(model, reference):
    _, io, _ = reference
    batch = {"values": io["x"], "target": io["y"]}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = {"aux": [], "rest": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["aux" if model.role_of(name) == "aux" else "rest"].append(parameter)
    loss, _ = objective("l1")(model(batch), batch)
    loss.backward()
    norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    wanted = {our_name(key.partition("/")[2]): value for key, value in io.items() if key.startswith("gradnorm/")}
    assert set(norms) == set(wanted)
    for name, norm in norms.items():
        torch.testing.assert_close(norm, wanted[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    optimiser = torch.optim.Adam([{"params": groups["rest"], "lr": 5e-4}, {"params": groups["aux"], "lr": 1e-4}])
    optimiser.step()
    found = model(batch)
    torch.testing.assert_close(found["prediction"], io["after_step/outputs_time"], **CLOSE)
    torch.testing.assert_close(objective("l1")(found, batch)[0], io["after_step/total_l1"], **CLOSE)
    assert io["after_step/total_l1"].item() == pytest.approx(2.5020039, abs=1e-6)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("pretrained."))
    for key, value in io.items():
        name = our_name(key.removeprefix("after_step/")) if key.startswith("after_step/") and "." in key else None
        if name is not None:
            torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_imputation(reference, golden):
    weights, _, dictionary = reference
    io = {key: torch.as_tensor(value) for key, value in golden("time_series/calf_imputation_io").items()}
    model = load_official(calf(task="imputation"), weights | golden("time_series/calf_imputation_override"), dictionary)
    model.both_branches = True
    kept = io["mask"].bool()
    batch = {"values": io["inp"], "observed": kept, "target": io["x"], "target_observed": ~kept}
    found = model(batch)
    torch.testing.assert_close(found["prediction"], io["outputs_time"], **CLOSE)
    torch.testing.assert_close(found["text_prediction"], io["outputs_text"], **CLOSE)
    torch.testing.assert_close(objective("l1")(found, batch)[0], io["total_l1"], **CLOSE)


def test_anomaly_detection(reference, golden):
    weights, _, dictionary = reference
    io = {key: torch.as_tensor(value) for key, value in golden("time_series/calf_anomaly_io").items()}
    model = load_official(calf(task="anomaly"), weights | golden("time_series/calf_imputation_override"), dictionary)
    model.both_branches = True
    batch = {"values": io["x"], "target": io["x"]}
    found = model(batch)
    torch.testing.assert_close(found["prediction"], io["outputs_time"], **CLOSE)
    torch.testing.assert_close(found["text_prediction"], io["outputs_text"], **CLOSE)
    torch.testing.assert_close((found["prediction"] - io["x"]).square().mean(-1), io["score"], **CLOSE)
    torch.testing.assert_close(objective("mse")(found, batch)[0], io["total_mse"], **CLOSE)


def test_what_trains_and_in_which_group(model):
    meta = json.loads((GOLDEN / "calf_meta.json").read_text())
    roles = {name: model.role_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(roles) == {our_name(name) for name in meta["trainable"]}
    assert {name for name, role in roles.items() if role == "aux"} == {our_name(name) for name in meta["loss_optim_group"]}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {our_name(name) for name in meta["frozen"]} - {None}
    assert {model.role_of(name) for name in frozen} == {"frozen"}


def test_affine_equivariance_and_causality_numbers(model, reference):
    meta = json.loads((GOLDEN / "calf_meta.json").read_text())
    _, io, _ = reference
    plain = model({"values": io["x"]})["prediction"].detach()
    moved = model({"values": 3 * io["x"] + 7})["prediction"].detach()
    assert (moved - (3 * plain + 7)).abs().max().item() == pytest.approx(meta["affine_equivariance_maxdiff(3x+7)"], abs=1e-4)
    order = [4, 3, 2, 1, 0]
    permuted = model({"values": io["x"][..., order]})["prediction"][..., order].detach()
    assert (permuted - plain).abs().max() > 0.01  # positions and the causal mask follow the channels' order
