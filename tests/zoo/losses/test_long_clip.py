"""Long-CLIP's two terms and its reconstruction from principal components."""

import pytest
import torch

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.long_clip import LongClipLoss, long_clip_loss
from modalign.zoo.losses.parts.principal_components import principal_reconstruction


def by_decomposition(rows, components):
    """The textbook form: centre, decompose, keep, put together again."""
    mean = rows.mean(0)
    left, values, right = torch.linalg.svd(rows - mean, full_matrices=False)
    return (left[:, :components] * values[:components]) @ right[:components] + mean


@pytest.mark.parametrize(("count", "width"), [(12, 5), (5, 12), (8, 8)])
@pytest.mark.parametrize("components", [1, 3])
def test_reconstruction_equals_a_singular_value_decomposition(unit, leaf, same_gradients, count, width, components):
    probe = unit(count, width, 3)
    same_gradients(
        lambda rows: (principal_reconstruction(rows, components) * probe).sum(),
        lambda rows: (by_decomposition(rows, components) * probe).sum(),
        leaf(unit(count, width, 1)),
        rtol=1e-8,
        atol=1e-11,
    )


def test_reconstruction_has_the_rank_asked_for_and_the_mean_of_the_rows(unit):
    rows = unit(10, 6, 1)
    found = principal_reconstruction(rows, 2)
    assert torch.linalg.matrix_rank(found - found.mean(0), tol=1e-10) == 2
    torch.testing.assert_close(found.mean(0), rows.mean(0))


@pytest.mark.parametrize(("count", "components"), [(4, 3), (4, 32), (1, 1), (9, 6), (0, 2)])
def test_enough_components_change_nothing(unit, count, components):
    rows = unit(count, 6, 1)
    assert torch.equal(principal_reconstruction(rows, components), rows)


@pytest.mark.parametrize("width", [4, 20])
def test_equal_components_inside_the_kept_ones_do_no_harm(width, leaf):
    """A square's corners: the two components are equally large, and a decomposition's own derivative is infinite."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(2, 1)
    rows = leaf(torch.nn.functional.pad(corners, (0, width - 2)))
    probe = torch.arange(8.0 * width, dtype=torch.float64).view(8, width).sin()
    (grad,) = torch.autograd.grad((principal_reconstruction(rows, 2) * probe).sum(), rows)
    assert grad.isfinite().all() and grad.abs().max() > 0.1
    (broken,) = torch.autograd.grad((by_decomposition(rows, 2) * probe).sum(), rows)
    assert not broken.isfinite().all()


def test_rows_that_are_all_equal_give_finite_gradients(leaf):
    rows = leaf(torch.ones(6, 4))
    principal_reconstruction(rows, 2).square().sum().backward()
    assert rows.grad.isfinite().all()


def test_long_clip_is_two_clip_losses(unit):
    image, long, short, scale = unit(8, 5, 1), unit(8, 5, 2), unit(8, 5, 3), 11.0
    reduced = by_decomposition(image, 2)
    wanted = clip_loss(image, long, scale, label_smoothing=0.1) + 0.5 * clip_loss(reduced, short, scale, label_smoothing=0.1)
    found = long_clip_loss(image, long, short, scale, components=2, short_weight=0.5)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-10)


def test_the_module_reads_three_embeddings_and_reports_both_terms(unit):
    outputs = {"image_embedding": unit(8, 5, 1), "text_embedding": unit(8, 5, 2), "second_text_embedding": unit(8, 5, 3)}
    outputs["logit_scale"] = torch.tensor(7.0)
    result = LongClipLoss(components=2, short_weight=0.5)(outputs, {})
    wanted = long_clip_loss(*outputs.values(), components=2, short_weight=0.5)
    assert result.value.item() == wanted.item()
    assert result.value.item() == pytest.approx((result.metrics["long"] + 0.5 * result.metrics["short"]).item(), rel=1e-12)
    assert LongClipLoss(components=2, gather_components=True)(outputs, {}).value.item() == pytest.approx(
        LongClipLoss(components=2)(outputs, {}).value.item(), rel=1e-12
    )
    with pytest.raises(RecipeError, match="components: 0"):
        LongClipLoss(components=0)


@pytest.mark.parametrize(("have", "warns"), [([False, False, False], 1), ([False, True, False], 0), (None, 0)])
def test_stand_ins_alone_are_said_once(unit, have, warns, recwarn):
    names = ("image_embedding", "text_embedding", "second_text_embedding")
    outputs = {name: unit(3, 4, seed) for seed, name in enumerate(names)} | {"logit_scale": torch.tensor(5.0)}
    loss = LongClipLoss()
    for batch in (have, [False] * 3):  # what a later batch holds says nothing of the data
        loss(outputs, {} if batch is None else {"has_second_text": torch.tensor(batch)})
    said = [str(entry.message) for entry in recwarn if "long_clip" in str(entry.message)]
    assert len(said) == warns and all("second_caption: first_sentence" in text for text in said)
