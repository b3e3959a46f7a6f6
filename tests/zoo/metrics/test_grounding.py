"""IoU against torchvision and by counting cells, accuracy over all queries, baselines."""

import pytest
import torch
from torchvision.ops import box_iou as torchvision_iou

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.grounding import box_iou, grounding_scores
from modalign.zoo.metrics.grounding_baselines import grounding_baselines, mean_box, relative_box, scaled_box


def boxes(count, seed, largest=8):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, largest, (count, 2), generator=generator)
    return torch.cat([start, start + torch.randint(1, largest, (count, 2), generator=generator)], 1)


def test_known_values():
    first = torch.tensor([[0, 0, 2, 2], [0, 0, 4, 4], [0, 0, 1, 1], [3, 3, 1, 1], [1, 1, 1, 1]])
    second = torch.tensor([[1, 1, 3, 3], [0, 0, 4, 2], [1, 0, 2, 1], [0, 0, 4, 4], [1, 1, 1, 1]])
    assert box_iou(first, second).tolist() == [1 / 7, 0.5, 0, 0, 0]


def test_iou_is_torchvisions_and_the_share_of_cells():
    first, second = boxes(40, 0), boxes(40, 1)
    found = box_iou(first, second)
    assert torch.allclose(found, torchvision_iou(first.double(), second.double()).diagonal())
    for a, b, iou in zip(first.tolist(), second.tolist(), found.tolist(), strict=True):
        cells = [{(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b)]
        assert iou == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]))
    assert 5 < (found > 0).sum() < 40


def test_iou_is_symmetric_and_sees_neither_shift_nor_scale():
    first, second = boxes(30, 2).double(), boxes(30, 3).double()
    shift, scale = torch.tensor([3.0, 5.0, 3.0, 5.0]), torch.tensor([2.0, 7.0, 2.0, 7.0])
    found = box_iou(first, second)
    assert torch.equal(found, box_iou(second, first))
    assert torch.allclose(found, box_iou(first * scale + shift, second * scale + shift))
    assert box_iou(first, first).tolist() == [1] * 30


def test_all_queries_are_in_the_denominator():
    targets = {"a": [0, 0, 4, 4], "b": [0, 0, 2, 2], "c": [0, 0, 1, 1], "d": [0, 0, 1, 1]}
    predictions = {"d": [1, 1, 0, 0], "a": [0, 0, 4, 2], "b": [1, 1, 3, 3], "c": None}
    found = grounding_scores(predictions, targets, (0.1, 0.5, 0.75))
    assert found == {
        "accuracy@0.1": 0.5,
        "accuracy@0.5": 0.25,  # an IoU of exactly 0.5 is right
        "accuracy@0.75": 0,
        "mean_iou": pytest.approx((1 / 2 + 1 / 7) / 4),
        "unparsed": 1,
        "queries": 4,
    }


def test_a_box_that_is_not_there_counts_like_a_wrong_one():
    rows = boxes(20, 4).tolist()
    targets = {str(i): box for i, box in enumerate(rows)}
    right = grounding_scores(targets, targets)
    assert right == {"accuracy@0.5": 1, "mean_iou": 1, "unparsed": 0, "queries": 20}
    some = {key: None if int(key) % 4 == 0 else box for key, box in targets.items()}
    assert grounding_scores(some, targets) == {"accuracy@0.5": 0.75, "mean_iou": 0.75, "unparsed": 5, "queries": 20}


def test_baselines():
    sizes = {"a": (100, 50), "b": (40, 40)}
    targets = {"a": [25, 12.5, 75, 37.5], "b": [0, 0, 20, 20]}
    found = grounding_baselines(targets, sizes, mean_box(targets, sizes), (0.3, 0.5))
    assert found["centre"] == {"accuracy@0.3": 0.5, "accuracy@0.5": 0.5, "mean_iou": pytest.approx((1 + 1 / 7) / 2)} | {
        "unparsed": 0,
        "queries": 2,
    }
    assert mean_box(targets, sizes) == [0.125, 0.125, 0.625, 0.625]
    one = 0.375**2 / (0.5 - 0.375**2)
    assert found["mean_box"]["mean_iou"] == pytest.approx(one)
    assert list(grounding_baselines(targets, sizes)) == ["centre"]
    assert scaled_box(relative_box([3, 4, 5, 6], (7, 9)), (7, 9)) == pytest.approx([3, 4, 5, 6])


def test_errors():
    box = [0, 0, 1, 1]
    with pytest.raises(DataError, match="grounding: 'b' has no prediction"):
        grounding_scores({"a": box}, {"a": box, "b": box})
    with pytest.raises(DataError, match=r"the target \[1, 1, 1, 2\] of 'a' is empty"):
        grounding_scores({"a": box}, {"a": [1, 1, 1, 2]})
    with pytest.raises(DataError, match=r"the prediction of 'a' is \[0, 0, 1\]"):
        grounding_scores({"a": [0, 0, 1]}, {"a": box})
    with pytest.raises(DataError, match=r"the prediction of 'a' is .*nan"):
        grounding_scores({"a": [0, 0, 1, float("nan")]}, {"a": box})
    with pytest.raises(AssemblyError, match="above 0 and at most at 1, 50 does not"):
        grounding_scores({"a": box}, {"a": box}, (0.5, 50))
    with pytest.raises(DataError, match=r"\(2, 4\) and \(3, 4\)"):
        box_iou(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(DataError, match="the mean box has four relative numbers"):
        grounding_baselines({"a": box}, {"a": (2, 2)}, [0.5])
