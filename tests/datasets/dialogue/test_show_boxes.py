"""`data show` with boxes: where they are drawn, what is written, and that pairs look as they always did."""

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from modalign.datasets.commands.boxes import COLOURS, Label, labels_of, with_boxes
from modalign.datasets.commands.sheet import CELL, MARGIN
from modalign.datasets.commands.show import WIDE_CELL, said, show
from modalign.datasets.dialogue import Box, dialogue_of
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def pixels_of(image, colour):
    """(x0, y0, x1, y1) around the pixels of a colour, as edges."""
    rows, columns = np.nonzero((np.asarray(image) == ImageColor.getrgb(colour)).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_box_is_drawn_where_it_is():
    drawn, hidden = with_boxes([Image.new("RGB", (200, 100), "white")], [Label(Box(20, 40, 60, 90), "")], 400)
    assert drawn.size == (400, 200) and hidden == 0
    assert pixels_of(drawn, COLOURS[0]) == (40, 80, 120, 180)


def test_boxes_of_the_second_picture_are_in_the_second_picture():
    pictures = [Image.new("RGB", (100, 100), "white"), Image.new("RGB", (50, 100), "white")]
    drawn, _ = with_boxes(pictures, [Label(Box(0, 0, 50, 100), "", 1)], 306)
    assert drawn.size == (306, 200)  # 200 + 6 + 100
    assert pixels_of(drawn, COLOURS[0]) == (206, 0, 306, 200)


def test_small_pictures_grow_four_times_and_no_more():
    drawn, _ = with_boxes([Image.new("RGB", (10, 10))], [], 400)
    assert drawn.size == (40, 40)


def test_labels_do_not_cover_one_another_and_what_finds_no_place_is_counted():
    picture = Image.new("RGB", (400, 400), "white")
    one = Label(Box(100, 100, 200, 200), "a hat")
    drawn, hidden = with_boxes([picture], [one] * 3, 400)
    assert hidden == 0
    _, hidden = with_boxes([picture], [one] * 40, 400)
    assert 0 < hidden <= 36  # at most a label for each place around the box, each at least once
    alone, _ = with_boxes([picture], [one], 400)
    colour = np.asarray(ImageColor.getrgb(COLOURS[0]))
    filled = [(np.asarray(image) == colour).all(-1)[:100].sum() for image in (alone, drawn)]
    assert filled[0] > 300 and filled[0] == filled[1]  # the first label stands above the box in both


def test_a_label_at_the_edge_stays_inside():
    drawn, hidden = with_boxes([Image.new("RGB", (400, 60), "white")], [Label(Box(380, 0, 400, 60), "a very long thing")], 400)
    x0, y0, x1, y1 = pixels_of(drawn, COLOURS[0])
    assert hidden == 0 and x0 < 340 and (y0, x1, y1) == (0, 400, 60)


def test_what_is_drawn_of_a_sample(sample):
    regions = [
        {"box": [0, 0, 1, 1], "phrase": "the dog", "category": "dog"},
        {"box": [1, 1, 2, 2], "category": "hat", "crowd": True},
        {"box": [2, 2, 3, 3]},
    ]
    ask = [{"type": "text", "text": " Is "}, {"type": "box", "box": [3, 3, 4, 4]}, {"type": "span", "start": 1, "end": 2.5}]
    turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": [{"type": "box", "box": [4, 4, 5, 5]}]}]
    lines = [{"text": "x", "box": [5, 5, 6, 6]}, {"text": "9", "box": [6, 6, 7, 7]}]
    document = {"fields": {"total": "9"}, "lines": lines, "answer_lines": {"total": [1]}}
    made = sample({"regions": regions, "conversations": turns, **document})
    dialogue = dialogue_of(made)
    texts = ["the dog", "hat (crowd)", "", "box 1", "box 2", "total"]
    boxes = [Box(number, number, number + 1, number + 1) for number in (0, 1, 2, 3, 4, 6)]
    assert [(label.text, label.box) for label in labels_of(made, dialogue)] == list(zip(texts, boxes, strict=True))
    assert said(dialogue) == "user: [image] Is [box 1] [1-2.5 s] assistant: [box 2]"
    two = dialogue_of(sample({"conversations": [{"role": "user", "content": "Same?"}, turns[1]]}, 2))
    assert said(two) == "user: [image 0] [image 1] Same? assistant: [box 1]"


def encoded(size=(64, 48)):
    stream = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(stream, "PNG")
    return stream.getvalue()


def talk(question="What is it?"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "A hat."}]


@pytest.mark.filterwarnings("error")
def test_conversations_with_and_without_pictures_on_one_sheet(tmp_path, capsys):
    samples = [
        {"key": "a", "image": encoded(), "conversations": talk(), "regions": [{"box": [8, 8, 40, 40], "phrase": "a hat"}]},
        {"key": "b", "conversations": talk("Why? " * 200)},
    ]
    write_shards(samples, tmp_path / "s", task="conversation")
    show(str(tmp_path / "s"), str(tmp_path / "sheet.png"))
    out = capsys.readouterr().out
    assert "a: user: [image] What is it? assistant: A hat." in out and "b: user: Why? Why?" in out
    assert all(len(line) < 420 for line in out.splitlines())
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 * (WIDE_CELL + MARGIN) + MARGIN
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels == ImageColor.getrgb(COLOURS[0])).all(-1).sum() > 500 and (pixels == (9, 99, 199)).all(-1).sum() > 10_000


def test_regions_are_named_below_where_there_is_no_caption(tmp_path, capsys):
    samples = [{"key": "a", "image": encoded(), "regions": [{"box": [0, 0, 9, 9], "phrase": "a hat"}, {"box": [1, 1, 2, 2]}]}]
    write_shards(samples, tmp_path / "s", task="grounding")
    show(str(tmp_path / "s"), str(tmp_path / "sheet.png"))
    assert "a: a hat\n" in capsys.readouterr().out


def test_a_wrong_annotation_is_an_error_where_the_task_promises_it(tmp_path):
    sample = {"key": "a", "image": encoded(), "regions": "mine", "captions": {"en": ["x"]}}
    write_shards([sample], tmp_path / "grounding", task="grounding")
    with pytest.raises(DataError, match="grounding: sample 'a', field 'regions': must be a list of regions"):
        show(str(tmp_path / "grounding"), str(tmp_path / "sheet.png"))
    write_shards([sample], tmp_path / "pairs")
    show(str(tmp_path / "pairs"), str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == CELL + 2 * MARGIN


def test_a_sample_with_nothing_to_draw_is_an_error(tmp_path):
    write_shards([{"key": "a", "spans": []}], tmp_path / "s", task="grounding")
    with pytest.raises(DataError, match="s: sample 'a' has no image to show"):
        show(str(tmp_path / "s"), str(tmp_path / "sheet.png"))
