"""Matryoshka around any loss of the registry."""

import pytest
import torch
import torch.nn.functional as F

from modalign.trainers.objective import Objective
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.feature_distillation import feature_distillation
from modalign.zoo.losses.logit_distillation import logit_distillation
from modalign.zoo.losses.matryoshka import MatryoshkaLoss
from modalign.zoo.losses.siglip import siglip_loss
from modalign.zoo.losses.structure_distillation import structure_distillation


@pytest.fixture
def outputs(unit):
    return {
        "image_embedding": unit(6, 8, 1),
        "text_embedding": unit(6, 8, 2),
        "logit_scale": torch.tensor(9.0),
        "logit_bias": torch.tensor(-2.0),
    }


def prefixes(outputs, width):
    return [F.normalize(outputs[name][:, :width], dim=-1) for name in ("image_embedding", "text_embedding")]


def test_one_prefix_of_full_width_is_the_loss_itself(outputs):
    wanted = clip_loss(outputs["image_embedding"], outputs["text_embedding"], 9.0).item()
    found = MatryoshkaLoss(base={"loss": "clip"}, dims=[8])(outputs, {})
    assert found.value.item() == pytest.approx(wanted, rel=1e-12)


def test_it_is_the_weighted_sum_over_normalised_prefixes(outputs):
    loss = MatryoshkaLoss(base={"loss": "clip", "label_smoothing": 0.1}, dims=[2, 5, 8], weights=[1.0, 0.5, 2.0])
    parts = {m: clip_loss(*prefixes(outputs, m), 9.0, label_smoothing=0.1) for m in (2, 5, 8)}
    result = loss(outputs, {})
    assert result.value.item() == pytest.approx((parts[2] + 0.5 * parts[5] + 2.0 * parts[8]).item(), rel=1e-12)
    assert result.metrics["loss_5"].item() == parts[5].item() and {"i2t_accuracy_2", "t2i_accuracy_5"} <= set(result.metrics)


def test_the_base_is_any_loss_and_the_recipe_says_its_settings(outputs):
    objective = Objective(
        {"nested": {"loss": "matryoshka", "base": {"loss": "siglip", "chunk": 4}, "dims": [3, 8], "weight": 2.0}}
    )
    wanted = 2.0 * sum(siglip_loss(*prefixes(outputs, m), 9.0, -2.0) for m in (3, 8))
    total, metrics = objective(outputs, {})
    assert total.item() == pytest.approx(wanted.item(), rel=1e-6)  # the sum starts in float32
    assert objective.inputs() == set(outputs) and "nested/loss_3" in metrics


def test_a_teachers_vectors_stay_whole(outputs, unit):
    teacher = {
        "teacher_image_embedding": unit(6, 5, 3),
        "teacher_text_embedding": unit(6, 5, 4),
        "teacher_logit_scale": torch.tensor(4.0),
    }
    found = MatryoshkaLoss(base={"loss": "logit_distillation"}, dims=[3])(outputs | teacher, {}).value
    wanted = logit_distillation(*prefixes(outputs, 3), 9.0, *teacher.values())
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_distances_to_a_whole_teacher_of_another_width(outputs, unit):
    teacher = unit(6, 5, 3)
    found = MatryoshkaLoss(base={"loss": "structure_distillation"}, dims=[3])(outputs | {"teacher_image_embedding": teacher}, {})
    wanted = structure_distillation(prefixes(outputs, 3)[0], teacher)
    assert found.value.item() == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize("entries", [None, ["image_embedding", "teacher_image_embedding"]])
def test_what_is_compared_number_by_number_is_cut_on_both_sides(outputs, unit, entries):
    teacher = unit(6, 8, 3)
    loss = MatryoshkaLoss(base={"loss": "feature_distillation"}, dims=[3, 8], weights=[1.0, 0.5], entries=entries)
    assert loss.inputs() == {"image_embedding", "teacher_image_embedding"}
    result = loss(outputs | {"teacher_image_embedding": teacher}, {})
    parts = [
        feature_distillation(prefixes(outputs, m)[0], F.normalize(teacher[:, :m], dim=-1), reduction="sum").item() for m in (3, 8)
    ]
    assert result.value.item() == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-12)
    same = loss(outputs | {"teacher_image_embedding": outputs["image_embedding"].clone()}, {})
    assert same.value.item() == 0.0 and same.metrics["cosine_3"].item() == pytest.approx(1.0)


def test_a_teacher_of_another_width_is_not_compared_number_by_number(outputs, unit):
    loss = MatryoshkaLoss(base={"loss": "feature_distillation"}, dims=[3])
    with pytest.raises(
        AssemblyError, match=r"not 8 \(image_embedding\), 12 \(teacher_image_embedding\); take a teacher of the same"
    ):
        loss(outputs | {"teacher_image_embedding": unit(6, 12, 3)}, {})


def test_a_base_with_vectors_of_other_names_says_which(outputs):
    named = {"loss": "clip", "image": "picture", "text": "caption"}
    with pytest.raises(RecipeError, match=r"base: clip reads caption, logit_scale, picture, of which nothing is cut"):
        MatryoshkaLoss(base=named, dims=[3])
    vectors = {"picture": outputs["image_embedding"], "caption": outputs["text_embedding"]}
    found = MatryoshkaLoss(base=named, dims=[3], entries=["picture", "caption"])(outputs | vectors, {}).value
    assert found.item() == pytest.approx(clip_loss(*prefixes(outputs, 3), 9.0).item(), rel=1e-12)


def test_a_prefix_longer_than_the_vectors_is_refused(outputs):
    with pytest.raises(AssemblyError, match=r"a prefix of 16 coordinates .* have 8"):
        MatryoshkaLoss(base={"loss": "clip"}, dims=[16])(outputs, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": {"loss": "clip"}, "dims": []}, "dims"),
        ({"base": {"loss": "clip"}, "dims": [0, 4]}, "dims"),
        ({"base": {"loss": "clip"}, "dims": [4, 4]}, "each width once"),
        ({"base": {"loss": "clip"}, "dims": [4], "weights": [1.0, 2.0]}, "one weight"),
        ({"base": {"loss": "clip"}, "dims": [4, 8], "weights": [1.0, -1.0]}, "weights: .* 0 or more"),
        ({"base": {"loss": "clip"}, "dims": [4], "weights": [0.0]}, "one at least is above 0"),
        ({"base": {"loss": "clip"}, "dims": [4], "weights": [float("nan")]}, "finite number"),
        ({"base": {"chunk": 3}, "dims": [4]}, "say which loss"),
        ({"base": {"loss": "clip", "chunks": 3}, "dims": [4]}, "matryoshka.base: unknown key 'chunks'; did you mean 'chunk'"),
        ({"base": {"loss": "clip", "gather_with_grad": False}, "dims": [4]}, "wrong direction"),
        ({"base": {"loss": "caption"}, "dims": [4, 8]}, "losses.matryoshka.base: caption reads .* the same at every width"),
        ({"base": {"loss": "caption", "from_hidden": True}, "dims": [4]}, "use caption by itself beside matryoshka"),
        ({"base": {"loss": "clip"}, "dims": [4], "entries": []}, "of which nothing is cut"),
        ({"base": {"loss": "feature_distillation"}, "dims": [4], "entries": ["image_embedding"]}, "number by number; cut both"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        Objective({"matryoshka": settings})


def test_an_unknown_base_names_the_nearest():
    with pytest.raises(AssemblyError, match="did you mean 'siglip'"):
        MatryoshkaLoss(base={"loss": "sigclip"}, dims=[4])
