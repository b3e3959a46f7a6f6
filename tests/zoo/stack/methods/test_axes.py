"""The picture of axes and its frame: numbers of the paper's file, and what must be seen on it."""

import numpy as np
import pytest
import torch

from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.stack.methods.axes import axis_picture, frame_mask, frame_width
from modalign.zoo.stack.methods.vpp_global import normalised_axes

CLIP = ImagePreprocess(336, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def test_the_papers_frame_has_36720_ones():
    assert frame_width(336) == 30
    assert int(frame_mask(336, 30).sum()) == 36720


@pytest.mark.parametrize(("side", "width"), [(224, 20), (28, 3), (8, 4), (9, 4), (5, 1)])
def test_a_frame_is_what_lies_near_an_edge(side, width):
    mask = frame_mask(side, width)
    assert mask.shape == (1, side, side)
    for row in range(side):
        for column in range(side):
            near = min(row, column, side - 1 - row, side - 1 - column) < width
            assert mask[0, row, column] == float(near)


def test_width_is_in_proportion():
    assert [frame_width(side) for side in (336, 224, 384, 28, 4)] == [30, 20, 34, 2, 1]


def test_normalised_as_the_papers_file():
    axes = normalised_axes(CLIP)
    assert axes.shape == (3, 336, 336)
    assert float(axes.min()) == pytest.approx(-1.7923, abs=1e-4)
    assert float(axes.max()) == pytest.approx(2.1459, abs=1e-4)
    assert float(axes.mean()) == pytest.approx(1.9595, abs=0.06)  # another font: more or less ink
    assert axes[:, 168, 168].tolist() == pytest.approx([1.9303, 2.0749, 2.1459], abs=1e-4)


@pytest.mark.parametrize("side", [224, 336, 384])
def test_everything_drawn_lies_in_the_frame(side):
    ink = np.array(axis_picture(side).convert("L")) < 255
    assert ink.any() and not ink[frame_mask(side, frame_width(side))[0].numpy() == 0].any()


@pytest.mark.parametrize("side", [224, 336])
@pytest.mark.parametrize("turns", range(4))
def test_every_edge_has_a_line_and_eleven_ticks_at_tenths(side, turns):
    grey = np.rot90(np.array(axis_picture(side).convert("L")), turns)
    assert (grey[0] < 128).all()
    crossed = grey[side // 150 + 1] < 128  # between line and digits
    begins = np.flatnonzero(np.diff(np.concatenate([[0], crossed.astype(int)])) == 1)
    assert begins == pytest.approx(np.arange(11) / 10 * (side - 1), abs=1.0)


@pytest.mark.parametrize("turns", range(4))
def test_every_tick_has_digits_of_its_own(turns):
    grey = np.rot90(np.array(axis_picture(336).convert("L")), turns)
    for tenth in range(1, 10):
        at = round(33.6 * tenth)
        digits = grey[6:21, at - 11 : at + 12] < 128
        assert digits.sum() > 10
    clear = [grey[6:12, round(33.6 * tenth + 16.8) - 2 :][:, :4] for tenth in range(2, 8)]
    assert all((part == 255).all() for part in clear)


def test_digits_say_different_numbers():
    grey = np.array(axis_picture(336).convert("L"))
    drawn = {grey[6:14, round(33.6 * tenth) + 1 : round(33.6 * tenth) + 9].tobytes() for tenth in range(1, 10)}
    assert len(drawn) == 9


def test_the_same_every_time():
    assert torch.equal(normalised_axes(CLIP), normalised_axes(CLIP))
