"""Hard negatives: explicit, grouped, NegCLIP's, and the batch's own reweighted."""

import math

import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.explicit_negatives import ExplicitNegativesLoss, explicit_negatives_loss
from modalign.zoo.losses.grouped_negatives import GroupedNegativesLoss, grouped_negatives_loss
from modalign.zoo.losses.negclip import NegClipLoss, negclip_loss
from modalign.zoo.losses.reweighted_negatives import ReweightedNegativesLoss, reweighted_negatives_loss


def one_way(rows, columns, scale, label):
    """Mean over rows of log Σ exp - positive, by a loop."""
    total = 0.0
    for i in range(len(rows)):
        scores = [scale * float(rows[i] @ column) for column in columns]
        total += math.log(sum(map(math.exp, scores))) - scores[label(i)]
    return total / len(rows)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("per_query", [1, 3])
def test_explicit_negatives_equal_a_loop(unit, per_query, chunk):
    query, positive, negative = unit(5, 4, 1), unit(5, 4, 2), unit(5 * per_query, 4, 3)
    wanted = one_way(query, [*positive, *negative], 50.0, lambda i: i)
    assert explicit_negatives_loss(query, positive, negative, chunk=chunk).item() == pytest.approx(wanted, rel=1e-12)
    shaped = negative.view(5, per_query, 4)
    assert explicit_negatives_loss(query, positive, shaped, chunk=chunk).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("negatives", [0, 1, 3])
def test_grouped_negatives_equal_a_loop(unit, negatives):
    query, grouped = unit(5, 4, 1), unit(5 * (negatives + 1), 4, 2)
    wanted = one_way(query, grouped, 1.0, lambda i: i * (negatives + 1))
    assert grouped_negatives_loss(query, grouped, negatives).item() == pytest.approx(wanted, rel=1e-12)


def test_negatives_in_groups_or_apart_are_the_same_loss(unit):
    query, positive, negative = unit(5, 4, 1), unit(5, 4, 2), unit(10, 4, 3).view(5, 2, 4)
    grouped = torch.cat((positive[:, None], negative), 1).flatten(0, 1)
    apart = explicit_negatives_loss(query, positive, negative, 7.0).item()
    assert grouped_negatives_loss(query, grouped, 2, 7.0).item() == pytest.approx(apart, rel=1e-12)


def test_negclip_equals_a_loop_and_adds_columns_in_one_direction_only(unit):
    image, text, negative = unit(5, 4, 1), unit(5, 4, 2), unit(10, 4, 3)
    to_text = one_way(image, [*text, *negative], 9.0, lambda i: i)
    to_image = one_way(text, image, 9.0, lambda i: i)
    wanted = 0.5 * (to_text + to_image)
    assert negclip_loss(image, text, negative, 9.0).item() == pytest.approx(wanted, rel=1e-12)
    assert negclip_loss(image, text, negative.view(5, 2, 4), 9.0).item() == pytest.approx(wanted, rel=1e-12)
    nothing = negclip_loss(image, text, negative[:0], 9.0)
    assert nothing.item() == pytest.approx(clip_loss(image, text, 9.0).item(), rel=1e-12)


def test_a_negative_like_the_positive_costs_most(unit):
    image, text = unit(4, 6, 1), unit(4, 6, 2)
    easy = negclip_loss(text, text, -text, 20.0).item()
    hard = negclip_loss(text, text, text, 20.0).item()
    assert hard > easy + 0.3 and negclip_loss(image, text, text, 20.0).item() > clip_loss(image, text, 20.0).item()


def outputs_of(unit):
    return {
        "image_embedding": unit(5, 4, 1),
        "text_embedding": unit(5, 4, 2),
        "negative_text_embedding": unit(10, 4, 3).view(5, 2, 4),
        "logit_scale": torch.tensor(6.0),
    }


def test_modules_have_the_scale_of_their_source_and_take_another(unit):
    outputs = outputs_of(unit)
    image, text, negative, scale = outputs.values()
    assert ExplicitNegativesLoss()(outputs, {}).value.item() == explicit_negatives_loss(image, text, negative, 50.0).item()
    assert "logit_scale" not in ExplicitNegativesLoss().inputs()
    learned = ExplicitNegativesLoss(scale="logit_scale")
    assert learned.inputs() == set(outputs)
    assert learned(outputs, {}).value.item() == explicit_negatives_loss(image, text, negative, scale).item()
    assert NegClipLoss()(outputs, {}).value.item() == negclip_loss(image, text, negative, scale).item()
    grouped = outputs | {"grouped_text_embedding": unit(15, 4, 4)}
    found = GroupedNegativesLoss(negatives=2, scale=1.0)
    assert "logit_scale" not in found.inputs() and "logit_scale" in GroupedNegativesLoss(negatives=2).inputs()
    assert found(grouped, {}).value.item() == grouped_negatives_loss(image, grouped["grouped_text_embedding"], 2, 1.0).item()


def test_accuracy_counts_negatives_as_candidates():
    eye = torch.eye(4)
    outputs = {
        "image_embedding": eye,
        "text_embedding": 0.5 * eye,
        "negative_text_embedding": eye[:1],
        "logit_scale": torch.tensor(2.0),
    }
    assert ExplicitNegativesLoss()(outputs, {}).metrics["accuracy"].item() == 0.75
    metrics = NegClipLoss()(outputs, {}).metrics
    assert (metrics["i2t_accuracy"].item(), metrics["t2i_accuracy"].item()) == (0.75, 1.0)


def test_groups_of_the_wrong_size_are_refused_with_both_numbers(unit):
    with pytest.raises(AssemblyError, match=r"need 15 rows of 'grouped_text_embedding', not 5.*data.negatives"):
        GroupedNegativesLoss(negatives=2)(outputs_of(unit) | {"grouped_text_embedding": unit(5, 4, 2)}, {})
    with pytest.raises(RecipeError, match="-1 negatives"):
        GroupedNegativesLoss(negatives=-1)


def slow_reweighted(image, text, scale, beta, with_positive):
    count, total = len(image), 0.0
    for rows, columns in ((image, text), (text, image)):
        for i in range(count):
            scores = [scale * float(rows[i] @ columns[j]) for j in range(count)]
            counted = [j for j in range(count) if with_positive or j != i]
            norm = sum(math.exp(beta * scores[j]) for j in counted)
            weights = {j: len(counted) * math.exp(beta * scores[j]) / norm for j in counted}
            total += math.log(sum(weights.get(j, 1.0) * math.exp(scores[j]) for j in range(count))) - scores[i]
    return total / (2 * count)


@pytest.mark.parametrize("with_positive", [False, True])
@pytest.mark.parametrize(("beta", "chunk"), [(0.25, None), (1.0, 2)])
def test_reweighting_equals_a_loop(unit, with_positive, beta, chunk):
    image, text = unit(5, 4, 1), unit(5, 4, 2)
    wanted = slow_reweighted(image, text, 6.0, beta, with_positive)
    found = reweighted_negatives_loss(image, text, 6.0, beta=beta, with_positive=with_positive, chunk=chunk)
    assert found.item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("with_positive", [False, True])
def test_without_preference_reweighting_is_clip(unit, leaf, same_gradients, with_positive):
    leaves = leaf(unit(6, 4, 1)), leaf(unit(6, 4, 2)), leaf(9.0)
    same_gradients(lambda *a: reweighted_negatives_loss(*a, beta=0.0, with_positive=with_positive), clip_loss, *leaves)


def test_weights_are_constants_for_the_gradient(unit, leaf):
    """The gradient is that of the loss with the weights written down as numbers."""
    image, text, scale = leaf(unit(5, 4, 1)), unit(5, 4, 2), 6.0
    logits = scale * image @ text.T
    off = ~torch.eye(5, dtype=torch.bool)
    numbers = []
    for matrix in (logits.detach(), logits.detach().T):
        weights = torch.ones(5, 5, dtype=torch.float64)
        weights[off] = (4 * F.softmax((0.5 * matrix).masked_fill(~off, -torch.inf), 1))[off]
        numbers.append(weights)
    written = sum(
        ((weights * matrix.exp()).sum(1).log() - matrix.diagonal()).mean() / 2
        for weights, matrix in zip(numbers, (logits, logits.T), strict=True)
    )
    wanted = torch.autograd.grad(written, image, retain_graph=True)[0]
    found = torch.autograd.grad(reweighted_negatives_loss(image, text, scale, beta=0.5, with_positive=False), image)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_with_the_positive_a_perfect_row_costs_ln_n_without_it_nothing():
    eye = torch.eye(4, dtype=torch.float64)
    assert reweighted_negatives_loss(eye, eye, 200.0, beta=1.0, with_positive=True).item() == pytest.approx(math.log(4), rel=1e-9)
    assert reweighted_negatives_loss(eye, eye, 200.0, beta=1.0, with_positive=False).item() == pytest.approx(0.0, abs=1e-12)


def test_the_default_weighs_the_whole_row_as_specified(unit):
    """`w_ij = N softmax(β S)_ij`, the positive included."""
    image, text, scale, beta = unit(5, 4, 1), unit(5, 4, 2), 6.0, 0.25
    total = 0.0
    for logits in (scale * image @ text.T, scale * text @ image.T):
        weights = 5 * (beta * logits).softmax(1)
        total += ((weights * logits.exp()).sum(1).log() - logits.diagonal()).mean().item() / 2
    assert reweighted_negatives_loss(image, text, scale).item() == pytest.approx(total, rel=1e-12)
    outputs = {"image_embedding": image, "text_embedding": text, "logit_scale": torch.tensor(scale)}
    assert ReweightedNegativesLoss()(outputs, {}).value.item() == pytest.approx(total, rel=1e-6)


def test_reweighting_one_pair_is_zero(unit, leaf):
    image = leaf(unit(1, 4, 1))
    outputs = {"image_embedding": image, "text_embedding": unit(1, 4, 2), "logit_scale": torch.tensor(3.0)}
    value = ReweightedNegativesLoss()(outputs, {}).value
    value.backward()
    assert value.item() == 0.0 and not image.grad.any()
