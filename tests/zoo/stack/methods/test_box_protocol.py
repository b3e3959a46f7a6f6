"""What the family's boxes mean: numbers of the published protocol, through the model's own frame and the metric."""

import pytest
import torch

from modalign.zoo.language.turns import BoxPart, Dialogue, ImagePart, TextPart, Turn
from modalign.zoo.metrics.box_text import parse_box
from modalign.zoo.metrics.grounding import box_iou, grounding_scores


def test_boxes_are_relative_to_the_padded_square(stack):
    frame = stack("vpp_llava", hooks={"vpp_global": {}}).box_frame
    assert frame.pixels([0.25, 0.30, 0.75, 0.70], (640, 480)) == pytest.approx([160, 112, 480, 368])
    assert frame((160, 112, 480, 368), (640, 480)) == "[0.250, 0.300, 0.750, 0.700]"


def test_an_answer_that_is_learnt_comes_back_as_its_pixels(stack, photo):
    model = stack("vpp_llava", hooks={"vpp_global": {}})
    box = (8.0, 4.0, 40.0, 24.0)
    dialogue = Dialogue((Turn("user", (ImagePart(0), TextPart(" Where is the bird?"))), Turn("assistant", (BoxPart(box, 0),))))
    example = model.prepare()("k", dialogue, [photo(64, 32)])
    learnt = [label for label in example["labels"] if label >= 0]
    text = model.language.tokenizer.decode(learnt, skip_special_tokens=True)
    assert model.box_frame.pixels(parse_box(text), (64, 32)) == pytest.approx(box, abs=0.1)


def test_overlap_of_half_counts():
    first = torch.tensor([[0, 0, 2, 2], [0, 0, 4, 4]])
    second = torch.tensor([[1, 1, 3, 3], [0, 0, 4, 2]])
    assert box_iou(first, second).tolist() == pytest.approx([1 / 7, 0.5])
    scores = grounding_scores(dict(enumerate(first.tolist())), dict(enumerate(second.tolist())))
    assert scores["accuracy@0.5"] == 0.5
