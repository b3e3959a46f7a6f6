"""Logit distillation from one teacher and from an ensemble."""

import math

import numpy as np
import pytest
import torch

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.ensemble_distillation import EnsembleDistillation, ensemble_distillation
from modalign.zoo.losses.logit_distillation import LogitDistillation, logit_distillation

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def test_logit_distillation_equals_the_official_loss_and_gradients(golden, leaf):
    data = golden("distill_single")
    image, text = leaf(data["image"]), leaf(data["text"])
    teacher_image, teacher_text = leaf(data["teacher_image"]), leaf(data["teacher_text"])
    scale, teacher_scale = float(data["logit_scale"]), float(data["teacher_logit_scale"])
    contrastive = clip_loss(image, text, scale)
    distillation = logit_distillation(image, text, scale, teacher_image, teacher_text, teacher_scale)
    (contrastive + distillation).backward()
    np.testing.assert_allclose(contrastive.item(), data["contrastive_loss"], **CLOSE)
    np.testing.assert_allclose(distillation.item(), data["distill_loss"], **CLOSE)
    np.testing.assert_allclose(image.grad, data["grad_image"], **CLOSE)
    np.testing.assert_allclose(text.grad, data["grad_text"], **CLOSE)
    assert teacher_image.grad is None and teacher_text.grad is None


def softmax(scores):
    top = max(scores)
    total = sum(math.exp(score - top) for score in scores)
    return [math.exp(score - top) / total for score in scores]


def slow_targets(teachers, i, count, direction, average):
    """Each teacher's probabilities of one row; where logits are averaged, all of them give the same."""
    rows = []
    for a, b, scale in teachers:
        a, b = (a, b) if direction == 0 else (b, a)
        rows.append([scale * float(a[i] @ b[j]) for j in range(count)])
    if average == "logits":
        return [softmax([sum(column) / len(rows) for column in zip(*rows)])] * len(rows)
    return [softmax(row) for row in rows]


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_ensemble_equals_a_loop_over_pairs(unit, average, share):
    image, text, scale, count = unit(4, 3, 1), unit(4, 3, 2), 6.0, 4
    teachers = [(unit(4, 5, 3), unit(4, 5, 4), 9.0), (unit(4, 2, 5), unit(4, 2, 6), 3.0)]
    total = 0.0
    for direction, (x, y) in enumerate(((image, text), (text, image))):
        for i in range(count):
            student = softmax([scale * float(x[i] @ y[j]) for j in range(count)])
            for target in slow_targets(teachers, i, count, direction, average):
                total += sum(p * math.log(p / q) for p, q in zip(target, student)) / len(teachers)
    wanted = share * total / (2 * count) + (1 - share) * clip_loss(image, text, scale).item()
    for chunk in (None, 3):
        found = ensemble_distillation(image, text, scale, teachers, share=share, average=average, chunk=chunk)
        assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_averaging_divergences_has_the_gradient_of_averaging_probabilities(unit, leaf):
    image, text = leaf(unit(4, 3, 1)), unit(4, 3, 2)
    teachers = [(unit(4, 5, 3), unit(4, 5, 4), 9.0), (unit(4, 2, 5), unit(4, 2, 6), 3.0)]
    together = torch.autograd.grad(ensemble_distillation(image, text, 6.0, teachers), image)[0]
    one_by_one = sum(torch.autograd.grad(logit_distillation(image, text, 6.0, *t), image)[0] for t in teachers) / 2
    torch.testing.assert_close(together, one_by_one, rtol=1e-12, atol=1e-14)
    of_logits = torch.autograd.grad(ensemble_distillation(image, text, 6.0, teachers, average="logits"), image)[0]
    assert (of_logits - together).abs().max() > 1e-3


def row_entropy(image, text, scale):
    """Mean over rows and both directions."""
    each = [torch.distributions.Categorical(logits=scale * (a @ b.T)).entropy().mean() for a, b in ((image, text), (text, image))]
    return float(sum(each)) / 2


def test_an_ensemble_of_one_is_logit_distillation_less_the_teachers_entropy(unit):
    image, text, teacher = unit(5, 3, 1), unit(5, 3, 2), (unit(5, 4, 3), unit(5, 4, 4), 8.0)
    wanted = logit_distillation(image, text, 6.0, *teacher).item() - row_entropy(*teacher)
    for average in ("probabilities", "logits"):
        assert ensemble_distillation(image, text, 6.0, [teacher], average=average).item() == pytest.approx(wanted, rel=1e-12)


def test_a_student_equal_to_its_teacher_gets_no_gradient_and_the_teachers_entropy(unit, leaf):
    image, text, scale = leaf(unit(6, 5, 1)), leaf(unit(6, 5, 2)), leaf(12.0)
    value = logit_distillation(image, text, scale, image, text, 12.0)
    for grad in torch.autograd.grad(value, (image, text, scale)):
        assert grad.abs().max() < 1e-14
    assert value.item() == pytest.approx(row_entropy(image.detach(), text.detach(), 12.0), rel=1e-12)
    twice = ensemble_distillation(image, text, scale, [(image, text, 12.0)] * 2)
    assert twice.item() == pytest.approx(0.0, abs=1e-14), "the mean of two divergences that are 0"


@pytest.mark.parametrize("chunk", [1, 4])
def test_distillation_in_chunks_is_the_same(unit, leaf, same_gradients, chunk):
    teacher = unit(6, 4, 3), unit(6, 4, 4), 8.0
    leaves = leaf(unit(6, 3, 1)), leaf(unit(6, 3, 2)), leaf(5.0)
    same_gradients(
        lambda *a: logit_distillation(*a, *teacher, chunk=chunk), lambda *a: logit_distillation(*a, *teacher), *leaves, rtol=1e-13
    )


def entries(unit):
    outputs = {"image_embedding": unit(6, 3, 1), "text_embedding": unit(6, 3, 2), "logit_scale": torch.tensor(5.0)}
    for number, prefix in enumerate(("teacher_", "teacher2_", "teacher3_")):
        outputs[f"{prefix}image_embedding"] = unit(6, 4 + number, 3 + number)
        outputs[f"{prefix}text_embedding"] = unit(6, 4 + number, 6 + number)
        outputs[f"{prefix}logit_scale"] = torch.tensor(8.0 + number)
    return outputs


def teacher(outputs, prefix):
    return tuple(outputs[f"{prefix}{name}"] for name in ("image_embedding", "text_embedding", "logit_scale"))


def test_the_kl_metric_is_zero_where_student_and_teacher_agree(unit):
    outputs = entries(unit)
    same = outputs | {f"teacher_{name}": outputs[name] for name in ("image_embedding", "text_embedding", "logit_scale")}
    result = LogitDistillation()(same, {})
    assert result.metrics["kl"].item() == pytest.approx(0.0, abs=1e-14) and result.value.item() > 0.1
    assert LogitDistillation()(outputs, {}).metrics["kl"].item() > 0.1


def test_modules_read_every_teachers_own_entries_and_scales(unit):
    outputs = entries(unit)
    student = teacher(outputs, "")
    assert LogitDistillation()(outputs, {}).value.item() == logit_distillation(*student, *teacher(outputs, "teacher_")).item()
    three = EnsembleDistillation(teachers=3)
    wanted = ensemble_distillation(*student, [teacher(outputs, prefix) for prefix in ("teacher_", "teacher2_", "teacher3_")])
    assert three(outputs, {}).value.item() == wanted.item()
    assert {name for name in three.inputs() if name.startswith("teacher3_")} == {
        "teacher3_image_embedding",
        "teacher3_text_embedding",
        "teacher3_logit_scale",
    }


def test_numbers_replace_scales_and_then_the_entries_are_not_asked_for(unit):
    outputs = {name: value for name, value in entries(unit).items() if not name.endswith("scale")}
    image, text = outputs["image_embedding"], outputs["text_embedding"]
    first, second = ((outputs[f"{p}image_embedding"], outputs[f"{p}text_embedding"]) for p in ("teacher_", "teacher2_"))
    single = LogitDistillation(student_scale=4.0, teacher_scale=100.0)
    assert single.inputs() == {name for name in outputs if "teacher2" not in name and "teacher3" not in name}
    assert single(outputs, {}).value.item() == logit_distillation(image, text, 4.0, *first, 100.0).item()
    both = EnsembleDistillation(student_scale=4.0, teacher_scales=[100.0, 50.0])
    wanted = ensemble_distillation(image, text, 4.0, [(*first, 100.0), (*second, 50.0)])
    assert both(outputs, {}).value.item() == wanted.item()


def test_the_contrastive_part_keeps_the_learned_scale(unit):
    outputs = entries(unit)
    image, text, scale = teacher(outputs, "")
    loss = EnsembleDistillation(teachers=1, share=0.25, student_scale=4.0)
    divergence = logit_distillation(image, text, 4.0, *teacher(outputs, "teacher_")) - row_entropy(*teacher(outputs, "teacher_"))
    wanted = 0.75 * clip_loss(image, text, scale) + 0.25 * divergence
    result = loss(outputs, {})
    assert result.value.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert result.metrics["kl"].item() == pytest.approx(divergence.item(), rel=1e-12)
    assert {"i2t_accuracy", "t2i_accuracy"} <= set(result.metrics)
    assert result.metrics["clip"].item() == clip_loss(image, text, scale).item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teachers": 0}, "one scale per teacher"),
        ({"teacher_scales": [1.0]}, "one scale per teacher"),
        ({"share": 1.5}, "share: 1.5"),
        ({"average": "logit"}, "did you mean 'logits'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        EnsembleDistillation(**settings)
