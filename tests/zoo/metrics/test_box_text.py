"""Boxes read from answers, and the way between padded square and pixels."""

import random

import pytest
from PIL import Image

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.box_text import pad_box, parse_box, parse_boxes, unpad_box

ONE = [0.25, 0.3, 0.75, 0.7]


@pytest.mark.parametrize(
    "text",
    [
        "[0.25, 0.3, 0.75, 0.7]",
        "[0.25,0.30,0.75,0.700]",
        "(0.25, 0.3, 0.75, 0.7)",
        "0.25, 0.3, 0.75, 0.7",
        "0.25 0.3 0.75 0.7.",
        "[.25; 3e-1; 0.75; 0.7]",
        "The 2 dogs are at [0.25, 0.3, 0.75, 0.7]. I am 100% sure.",
        "box 0.25, 0.3, 0.75, 0.7 100 percent",
        "(0.25, 0.3), (0.75, 0.7)",
        "<0.25,0.3><0.75,0.7>",
        "[[0.25, 0.3, 0.75, 0.7]]",
        "[0.25, 0.3, 0.75, 0.7",
    ],
)
def test_a_box_is_found(text):
    assert parse_box(text) == ONE and parse_boxes(text) == [ONE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot see it.",
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "1,2,3,4,5px",
        "1, 2, 3, 4.5px",
        "x1, y1, x2, y2",
        "10%, 20%, 30%, 40%",
        "1e999, 1, 2, 3",
        "192.168.0.1",
        "[0, 0, nan, 1]",
    ],
)
def test_none_is_found(text):
    assert parse_box(text) is None and parse_boxes(text) == []


def test_several_boxes_integers_and_signs():
    assert parse_boxes("dog [1, 2, 3, 4] and cat [50, 60, 70, 80]") == [[1, 2, 3, 4], [50, 60, 70, 80]]
    assert parse_boxes("[[1,2,3,4],[5,6,7,8]]") == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert parse_boxes("(1,2),(3,4) (5,6),(7,8)") == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert parse_box("[-3, +4, 1, 2]") == [-3, 4, 1, 2]
    assert parse_box("[0.9, 0.8, 0.1, 0.2]") == [0.9, 0.8, 0.1, 0.2]  # as it was said, not put in order


def official(text):
    """The rule of the released evaluation, read from its text: what is not read there becomes zeros."""
    try:
        numbers = list(map(float, text.strip("[]").split(", ")))
    except ValueError:
        return None
    return numbers if len(numbers) == 4 else None


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.25, 0.3, 0.75, 0.7]", ONE),
        ("0.25, 0.3, 0.75, 0.7", ONE),
        ("[0.25,0.3,0.75,0.7]", None),
        ("It is [0.25, 0.3, 0.75, 0.7]", None),
        ("[0.25, 0.3, 0.75, 0.7].", None),
        ("[0.25, 0.3, 0.75]", None),
        ("[0.25, 0.3, 0.75, nan]", None),
        ("", None),
    ],
)
def test_the_strict_parser(text, box):
    assert parse_box(text, strict=True) == box
    assert parse_boxes(text, strict=True) == ([] if box is None else [box])
    assert "nan" in text or official(text) == box


def test_the_example_of_a_landscape():
    assert unpad_box(ONE, 640, 480) == [160, 112, 480, 368]
    assert unpad_box([0.3, 0.25, 0.7, 0.75], 480, 640) == [112, 160, 368, 480]
    assert unpad_box(ONE, 100, 100) == pytest.approx([25, 30, 75, 70])


def test_clamping():
    box = [-0.1, 0.0, 1.1, 1.0]
    assert unpad_box(box, 640, 480) == pytest.approx([0, 0, 704, 560])
    assert unpad_box(box, 640, 480, "both") == [0, 0, 640, 480]
    assert unpad_box(box, 480, 640, "both") == [0, 0, 480, 640]
    with pytest.raises(AssemblyError, match="clamp: there is no 'upper'"):
        unpad_box(box, 640, 480, "upper")


def test_padding_is_the_inverse():
    draw = random.Random(0)
    for _ in range(50):
        width, height = draw.randint(1, 900), draw.randint(1, 900)
        x, y = (sorted(draw.uniform(0, side) for _ in range(2)) for side in (width, height))
        box = [x[0], y[0], x[1], y[1]]
        relative = pad_box(box, width, height)
        assert unpad_box(relative, width, height) == pytest.approx(box, abs=1e-9)
        assert all(0 <= value <= 1 for value in relative)


@pytest.mark.parametrize("size", [(7, 4), (4, 7), (5, 5), (8, 3)])
def test_a_padded_picture_has_its_box_where_the_formula_says(size):
    """Pictures are pasted at half the difference, rounded down."""
    width, height = size
    side = max(size)
    square = Image.new("L", (side, side), 0)
    square.paste(Image.new("L", size, 255), ((side - width) // 2, (side - height) // 2))
    assert pad_box([0, 0, width, height], width, height) == pytest.approx([value / side for value in square.getbbox()])


def test_errors():
    with pytest.raises(DataError, match="a box has four numbers, x1, y1, x2, y2; got 3"):
        unpad_box([1, 2, 3], 10, 10)
    with pytest.raises(DataError, match="a picture of 0 x 10 has no pixels"):
        pad_box(ONE, 0, 10)
