"""Feature and structure distillation: the official terms of ProCLIP, slow oracles, invariants."""

import itertools
import math

import numpy as np
import pytest
import torch

from modalign.zoo.errors import AssemblyError
from modalign.zoo.losses.clip import ClipLoss, clip_loss
from modalign.zoo.losses.feature_distillation import FeatureDistillation, feature_distillation
from modalign.zoo.losses.structure_distillation import StructureDistillation, structure_distillation

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def test_proclip_stage_1_equals_the_official_terms(golden, leaf):
    data = golden("proclip_stage1")
    short, long = leaf(data["student_short"]), leaf(data["student_long"])
    teacher_short, teacher_long = leaf(data["teacher_short"]), leaf(data["teacher_long"])
    instance = feature_distillation(short, teacher_short) + feature_distillation(long, teacher_long)
    structure = structure_distillation(short, teacher_short)
    (instance + structure).backward()
    np.testing.assert_allclose(instance.item(), data["ins_loss"], **CLOSE)
    np.testing.assert_allclose(structure.item(), data["struct_loss"], **CLOSE)
    np.testing.assert_allclose((instance + structure).item(), data["total"], **CLOSE)
    np.testing.assert_allclose(short.grad, data["grad_student_short"], **CLOSE)
    np.testing.assert_allclose(long.grad, data["grad_student_long"], **CLOSE)
    assert teacher_short.grad is None


def test_proclip_stage_2_equals_the_official_terms(golden, leaf):
    data = golden("proclip_stage2")
    image, text, scale = leaf(data["image"]), leaf(data["text"]), leaf(data["logit_scale"])
    teacher = leaf(data["teacher_image"])
    clip, instance, structure = (
        clip_loss(image, text, scale),
        feature_distillation(image, teacher),
        structure_distillation(image, teacher),
    )
    total = clip + float(data["distill_loss_weight"]) * (instance + structure)
    total.backward()
    for value, name in ((clip, "clip_loss"), (instance, "ins_loss"), (structure, "struct_loss"), (total, "total")):
        np.testing.assert_allclose(value.item(), data[name], **CLOSE)
    for tensor, name in ((image, "image"), (text, "text"), (scale, "logit_scale")):
        np.testing.assert_allclose(tensor.grad, data[f"grad_{name}"], **CLOSE)


@pytest.mark.parametrize(("distance", "penalty"), list(itertools.product(["l2", "sq_l2"], ["smooth_l1", "l1", "l2"])))
def test_structure_equals_a_loop_over_pairs(distance, penalty, unit):
    student, teacher = 2 * unit(5, 4, 9), unit(5, 6, 10)

    def measure(x, i, j):
        squared = float(((x[i] - x[j]) ** 2).sum())
        return math.sqrt(squared) if distance == "l2" else squared

    def cost(a):
        if penalty == "smooth_l1":
            return 0.5 * a * a if abs(a) < 1 else abs(a) - 0.5
        return abs(a) if penalty == "l1" else a * a

    pairs = list(itertools.combinations(range(5), 2))
    total = sum(cost(measure(student, i, j) - measure(teacher, i, j)) for i, j in pairs)
    options = {"distance": distance, "penalty": penalty}
    assert structure_distillation(student, teacher, **options).item() == pytest.approx(total, rel=1e-10)
    mean = structure_distillation(student, teacher, reduction="mean", **options).item()
    assert mean == pytest.approx(total / len(pairs), rel=1e-10)


def test_distillation_from_itself_is_zero_and_structure_ignores_rotation(unit, rotation):
    teacher = unit(6, 5, 11)
    turn = rotation(5)
    assert feature_distillation(teacher, teacher).item() == 0.0
    assert structure_distillation(teacher, teacher).item() == 0.0
    assert structure_distillation(teacher @ turn, teacher).item() == pytest.approx(0.0, abs=1e-20)
    assert feature_distillation(teacher @ turn, teacher).item() > 0.1


def test_structure_has_zero_gradient_at_coincident_points(unit):
    student = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    structure_distillation(student, unit(3, 4, 12)).backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_structure_of_one_row_is_zero_with_a_graph():
    student = torch.ones(1, 4, requires_grad=True)
    value = structure_distillation(student, torch.zeros(1, 4))
    value.backward()
    assert value.item() == 0.0 and student.grad.abs().sum() == 0.0


def test_masked_rows_do_not_count(unit):
    student, teacher = unit(4, 3, 13), unit(4, 3, 14)
    mask = torch.tensor([True, False, True, False])
    wanted = feature_distillation(student[mask], teacher[mask])
    assert feature_distillation(student, teacher, mask=mask).item() == pytest.approx(wanted.item(), rel=1e-12)
    mean = feature_distillation(student, teacher, mask=mask, reduction="mean").item()
    assert mean == pytest.approx(wanted.item() / 2, rel=1e-12)
    nothing = feature_distillation(student.requires_grad_(), teacher, mask=torch.zeros(4, dtype=torch.bool), reduction="mean")
    nothing.backward()
    assert nothing.item() == 0.0


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_distillation_of_no_rows_is_zero_with_a_graph(leaf, reduction):
    student = leaf(np.zeros((0, 3)))
    for loss in (feature_distillation, structure_distillation):
        value = loss(student, torch.zeros(0, 3), reduction=reduction)
        value.backward()
        assert value.item() == 0.0


def test_unit_vectors_give_two_minus_two_cosines(unit):
    student, teacher = unit(4, 3, 15), unit(4, 3, 16)
    assert feature_distillation(student, teacher).item() == pytest.approx((2 - 2 * (student * teacher).sum(-1)).sum().item())


def test_modules_read_named_entries_and_say_what_is_missing(unit):
    image, text = unit(4, 3, 17), unit(4, 3, 18)
    outputs = {"image_embedding": image, "text_embedding": text, "logit_scale": torch.tensor(5.0)}
    assert ClipLoss()(outputs, {}).value.item() == pytest.approx(clip_loss(image, text, 5.0).item())
    batch = {"teacher_image_embedding": text}
    assert FeatureDistillation()(outputs, batch).value.item() == pytest.approx(feature_distillation(image, text).item())
    assert StructureDistillation()(outputs, batch).value.item() == pytest.approx(structure_distillation(image, text).item())
    with pytest.raises(AssemblyError, match=r"teacher_image_embedding.*this step provides: .*text_embedding"):
        FeatureDistillation()(outputs, {})
    for loss in (ClipLoss(), FeatureDistillation(mask="m"), StructureDistillation()):
        assert loss.inputs() <= {"image_embedding", "text_embedding", "logit_scale", "teacher_image_embedding", "m"}


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_distillation_is_float32_at_least_however_few_the_rows(rows, dtype):
    student = torch.ones(rows, 3, dtype=dtype, requires_grad=True)
    for loss in (feature_distillation, structure_distillation):
        for reduction in ("sum", "mean"):
            value = loss(student, torch.zeros(rows, 3), reduction=reduction)
            assert value.dtype == torch.promote_types(dtype, torch.float32)
            value.backward()
            assert student.grad.dtype == dtype
