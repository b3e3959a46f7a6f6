"""Several positives per row: duplicates as positives, or left out."""

import math

import pytest
import torch

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.multi_positive import MultiPositiveLoss, multi_positive_loss


def slow(image, text, scale, same, duplicates):
    """A loop over rows and columns, from a table that says which rows belong together."""
    count, total = len(image), 0.0
    for rows, columns in ((image, text), (text, image)):
        for i in range(count):
            scores = [scale * float(rows[i] @ columns[j]) for j in range(count)]
            if duplicates == "masked":
                kept = [scores[j] for j in range(count) if j == i or not same[i][j]]
                total += math.log(sum(map(math.exp, kept))) - scores[i]
            else:
                positives = [scores[j] for j in range(count) if j == i or same[i][j]]
                total += math.log(sum(map(math.exp, scores))) - sum(positives) / len(positives)
    return total / (2 * count)


@pytest.mark.parametrize("duplicates", ["positives", "masked"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_multi_positive_equals_a_loop_over_pairs(unit, duplicates, chunk):
    image, text = unit(6, 4, 1), unit(6, 4, 2)
    captions, groups = torch.tensor([3, 5, 3, 8, -2, -2]), torch.tensor([1, 2, 3, 1, 4, 5])
    same = [[bool(captions[i] == captions[j] or groups[i] == groups[j]) for j in range(6)] for i in range(6)]
    found = multi_positive_loss(image, text, 9.0, [captions, groups], duplicates=duplicates, chunk=chunk)
    assert found.item() == pytest.approx(slow(image, text, 9.0, same, duplicates), rel=1e-12)
    one = multi_positive_loss(image, text, 9.0, [captions], duplicates=duplicates, chunk=chunk)
    assert abs(one.item() - found.item()) > 1e-5


@pytest.mark.parametrize("duplicates", ["positives", "masked"])
def test_without_duplicates_it_is_clip(unit, leaf, same_gradients, duplicates):
    leaves = leaf(unit(6, 4, 1)), leaf(unit(6, 4, 2)), leaf(9.0)
    ids = [torch.arange(6)]
    same_gradients(lambda *a: multi_positive_loss(*a, ids, duplicates=duplicates), clip_loss, *leaves)


def test_doubled_rows_at_perfect_alignment_cost_ln_2_or_nothing():
    eye, ids = torch.eye(3, dtype=torch.float64).repeat(2, 1), [torch.arange(3).repeat(2)]
    assert multi_positive_loss(eye, eye, 1e3, ids).item() == pytest.approx(math.log(2), rel=1e-12)
    assert multi_positive_loss(eye, eye, 1e3, ids, duplicates="masked").item() == pytest.approx(0.0, abs=1e-12)
    assert clip_loss(eye, eye, 1e3).item() == pytest.approx(math.log(2), rel=1e-12)


def test_a_perfect_model_is_not_pushed_apart_on_duplicates(leaf):
    """CLIP's loss pulls a duplicate's vectors apart; with its captions known as equal nothing pulls."""
    rows = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    ids = [torch.arange(3).repeat(2)]
    image = leaf(rows)
    (known,) = torch.autograd.grad(multi_positive_loss(image, rows, 50.0, ids), image)
    assert known.abs().max() < 1e-12


@pytest.mark.parametrize("duplicates", ["positives", "masked"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_in_chunks_it_is_the_same(unit, leaf, same_gradients, largest_tensor, duplicates, chunk):
    leaves, ids = (leaf(unit(6, 4, 1)), leaf(unit(6, 4, 2)), leaf(9.0)), [torch.tensor([1, 1, 2, 3, 3, 3])]
    options = {"duplicates": duplicates}
    same_gradients(
        lambda *a: multi_positive_loss(*a, ids, chunk=chunk, **options),
        lambda *a: multi_positive_loss(*a, ids, **options),
        *leaves,
        rtol=1e-13,
    )
    big = leaf(unit(64, 4, 3))
    with largest_tensor() as seen:
        multi_positive_loss(big, unit(64, 4, 4), 3.0, [torch.arange(64) % 9], chunk=8, **options).backward()
    assert seen.numel == 8 * 64


def test_the_module_reads_the_ids_it_names(unit):
    outputs = {"image_embedding": unit(6, 4, 1), "text_embedding": unit(6, 4, 2), "logit_scale": torch.tensor(9.0)}
    batch = {"text_id": torch.tensor([1, 1, 2, 3, 4, 5]), "group_id": torch.tensor([1, 2, 3, 4, 4, 4])}
    assert "text_id" in MultiPositiveLoss().inputs() and "group_id" not in MultiPositiveLoss().inputs()
    both = MultiPositiveLoss(ids=["text_id", "group_id"])(outputs, batch)
    assert both.value.item() == multi_positive_loss(*outputs.values(), list(batch.values())).item()
    assert both.metrics["positives"].item() == pytest.approx((2 + 2 + 1 + 3 + 3 + 3) / 6)


@pytest.mark.parametrize(
    ("settings", "message"), [({"ids": []}, "at least one"), ({"duplicates": "mask"}, "did you mean 'masked'")]
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        MultiPositiveLoss(**settings)
