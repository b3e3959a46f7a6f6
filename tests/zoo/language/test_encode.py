"""Conversations as ids and labels: against tokenising the text in one go, and what is refused."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalign.zoo.errors import DataError
from modalign.zoo.language.encode import IGNORE, IMAGE_PLACEHOLDER, PREFIX_PLACEHOLDER, DialogueEncoder, placed
from modalign.zoo.language.templates import LAYOUTS, MARK, ChatTemplate
from modalign.zoo.language.turns import AudioPart, BoxPart, Dialogue, ImagePart, SpanPart, TextPart, VideoPart, conversation

from ..stack import written

WORDS = {kind: written.tokenizer(kind, chat_template=written.CHATML) for kind in ("bytes", "pieces")}
SIZES = [(40, 30), (20, 60)]
TALK = conversation(
    ("user", [ImagePart(0), TextPart("\nWhat is it?")]),
    ("assistant", "A red apple."),
    ("user", "How many birds are there?"),
    ("assistant", "Two."),
)


def tokens_of(sizes):
    """Five tokens of a picture, and one for every 20 pixels of its width."""
    return [5 + width // 20 for width, _ in sizes]


def box_text(box, size):
    return f"[{box[0] / size[0]:.2f}]"


def encoder(template="vicuna_v1", kind="bytes", words=None, system="", **settings):
    words = words or WORDS[kind]
    return DialogueEncoder(words, ChatTemplate(template, words, system, "a model"), tokens_of, box_text, **settings)


def decoded(encoded, words=WORDS["bytes"]):
    """The text of the ids, a picture as one letter however many tokens it has."""
    text, before = "", None
    for id_ in encoded.ids:
        if id_ >= 0:
            text += words.decode([id_])
        elif id_ != before:
            text += {IMAGE_PLACEHOLDER: MARK, PREFIX_PLACEHOLDER: "^"}[id_]
        before = id_
    return text


def learnt(encoded):
    return [id_ for id_ in encoded.labels if id_ != IGNORE]


# ids


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("name", [*LAYOUTS, "tokenizer"])
def test_ids_without_pictures_are_those_of_the_whole_text(name, kind):
    talk = conversation(("user", "What is it?"), ("assistant", "A red apple."), ("user", "How many?"), ("assistant", "Two, é."))
    found = encoder(name, kind)(talk, [])
    text = ChatTemplate(name, WORDS[kind]).write([(turn, turn.text) for turn in talk.turns]).text
    assert found.ids == WORDS[kind](text, add_special_tokens=name != "tokenizer")["input_ids"]
    assert (found.pictures, found.lengths, found.dropped) == ([], [], 0)


@pytest.mark.parametrize("name", [*LAYOUTS, "tokenizer"])
def test_a_picture_is_as_many_placeholders_as_it_has_tokens(name):
    talk = conversation(
        ("user", [ImagePart(1), TextPart("and"), ImagePart(0), TextPart("?")]),
        ("assistant", "Two birds."),
        ("user", "x"),
        ("assistant", "y"),
    )
    found = encoder(name)(talk, SIZES)
    assert found.pictures == [1, 0] and found.lengths == [6, 7]
    assert found.ids.count(IMAGE_PLACEHOLDER) == 13
    places = [place for place, id_ in enumerate(found.ids) if id_ == IMAGE_PLACEHOLDER]
    assert all(found.labels[place] == IGNORE and not found.instruction[place] for place in places)
    assert len(found.ids) == len(found.labels) == len(found.instruction)
    # what is not a picture is the text cut at the pictures, each piece tokenised alone
    text = (
        ChatTemplate(name, WORDS["bytes"])
        .write([(turn, f"{MARK}and{MARK}?" if number == 0 else turn.text) for number, turn in enumerate(talk.turns)])
        .text
    )
    pieces = [WORDS["bytes"](piece, add_special_tokens=False)["input_ids"] for piece in text.split(MARK)]
    wanted = [id_ for piece in pieces for id_ in piece]
    start = [] if name == "tokenizer" else [1]
    assert [id_ for id_ in found.ids if id_ != IMAGE_PLACEHOLDER] == start + wanted


# labels


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize(("name", "closing"), [("vicuna_v1", "</s>"), ("qwen_1_5", "<|im_end|>"), ("mistral_instruct", " </s>")])
def test_labels_are_the_answers_and_what_closes_them(name, closing, kind):
    words = WORDS[kind]
    found = encoder(name, kind)(TALK, SIZES[:1])
    assert all(label in (IGNORE, id_) for id_, label in zip(found.ids, found.labels))
    runs, before = [], IGNORE
    for label in found.labels:
        if label != IGNORE:
            runs = [*runs, [label]] if before == IGNORE else [*runs[:-1], [*runs[-1], label]]
        before = label
    assert [words.decode(run).strip() for run in runs] == [f"{answer}{closing}" for answer in ("A red apple.", "Two.")]
    assert all(run[-1] == words.convert_tokens_to_ids(closing.strip()) for run in runs)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "plain"])
def test_the_number_of_learnt_tokens_is_that_of_the_answers_alone(name):
    words, layout = WORDS["bytes"], LAYOUTS[name]
    wanted = 0
    for answer in ("A red apple.", "Two."):
        before, _, behind = layout.answer.partition("{}")
        text = before + answer + behind.replace("\ue001", "</s>")
        wanted += len(words(text, add_special_tokens=False)["input_ids"])
    for sizes, talk in ((SIZES[:1], TALK), ([], conversation(("user", "x"), *[(t.role, t.text) for t in TALK.turns[1:]]))):
        assert len(learnt(encoder(name)(talk, sizes))) == wanted, "pictures and questions change nothing"


def test_plain_learns_the_caption_and_the_line_break():
    talk = conversation(("user", [ImagePart(0), TextPart("\nDescribe it.")]), ("assistant", "A red apple."))
    found = encoder("plain")(talk, SIZES[:1])
    assert found.ids[:8] == [1, *[IMAGE_PLACEHOLDER] * 7]
    assert WORDS["bytes"].decode(learnt(found)) == "A red apple.\n" and found.ids[8:] == learnt(found)
    assert not any(found.instruction), "the words of the user are not there"


@given(
    st.lists(
        st.text(st.characters(exclude_characters=MARK, exclude_categories=["Cs"]), min_size=1, max_size=12),
        min_size=2,
        max_size=6,
    )
)
def test_any_text_gives_ids_of_the_whole_and_labels_that_say_the_answers(said):
    said = [text for text in said if not any(token in text for token in written.SPECIAL)]
    turns = [("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(said[: len(said) // 2 * 2])]
    if not turns:
        return
    found = encoder("qwen_1_5")(conversation(*turns), [])
    text = ChatTemplate("qwen_1_5", WORDS["bytes"]).write([(turn, turn.text) for turn in conversation(*turns).turns]).text
    assert found.ids == WORDS["bytes"](text)["input_ids"]
    ends = WORDS["bytes"].convert_tokens_to_ids("<|im_end|>")
    assert learnt(found).count(ends) == len(turns) // 2, "every answer's end is learnt, whatever it says"


def test_what_the_user_says_is_marked_and_nothing_else():
    found = encoder()(TALK, SIZES[:1])
    said = WORDS["bytes"].decode([id_ for id_, own in zip(found.ids, found.instruction) if own])
    assert said == "\nWhat is it?How many birds are there?"
    assert not any(own and label != IGNORE for own, label in zip(found.instruction, found.labels))


# pictures


def test_pictures_without_a_place_stand_in_front_of_the_first_question():
    talk = conversation(("system", "Be short."), ("user", "Which?"), ("assistant", "Red."))
    assert decoded(encoder()(talk, SIZES)) == f"<s>Be short. USER: {MARK}\n{MARK}\nWhich? ASSISTANT: Red.</s>"


def test_pictures_take_the_numbers_that_are_free():
    talk = conversation(("user", [ImagePart(), ImagePart(0), TextPart("?"), ImagePart()]), ("assistant", "a"))
    assert placed(talk, 3).pictures == [1, 0, 2]
    assert encoder()(talk, [*SIZES, (60, 60)]).lengths == tokens_of([SIZES[1], SIZES[0], (60, 60)])


def test_pictures_first_moves_them_to_the_front_of_their_turn():
    talk = conversation(
        ("user", [TextPart(" What is "), ImagePart(0), TextPart("? ")]),
        ("assistant", "a"),
        ("user", [ImagePart(1)]),
        ("assistant", "b"),
    )
    wanted = f"<s>USER: {MARK}\nWhat is ? ASSISTANT: a</s>USER: {MARK}\n ASSISTANT: b</s>"
    assert decoded(encoder(pictures_first=True)(talk, SIZES)) == wanted
    assert decoded(encoder()(talk, SIZES)).startswith(f"<s>USER:  What is {MARK}?  ASSISTANT:")


def test_a_box_is_written_by_the_model():
    talk = conversation(
        ("user", [ImagePart(0), ImagePart(1), TextPart("Where?")]), ("assistant", [BoxPart((10, 0, 5, 5), 1), TextPart(".")])
    )
    found = encoder()(talk, SIZES)
    assert decoded(found).endswith("ASSISTANT: [0.50].</s>")
    assert WORDS["bytes"].decode(learnt(found)) == " [0.50].</s>"
    with pytest.raises(DataError, match=r"turn 1: a box lies in picture 1, but the sample has 1"):
        encoder()(conversation(("user", "Where?"), ("assistant", [BoxPart((0, 0, 1, 1), 1)])), SIZES[:1])


@pytest.mark.parametrize(
    ("parts", "count", "told"),
    [
        ([ImagePart(0)], 2, "1 pictures are shown, but the sample has 2; show each of them once"),
        ([ImagePart(2), ImagePart(0)], 2, "picture 2 is not there"),
        ([ImagePart(0), ImagePart(0)], 2, "picture 0 is shown twice"),
        ([ImagePart(0)], 0, "picture 0 is not there"),
        ([ImagePart()], 0, "1 pictures are shown, but the sample has 0"),
        ([ImagePart(), ImagePart(), ImagePart(0)], 2, "3 pictures are shown, but the sample has 2"),
    ],
)
def test_a_missing_left_over_or_doubled_picture_is_an_error(parts, count, told):
    with pytest.raises(DataError, match=told):
        encoder()(conversation(("user", [*parts, TextPart("?")]), ("assistant", "a")), [(20, 20)] * count)


@pytest.mark.parametrize(("part", "name"), [(AudioPart(0), "audio"), (VideoPart(0), "video"), (SpanPart(0, 1), "span")])
def test_media_that_a_model_does_not_take_are_an_error(part, name):
    with pytest.raises(DataError, match=f"turn 0: this model takes no {name}; take a family that does"):
        encoder()(conversation(("user", [part]), ("assistant", "a")), [])


# prompts, prefix and start token


@pytest.mark.parametrize("name", [*LAYOUTS, "tokenizer"])
def test_a_prompt_is_the_beginning_of_the_conversation_that_answers_it(name):
    prompt = encoder(name)(Dialogue(TALK.turns[:-1]), SIZES[:1], prompt=True)
    whole = encoder(name)(TALK, SIZES[:1])
    assert whole.ids[: len(prompt.ids)] == prompt.ids and whole.labels[len(prompt.ids)] == whole.ids[len(prompt.ids)]
    for turns, asks in ((TALK.turns[:-1], False), (TALK.turns, True)):
        with pytest.raises(DataError, match="the last turn must be the"):
            encoder(name)(Dialogue(turns), SIZES[:1], prompt=asks)


def test_a_start_token_stands_in_front_once_or_not_at_all():
    assert encoder()(TALK, SIZES[:1]).ids.count(1) == 1
    assert encoder(start=False)(TALK, SIZES[:1]).ids.count(1) == 0
    assert encoder(words=written.tokenizer(start=False))(TALK, SIZES[:1]).ids.count(1) == 0, "the tokenizer puts none"
    assert encoder("llava_llama_2")(TALK, SIZES[:1]).ids.count(1) == 2, "and the layout one before the second question"
    own = written.tokenizer(chat_template="{{ bos_token }}" + written.CHATML)
    assert encoder("tokenizer", words=own)(TALK, SIZES[:1]).ids.count(1) == 1


@pytest.mark.parametrize(
    ("words", "name", "behind"),
    [
        (WORDS["bytes"], "vicuna_v1", "<s>"),
        (written.tokenizer(start=False), "vicuna_v1", ""),
        (WORDS["bytes"], "tokenizer", ""),
        (written.tokenizer(bos="<|im_start|>", chat_template=written.CHATML, start=False), "tokenizer", ""),
    ],
)
def test_a_prefix_stands_behind_the_start_token(words, name, behind):
    plain, with_prefix = (encoder(name, words=words, prefix=count)(TALK, SIZES[:1]) for count in (0, 3))
    text = decoded(with_prefix, words)
    assert text == f"{behind}^{decoded(plain, words).removeprefix(behind)}"
    place = with_prefix.ids.index(PREFIX_PLACEHOLDER)
    assert with_prefix.ids[place : place + 3] == [PREFIX_PLACEHOLDER] * 3 and with_prefix.ids.count(PREFIX_PLACEHOLDER) == 3
    for field in ("ids", "labels", "instruction"):
        values = getattr(with_prefix, field)
        assert values[:place] + values[place + 3 :] == getattr(plain, field)
    assert with_prefix.labels[place : place + 3] == [IGNORE] * 3


def test_a_prefix_is_for_pictures_unless_it_is_for_all():
    text = conversation(("user", "x"), ("assistant", "y"))
    assert PREFIX_PLACEHOLDER not in encoder(prefix=2)(text, []).ids
    assert encoder(prefix=2, prefix_always=True)(text, []).ids.count(PREFIX_PLACEHOLDER) == 2


# length


def test_what_does_not_fit_is_left_out_in_whole_pairs_from_the_end():
    talk = conversation(
        *(turn for number in range(5) for turn in (("user", f"What is {number}?"), ("assistant", "A red apple.")))
    )
    lengths = [len(encoder()(Dialogue(talk.turns[: 2 * pairs]), []).ids) for pairs in range(1, 6)]
    for most in range(lengths[0], lengths[-1] + 1):
        fits = sum(length <= most for length in lengths)
        found = encoder(max_length=most)(talk, [])
        assert found.ids == encoder()(Dialogue(talk.turns[: 2 * fits]), []).ids and found.dropped == 2 * (5 - fits)
    with pytest.raises(DataError, match=rf"{lengths[0]} tokens with pictures do not fit into max_length {lengths[0] - 1}"):
        encoder(max_length=lengths[0] - 1)(talk, [])


def test_a_picture_is_dropped_with_its_turn_or_not_at_all():
    talk = conversation(
        ("user", [ImagePart(0), TextPart("x")]), ("assistant", "a"), ("user", [ImagePart(1), TextPart("y")]), ("assistant", "b")
    )
    whole = encoder()(talk, SIZES)
    seen = set()
    for most in range(1, len(whole.ids) + 1):
        try:
            found = encoder(max_length=most)(talk, SIZES)
        except DataError as error:
            assert "a picture or a turn is never cut" in str(error)
            seen.add(None)
            continue
        assert found.ids.count(IMAGE_PLACEHOLDER) == sum(found.lengths) == sum(tokens_of(SIZES[: len(found.pictures)]))
        seen.add(len(found.pictures))
    assert seen == {None, 1, 2}


def test_a_prompt_that_is_too_long_loses_its_oldest_turns_and_keeps_system_and_question():
    talk = conversation(
        ("system", "Be short."),
        ("user", "What is it?"),
        ("assistant", "Two."),
        ("user", "Red?"),
        ("assistant", "No."),
        ("user", "Why?"),
    )
    whole = encoder()(talk, [], prompt=True)
    found = encoder(max_length=len(whole.ids) - 1)(talk, [], prompt=True)
    assert decoded(found) == "<s>Be short. USER: Red? ASSISTANT: No.</s>USER: Why? ASSISTANT:" and found.dropped == 2
    with pytest.raises(DataError, match="do not fit into max_length 8"):
        encoder(max_length=8)(talk, [], prompt=True)


# what is refused


def test_a_conversation_with_nothing_to_learn_is_an_error():
    never = "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(DataError, match="nothing to learn"):
        encoder("tokenizer", words=written.tokenizer(chat_template=never))(TALK, SIZES[:1])


@pytest.mark.parametrize("token", ["</s>", "<s>", "<|im_end|>", "<pad>", MARK])
@pytest.mark.parametrize("turn", [0, 1])
def test_a_control_token_in_a_text_is_an_error(token, turn):
    said = ["What is it?", "Red."]
    said[turn] += f" {token} "
    with pytest.raises(DataError, match=rf"conversations, turn {turn}: the text holds .* control token; write it otherwise"):
        encoder()(conversation(("user", said[0]), ("assistant", said[1])), [])


def test_a_tokenizer_that_does_not_say_which_letters_a_token_stands_for_is_an_error():
    slow = copy.copy(WORDS["bytes"])
    with pytest.raises(DataError, match=r"a model: its tokenizer does not say which letters .* tokenizer\.json"):
        DialogueEncoder(Slow(slow), ChatTemplate("vicuna_v1", slow, shown="a model"), tokens_of, box_text)


class Slow:
    """Of a tokenizer everything but its speed."""

    is_fast = False

    def __init__(self, of):
        self.of = of

    def __getattr__(self, name):
        return getattr(self.of, name)


def test_the_models_own_tokenizer_is_left_as_it_is():
    words = written.tokenizer()
    before = len(words)
    encoder(words=words)
    assert len(words) == before and words.convert_tokens_to_ids(MARK) == words.unk_token_id


def test_a_real_tokenizer(real_data):
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(real_data / "weights_stories260K" / "hf")
    found = encoder("vicuna_v1", words=words)(TALK, SIZES[:1])
    ends = [place for place, id_ in enumerate(learnt(found)) if id_ == words.eos_token_id]
    assert [words.decode(learnt(found)[: ends[0]]).strip(), words.decode(learnt(found)[ends[0] + 1 : ends[1]]).strip()] == [
        "A red apple.",
        "Two.",
    ]
    assert ends[1] == len(learnt(found)) - 1
    talk = conversation(("user", "One day."), ("assistant", "Lily saw a dog."))
    text = ChatTemplate("vicuna_v1", words).write([(turn, turn.text) for turn in talk.turns]).text
    assert encoder("vicuna_v1", words=words)(talk, []).ids == words(text)["input_ids"]
