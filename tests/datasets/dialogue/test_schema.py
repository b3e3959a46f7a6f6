"""Conversations, regions, documents and spans: what they become, and every violation with the sentence it gets."""

import json
import pickle
import re
from pathlib import Path

import pytest

from modalign.datasets.dialogue import (
    AudioPart,
    Box,
    BoxPart,
    Dialogue,
    DocumentFields,
    ImagePart,
    Line,
    Media,
    Region,
    SchemaError,
    Span,
    SpanPart,
    TextPart,
    Turn,
    VideoPart,
    check_annotations,
    dialogue_of,
    fields_of,
    media_of,
    regions_of,
    spans_of,
)
from modalign.zoo.errors import DataError


def user(content):
    return {"role": "user", "content": content}


def assistant(content="yes"):
    return {"role": "assistant", "content": content}


def test_a_sample_without_annotations_has_none(sample):
    bare = sample({"group": "g"})
    assert dialogue_of(bare) is None and regions_of(bare) == [] and fields_of(bare) is None and spans_of(bare) == []


def test_every_part_becomes_its_object(sample):
    parts = [
        {"type": "text", "text": " Who is in "},
        {"type": "box", "box": [1, 2.5, 20, 50], "image": 1},
        {"type": "image", "index": 1},
        {"type": "image"},
        {"type": "audio"},
        {"type": "video"},
        {"type": "span", "start": 0, "end": 2.5},
    ]
    turns = [{"role": "system", "content": "Be brief."}, user(parts), assistant("A dog."), user("Sure?"), assistant()]
    found = dialogue_of(sample({"conversations": turns}, 2, wav=object(), mp4=b"x"))
    said = (
        TextPart(" Who is in "),
        BoxPart(Box(1, 2.5, 20, 50), 1),
        ImagePart(1),
        ImagePart(0),  # the first that was not shown
        AudioPart(0),
        VideoPart(0),
        SpanPart(0, 2.5),
    )
    assert found == Dialogue(
        (
            Turn("system", (TextPart("Be brief."),)),
            Turn("user", said),
            Turn("assistant", (TextPart("A dog."),)),
            Turn("user", (TextPart("Sure?"),)),
            Turn("assistant", (TextPart("yes"),)),
        )
    )
    box = found.turns[1].parts[1].box
    assert (box.x0, box.y0, box.x1, box.y1) == tuple(box) == (1, 2.5, 20, 50)


def test_the_page_s_example_follows_the_schema(sample):
    page = (Path(__file__).resolve().parents[3] / "docs" / "conversations.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.S)
    made = sample(json.loads(example), 0)
    found = dialogue_of(made, media=Media(((200, 100),)))
    assert [turn.role for turn in found.turns] == ["system", "user", "assistant"]
    assert found.turns[1].parts[0] == ImagePart(0) and found.turns[1].parts[2] == BoxPart(Box(10, 20, 110, 90))


def test_pictures_that_no_turn_places_come_first(sample):
    turns = [{"role": "system", "content": "s"}, user("What?"), assistant(), user("And?"), assistant()]
    found = dialogue_of(sample({"conversations": turns}, 2))
    assert found.turns[1].parts == (ImagePart(0), TextPart("\n"), ImagePart(1), TextPart("\n"), TextPart("What?"))
    assert [len(turn.parts) for turn in found.turns] == [1, 5, 1, 1, 1]
    assert dialogue_of(sample({"conversations": turns[1:3]}, 0)).turns[0].parts == (TextPart("What?"),)


def test_pictures_are_shown_in_order_over_turns_and_may_be_shown_again(sample):
    turns = [user([{"type": "image"}]), assistant(), user([{"type": "image"}, {"type": "image", "index": 0}]), assistant()]
    found = dialogue_of(sample({"conversations": turns}, 2))
    assert [turn.parts for turn in found.turns[::2]] == [(ImagePart(0),), (ImagePart(1), ImagePart(0))]


def test_a_question_without_answer_is_for_a_model(sample):
    asked = sample({"conversations": [user("What?")]}, 0)
    assert len(dialogue_of(asked, answered=False).turns) == 1
    with pytest.raises(SchemaError, match="turn 1: it is the last and the user's; the last turn must be the assistant's answer"):
        dialogue_of(asked)


def test_media_that_were_not_decoded_can_be_said(sample):
    turns = [user([{"type": "image"}, {"type": "box", "box": [0, 0, 999, 999]}]), assistant()]
    bare = sample({"conversations": turns}, 0)
    assert dialogue_of(bare, media=Media((None,))).turns[0].parts == (ImagePart(0), BoxPart(Box(0, 0, 999, 999), 0))
    with pytest.raises(SchemaError, match="there is no picture left to show; the sample has 0"):
        dialogue_of(bare)
    masked = sample({"regions": [{"box": [0, 0, 1, 1], "mask": "mask.0.png"}]}, 0)
    assert regions_of(masked, media=Media((None,)))[0].mask == "mask.0.png"


def test_what_media_a_sample_has(sample):
    extras = {"0_wav": 1, "1_flac": 1, "en_ogg": b"", "0_mp4": b"", "mask_0_png": 1, "seg_mp4": b""}
    found = media_of(sample({}, 2, **extras))
    assert (found.pictures, found.recordings, found.videos) == (((40, 30), (20, 50)), 2, 1)
    assert "mask.0.png" in found.members


OK = [user("a"), assistant("b")]
BAD_CONVERSATIONS = [
    ({}, "field 'conversations': must be a non-empty list of turns, it is dict"),
    ([], "field 'conversations': must be a non-empty list of turns, it is empty"),
    (["hello"], "turn 1: must be an object with 'role', 'content', it is str"),
    ([{"role": "user"}], "turn 1: 'content' is missing"),
    ([user("a"), {"content": "b"}], "turn 2: 'role' is missing"),
    ([{**user("a"), "contents": 1}, assistant()], "turn 1: 'contents' is not known here; did you mean 'content'?"),
    ([{"role": "human", "content": "a"}], "turn 1: 'role' is 'human'; known: assistant, system, user"),
    ([{"role": "asistant", "content": "a"}], "turn 1: 'role' is 'asistant'; did you mean 'assistant'?"),
    ([{"role": ["user"], "content": "a"}], "turn 1: 'role' is ['user']"),
    ([{"role": "system", "content": "s"}], "field 'conversations': there is no user turn"),
    ([*OK, {"role": "system", "content": "s"}], "turn 3: its role is 'system', which only the first turn may have"),
    ([{"role": "system", "content": "s"}] * 2, "turn 2: its role is 'system', which only the first turn may have"),
    ([assistant("b")], "turn 1: its role is 'assistant', 'user' is wanted"),
    ([user("a"), user("b")], "turn 2: its role is 'user', 'assistant' is wanted"),
    ([{"role": "system", "content": "s"}, assistant()], "turn 2: its role is 'assistant', 'user' is wanted"),
    ([*OK, user("c")], "turn 3: it is the last and the user's; the last turn must be the assistant's answer"),
    ([user(""), assistant()], "turn 1: 'content' must be a non-empty text, it is empty"),
    ([user(" \n"), assistant()], "turn 1: 'content' has a blank text"),
    ([user("a\ud800"), assistant()], "turn 1: 'content' has a text that is no Unicode"),
    ([user(3), assistant()], "turn 1: must be a non-empty list of parts (or a text), it is int"),
    ([user([]), assistant()], "turn 1: must be a non-empty list of parts (or a text), it is empty"),
    ([user([{"type": "text", "text": "  "}]), assistant()], "turn 1: 'content' has nothing but spaces"),
]
IMAGE = {"type": "image"}
BAD_PARTS = [
    ("hello", "a part must be an object with a known 'type', this has None; known: text, box"),
    ({"text": "a"}, "a part must be an object with a known 'type', this has None"),
    ({"type": "img"}, "this has 'img'; did you mean 'image'?"),
    ({"type": ["image"]}, "this has ['image']; known: text"),
    ({"type": "text"}, "'text' is missing"),
    ({"type": "text", "text": ""}, "'text' must be a non-empty text, it is empty"),
    ({"type": "text", "text": 5}, "'text' must be a non-empty text, it is int"),
    ({"type": "text", "text": "x\udc00"}, "'text' has a text that is no Unicode"),
    ({"type": "text", "text": "x", "index": 0}, "'index' is not known here"),
    ({"type": "image", "index": 2}, "'index' is 2, but the sample has 2 picture(s), numbered from 0"),
    ({"type": "image", "index": -1}, "'index' must be a whole number from 0 on, it is -1"),
    ({"type": "image", "index": 0.0}, "'index' must be a whole number from 0 on, it is 0.0"),
    ({"type": "image", "index": True}, "'index' must be a whole number from 0 on, it is True"),
    ({"type": "image", "idx": 1}, "'idx' is not known here; did you mean 'index'?"),
    (IMAGE, "there is no picture left to show; the sample has 2 picture(s)"),
    ({"type": "audio"}, "there is no recording left to show; the sample has 0 recording(s)"),
    ({"type": "video", "index": 0}, "'index' is 0, but the sample has 0 video(s)"),
    ({"type": "box"}, "'box' is missing"),
    ({"type": "box", "box": [1, 2, 3]}, "'box' must be four numbers [x0, y0, x1, y1], it is [1, 2, 3]"),
    ({"type": "box", "box": "1, 2, 3, 4"}, "'box' must be four numbers [x0, y0, x1, y1], it is '1, 2, 3, 4'"),
    ({"type": "box", "box": [1, 2, "3", 4]}, "'box' must be a number, it is str"),
    ({"type": "box", "box": [1, 2, True, 4]}, "'box' must be a number, it is bool"),
    ({"type": "box", "box": [1, 2, float("nan"), 4]}, "'box' must be a finite number, it is nan"),
    ({"type": "box", "box": [1, 2, 10**400, 4]}, "'box' must be a finite number, it is inf"),
    ({"type": "box", "box": [9, 2, 8, 4]}, "'box' [9, 2, 8, 4] is turned around; x0 <= x1 and y0 <= y1 are wanted"),
    ({"type": "box", "box": [1, 5, 8, 4]}, "'box' [1, 5, 8, 4] is turned around"),
    ({"type": "box", "box": [-0.01, 0, 8, 4]}, "'box' [-0.01, 0, 8, 4] is not inside its picture of 40x30 pixels"),
    ({"type": "box", "box": [0, 0, 8, 30.5]}, "is not inside its picture of 40x30 pixels"),
    ({"type": "box", "box": [0, 0, 30, 8], "image": 1}, "is not inside its picture of 20x50 pixels"),
    ({"type": "box", "box": [0, 0, 3, 8], "image": 2}, "'image' is 2, but the sample has 2 picture(s)"),
    ({"type": "span", "start": 1}, "'end' is missing"),
    ({"type": "span", "start": 2, "end": 1}, "0 <= start <= end is wanted (seconds), found 2 and 1"),
    ({"type": "span", "start": -1, "end": 1}, "0 <= start <= end is wanted"),
    ({"type": "span", "start": 0, "end": float("inf")}, "'end' must be a finite number, it is inf"),
]


@pytest.mark.parametrize(("turns", "message"), BAD_CONVERSATIONS)
def test_bad_turns_name_sample_and_turn(sample, turns, message):
    with pytest.raises(DataError) as caught:
        dialogue_of(sample({"conversations": turns}, 0))
    assert str(caught.value).startswith("sample 'k', field 'conversations'") and message in str(caught.value)


@pytest.mark.parametrize(("part", "message"), BAD_PARTS)
def test_bad_parts_name_sample_turn_and_part(sample, part, message):
    turns = [user("Hello."), assistant(), user([IMAGE, IMAGE, part]), assistant()]
    with pytest.raises(DataError) as caught:
        dialogue_of(sample({"conversations": turns}, 2))
    assert str(caught.value).startswith("sample 'k', field 'conversations', turn 3, part 3: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({}, 'no turn shows picture 1 (of 2, numbered from 0); put {"type": "image"} where it belongs'),
        ({"wav": 1}, "no turn shows picture 1 (of 2"),
    ],
)
def test_a_picture_that_is_never_shown_is_an_error_once_another_is(sample, extras, message):
    turns = [user([IMAGE, {"type": "box", "box": [0, 0, 1, 1], "image": 1}]), assistant()]  # a box does not show its picture
    with pytest.raises(SchemaError) as caught:
        dialogue_of(sample({"conversations": turns}, 2, **extras))
    assert message in str(caught.value)


def test_recordings_are_never_placed_by_themselves(sample):
    with pytest.raises(SchemaError, match=r"no turn shows recording 0 \(of 1"):
        dialogue_of(sample({"conversations": OK}, 1, wav=1))


def test_the_edge_of_the_picture_is_inside(sample):
    turns = [user([IMAGE, {"type": "box", "box": [0, 0, 40, 30]}, {"type": "box", "box": [0.1 + 0.2, 5, 0.3, 5]}]), assistant()]
    with pytest.raises(SchemaError, match="turned around"):  # 0.1 + 0.2 > 0.3: no repair of what is wrong
        dialogue_of(sample({"conversations": turns}))
    turns[0]["content"][2]["box"] = [40.0000001, 5, 40.0000001, 5]
    assert dialogue_of(sample({"conversations": turns})).turns[0].parts[2].box.x1 == 40.0000001


def test_an_error_travels_between_processes(sample):
    with pytest.raises(SchemaError) as caught:
        dialogue_of(sample({"conversations": []}))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.place == caught.value.place and again.reason == caught.value.reason


def test_regions(sample):
    entries = [
        {"box": [0, 1, 2, 3.5], "phrase": "the dog", "category": "dog"},
        {"box": [0, 0, 20, 50], "crowd": True, "image": 1, "mask": "mask.0.png", "phrase": None},
    ]
    assert regions_of(sample({"regions": entries}, 2, mask_0_png=object())) == [
        Region(Box(0, 1, 2, 3.5), "the dog", "dog", False, 0, None),
        Region(Box(0, 0, 20, 50), None, None, True, 1, "mask.0.png"),
    ]
    assert regions_of(sample({"regions": []})) == []


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (7, "region 2: must be an object with 'box', it is int"),
        ({"phrase": "x"}, "region 2: 'box' is missing"),
        ({"box": [0, 0, 41, 3]}, "region 2: 'box' [0, 0, 41, 3] is not inside its picture of 40x30 pixels"),
        ({"box": [0, 0, 1, 1], "image": 1}, "region 2: 'image' is 1, but the sample has 1 picture(s)"),
        ({"box": [0, 0, 1, 1], "phrse": "x"}, "region 2: 'phrse' is not known here; did you mean 'phrase'?"),
        ({"box": [0, 0, 1, 1], "phrase": " "}, "region 2: 'phrase' has a blank text"),
        ({"box": [0, 0, 1, 1], "category": 3}, "region 2: 'category' must be a non-empty text, it is int"),
        ({"box": [0, 0, 1, 1], "crowd": 1}, "region 2: 'crowd' must be true or false, it is 1"),
        ({"box": [0, 0, 1, 1], "mask": "mask.1.png"}, "region 2: 'mask' is 'mask.1.png', but the sample has no such member"),
        ({"box": [0, 0, 1, 1], "mask": "1.png"}, "region 2: 'mask' is '1.png', which is the name of a picture to show"),
    ],
)
def test_bad_regions_name_sample_and_region(sample, region, message):
    with pytest.raises(SchemaError) as caught:
        regions_of(sample({"regions": [{"box": [0, 0, 1, 1]}, region]}))
    assert str(caught.value).startswith("sample 'k', field 'regions', ") and message in str(caught.value)
    with pytest.raises(SchemaError, match="must be a list of regions, it is dict"):
        regions_of(sample({"regions": {}}))


def test_a_document(sample):
    meta = {
        "fields": {"total": "9.00", "date": "1 May"},
        "lines": [{"text": "SUM 9.00", "box": [0, 0, 10, 5]}, {"text": "x", "box": [0, 5, 10, 10]}],
        "answer_lines": {"total": [1, 0], "date": []},
    }
    lines = (Line("SUM 9.00", Box(0, 0, 10, 5)), Line("x", Box(0, 5, 10, 10)))
    assert fields_of(sample(meta)) == DocumentFields(meta["fields"], lines, {"total": (1, 0), "date": ()})
    assert fields_of(sample({"fields": {"a": "b"}}, 0)) == DocumentFields({"a": "b"})


LINE = {"text": "x", "box": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"fields": ["total"]}, "field 'fields': must be an object {name: answer text}, it is list"),
        ({"fields": {"total": 9}}, "field 'fields': 'total' must be a non-empty text, it is int"),
        ({"fields": {"total": " "}}, "field 'fields': 'total' has a blank text"),
        ({"fields": {"": "x"}}, "field 'fields': 'name' must be a non-empty text, it is empty"),
        ({"lines": {}}, "field 'lines': must be a list of lines, it is dict"),
        ({"lines": [LINE, {"text": "x"}]}, "field 'lines', line 2: 'box' is missing"),
        ({"lines": [{"text": "", "box": [0, 0, 1, 1]}]}, "field 'lines', line 1: 'text' must be a non-empty text"),
        ({"lines": [{"text": "x", "box": [0, 0, 1, 99]}]}, "field 'lines', line 1: 'box' [0, 0, 1, 99] is not inside"),
        ({"lines": [{**LINE, "page": 1}]}, "field 'lines', line 1: 'page' is not known here"),
        ({"fields": {"a": "b"}, "answer_lines": [0]}, "field 'answer_lines': must be an object {name: list of line numbers}"),
        ({"fields": {"a": "b"}, "answer_lines": {"c": []}}, "field 'answer_lines', 'c': 'fields' has no such name (it has 'a')"),
        ({"answer_lines": {"c": []}}, "field 'answer_lines', 'c': 'fields' has no such name (it has none)"),
        (
            {"fields": {"a": "b"}, "lines": [LINE], "answer_lines": {"a": [1]}},
            "field 'answer_lines', 'a': 'line number' is 1, but the sample has 1 line(s), numbered from 0",
        ),
        ({"fields": {"a": "b"}, "lines": [LINE], "answer_lines": {"a": 0}}, "'a': must be a list of line numbers, it is int"),
    ],
)
def test_bad_documents_name_sample_and_place(sample, meta, message):
    with pytest.raises(SchemaError) as caught:
        fields_of(sample(meta))
    assert str(caught.value).startswith("sample 'k', ") and message in str(caught.value)


def test_lines_need_a_picture(sample):
    with pytest.raises(SchemaError, match="line 1: the sample has no picture for its box"):
        fields_of(sample({"lines": [LINE]}, 0))


def test_spans(sample):
    found = spans_of(sample({"spans": [{"start": 0, "end": 1.5, "phrase": "a jump"}, {"start": 2, "end": 2}]}, 0))
    assert found == [Span(0, 1.5, "a jump"), Span(2, 2, None)]


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"start": 1}, "span 1: 'end' is missing"),
        ({"start": 3, "end": 2}, "span 1: 0 <= start <= end is wanted (seconds), found 3 and 2"),
        ({"start": "0", "end": 2}, "span 1: 'start' must be a number, it is str"),
        ({"start": 0, "end": 2, "text": "x"}, "span 1: 'text' is not known here"),
        ({"start": 0, "end": 2, "phrase": ""}, "span 1: 'phrase' must be a non-empty text, it is empty"),
    ],
)
def test_bad_spans_name_sample_and_span(sample, span, message):
    with pytest.raises(SchemaError) as caught:
        spans_of(sample({"spans": [span]}, 0))
    assert f"sample 'k', field 'spans', {message}" in str(caught.value)


@pytest.mark.parametrize(
    "meta", [{"conversations": []}, {"regions": 1}, {"fields": 1}, {"lines": 1}, {"answer_lines": 1}, {"spans": 1}], ids=str
)
def test_all_at_once_finds_each(sample, meta):
    check_annotations(sample({"conversations": OK, "regions": [], "fields": {}, "spans": []}))
    with pytest.raises(SchemaError, match=f"field '{next(iter(meta))}'"):
        check_annotations(sample(meta))


def part_with(kind, value):
    return {"conversations": [user([{"type": kind, "box": value, "index": value, "text": value}]), assistant()]}


def places_for(value):
    """Samples' JSON with a value in every place of the schema."""
    return [
        {"conversations": value},
        {"conversations": [value, value]},
        {"conversations": [{"role": value, "content": "x"}]},
        {"conversations": [user(value), assistant(value)]},
        {"conversations": [user([value]), assistant()]},
        {"conversations": [user([{"type": value}]), assistant()]},
        {"conversations": [user([{"type": "image", "index": value}]), assistant()]},
        {"conversations": [user([{"type": "box", "box": value}]), assistant()]},
        {"conversations": [user([{"type": "box", "box": [0, 0, 1, 1], "image": value}]), assistant()]},
        {"conversations": [user([{"type": "span", "start": value, "end": value}]), assistant()]},
        {"regions": value},
        {"regions": [value]},
        *({"regions": [{"box": [0, 0, 1, 1], name: value}]} for name in ("box", "phrase", "image", "mask", "crowd")),
        {"fields": value},
        {"fields": {"a": value}},
        {"lines": [{"text": value, "box": value}]},
        {"fields": {"a": "b"}, "answer_lines": value},
        {"fields": {"a": "b"}, "answer_lines": {"a": [value]}},
        {"spans": value},
        {"spans": [{"start": value, "end": value}]},
    ]


JSON_VALUES = [None, True, 3, -1.5, "x", "", [], {}, [[]], [{}], {"type": "box"}, [1, 2, 3, 4], "\ud800", 10**400]


@pytest.mark.parametrize("value", JSON_VALUES, ids=[f"value{number}" for number in range(len(JSON_VALUES))])
def test_nothing_that_json_can_hold_gets_another_error(sample, value):
    """Any JSON value in any place is read or refused with a sentence, never with a traceback."""
    refused = 0
    for meta in map(json.loads, map(json.dumps, places_for(value))):
        try:
            check_annotations(sample(meta))
        except SchemaError as error:
            assert str(error).startswith("sample 'k', field '")
            refused += 1
    assert refused >= 10
