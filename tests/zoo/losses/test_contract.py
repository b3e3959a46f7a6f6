"""What every loss of the registry keeps: it reads what it says, says what is missing, computes in float32 and can be combined."""

import pytest
import torch
import torch.nn.functional as F

from modalign.trainers.objective import Objective
from modalign.zoo.errors import AssemblyError
from modalign.zoo.registry import LOSSES

#: what a loss needs to be told; every other one works as it is
SETTINGS = {
    "grouped_negatives": {"negatives": 2},
    "matryoshka": {"base": {"loss": "clip"}, "dims": [2, 6]},
}
#: what a loss reads beside what it says, because it comes in one form or another
ALSO = {"next_token": {"token_states", "head_weight"}}
NAMES = LOSSES.names()


def step(rows, dtype=torch.float32, scalar=()):
    """Every entry there is, as a family and a batch provide them; all float entries want a gradient."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    outputs = {
        "image_embedding": F.normalize(draw(rows, 6), dim=-1),
        "text_embedding": F.normalize(draw(rows, 6), dim=-1),
        "second_text_embedding": F.normalize(draw(rows, 6), dim=-1),
        "negative_text_embedding": F.normalize(draw(rows, 2, 6), dim=-1),
        "grouped_text_embedding": F.normalize(draw(3 * rows, 6), dim=-1),
        "logit_scale": torch.full(scalar, 30.0),
        "logit_bias": torch.full(scalar, -5.0),
        "caption_logits": draw(rows, 4, 9),
        "prediction": draw(rows, 4, 2),
        "text_prediction": draw(rows, 4, 2),
        "series_layers": draw(rows, 3, 2, 6),
        "text_layers": draw(rows, 3, 2, 6),
        "quantiles": draw(rows, 4, 2, 3).sort(-1).values,
        "logits": draw(rows, 5),
        "token_states": draw(2 * rows, 6),
        "head_weight": draw(9, 6),
    }
    for prefix in ("teacher_", "teacher2_"):
        outputs |= {f"{prefix}{name}": F.normalize(draw(rows, 6), dim=-1) for name in ("image_embedding", "text_embedding")}
        outputs[f"{prefix}logit_scale"] = torch.full(scalar, 40.0)
    outputs = {name: value.to(dtype).requires_grad_() for name, value in outputs.items()}
    batch = {
        "text_id": torch.arange(rows) % 3,
        "caption_labels": torch.arange(4 * rows).view(rows, 4) % 9,
        "target": torch.linspace(-1, 1, 8 * rows).view(rows, 4, 2),
        "quantile_levels": torch.tensor([0.25, 0.5, 0.75]),
        "label": torch.arange(rows) % 5,
        "token_labels": torch.arange(2 * rows) % 9,
        "other": torch.zeros(rows),
    }
    return outputs, batch


def objective_of(name, **settings):
    return Objective({"term": {"loss": name, "weight": 1.0, **SETTINGS.get(name, {}), **settings}})


def loss_of(name):
    return objective_of(name).terms["term"]


def grads_of(outputs):
    return {name: value.grad for name, value in outputs.items() if value.grad is not None}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_settings_with_finite_gradients(name):
    outputs, batch = step(6)
    total, metrics = objective_of(name)(outputs, batch)
    total.backward()
    grads = grads_of(outputs)
    assert total.isfinite() and total.ndim == 0 and grads
    assert all(grad.isfinite().all() for grad in grads.values()) and any(grad.abs().max() > 1e-6 for grad in grads.values())
    assert not any(found.startswith("teacher") for found in grads)
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    assert metrics["loss/term"].item() == pytest.approx(total.item())


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_what_it_says_and_nothing_else(name):
    outputs, batch = step(6)
    loss = loss_of(name)
    wanted = loss(outputs, batch).value.item()
    told = loss.inputs()
    assert told <= {*outputs, *batch}
    only = {key: value for key, value in outputs.items() if key in told | ALSO.get(name, set())}
    assert loss(only, {key: value for key, value in batch.items() if key in told}).value.item() == wanted
    for key in told:
        rest = [{k: v for k, v in entries.items() if k != key} for entries in (outputs, batch)]
        with pytest.raises(AssemblyError, match=rf"needs '{key}'.*this step provides: .*other"):
            loss(*rest)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_may_come_with_the_batch_instead(name):
    outputs, batch = step(6)
    loss = loss_of(name)
    assert loss({}, outputs | batch).value.item() == loss(outputs, batch).value.item()


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_in_float32_under_autocast_and_keeps_float64(name):
    outputs, batch = step(6)
    loss = loss_of(name)
    wanted = loss(outputs, batch).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(outputs, batch).value
    assert found.dtype == torch.float32 and found.item() == wanted.item()
    exact = loss(*step(6, torch.float64)).value
    assert exact.dtype == torch.float64 and exact.item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_half_precision_are_scored_in_float32(name):
    outputs, batch = step(6, torch.bfloat16)
    value = loss_of(name)(outputs, batch).value
    value.backward()
    assert value.isfinite() and all(grad.isfinite().all() for grad in grads_of(outputs).values())
    assert value.dtype == torch.float32


@pytest.mark.parametrize("rows", [1, 0])
@pytest.mark.parametrize("name", NAMES)
def test_one_sample_and_none_give_a_finite_value_with_a_graph(name, rows):
    outputs, batch = step(rows)
    value = loss_of(name)(outputs, batch).value
    value.backward()
    assert value.isfinite() and all(grad.isfinite().all() for grad in grads_of(outputs).values())
    assert rows or value.item() == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_and_bias_held_in_vectors_of_one_are_the_same(name):
    """As sharding keeps them."""
    outputs, batch = step(6)
    vectors, _ = step(6, scalar=(1,))
    found = loss_of(name)(vectors, batch).value
    found.backward()
    assert found.ndim == 0 and found.item() == pytest.approx(loss_of(name)(outputs, batch).value.item(), rel=1e-6)


def test_all_losses_together_are_the_weighted_sum():
    outputs, batch = step(6)
    settings = {f"term{i}": {"loss": name, "weight": 0.1 * (i + 1), **SETTINGS.get(name, {})} for i, name in enumerate(NAMES)}
    objective = Objective(settings)
    total, metrics = objective(outputs, batch)
    total.backward()
    wanted = sum(0.1 * (i + 1) * loss_of(name)(outputs, batch).value.item() for i, name in enumerate(NAMES))
    assert total.item() == pytest.approx(wanted, rel=1e-5)
    assert objective.inputs() == frozenset().union(*(loss_of(name).inputs() for name in NAMES))
    assert {f"loss/term{i}" for i in range(len(NAMES))} <= set(metrics)
    assert outputs["image_embedding"].grad.isfinite().all()
