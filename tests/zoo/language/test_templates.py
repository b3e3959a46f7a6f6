"""Chat templates: the exact text of every layout, which stretches of it are learnt, and what a tokenizer's own template may not do."""

import pytest

from modalign.zoo.errors import AssemblyError
from modalign.zoo.language.templates import LAYOUTS, MARK, ChatTemplate
from modalign.zoo.language.turns import Turn

from ..stack import written

ONE = [("user", f"{MARK}\nWhat is it?"), ("assistant", "An apple.")]
TWO = [*ONE, ("user", "What colour?"), ("assistant", "Red.")]
SYSTEM = ("system", "Be short.")
M = MARK

#: layout -> text of one turn, of two, of two with a system message; learnt stretches stand between < and >, written [[ ]]
TEXTS = {
    "plain": (f"{M}[[An apple.\n]]", f"{M}[[An apple.\n]][[Red.\n]]", f"{M}[[An apple.\n]][[Red.\n]]"),
    "vicuna_v1": (
        f"USER: {M}\nWhat is it? ASSISTANT:[[ An apple.</s>]]",
        f"USER: {M}\nWhat is it? ASSISTANT:[[ An apple.</s>]]USER: What colour? ASSISTANT:[[ Red.</s>]]",
        f"Be short. USER: {M}\nWhat is it? ASSISTANT:[[ An apple.</s>]]USER: What colour? ASSISTANT:[[ Red.</s>]]",
    ),
    "llava_llama_2": (
        f"[INST] {M}\nWhat is it? [/INST][[ An apple. </s>]]",
        f"[INST] {M}\nWhat is it? [/INST][[ An apple. </s>]]<s>[INST] What colour? [/INST][[ Red. </s>]]",
        f"[INST] <<SYS>>\nBe short.\n<</SYS>>\n\n{M}\nWhat is it? [/INST][[ An apple. </s>]]"
        "<s>[INST] What colour? [/INST][[ Red. </s>]]",
    ),
    "mistral_instruct": (
        f"[INST] {M}\nWhat is it? [/INST][[ An apple. </s>]]",
        f"[INST] {M}\nWhat is it? [/INST][[ An apple. </s>]][INST] What colour? [/INST][[ Red. </s>]]",
        f"[INST] <<SYS>>\nBe short.\n<</SYS>>\n\n{M}\nWhat is it? [/INST][[ An apple. </s>]]"
        "[INST] What colour? [/INST][[ Red. </s>]]",
    ),
    "mpt": (
        f"<|im_start|>user\n{M}\nWhat is it?<|im_end|><|im_start|>assistant\n[[An apple.<|im_end|>]]",
        f"<|im_start|>user\n{M}\nWhat is it?<|im_end|><|im_start|>assistant\n[[An apple.<|im_end|>]]"
        "<|im_start|>user\nWhat colour?<|im_end|><|im_start|>assistant\n[[Red.<|im_end|>]]",
        "<|im_start|>system\nBe short.<|im_end|>"
        f"<|im_start|>user\n{M}\nWhat is it?<|im_end|><|im_start|>assistant\n[[An apple.<|im_end|>]]"
        "<|im_start|>user\nWhat colour?<|im_end|><|im_start|>assistant\n[[Red.<|im_end|>]]",
    ),
    "qwen_1_5": (
        f"<|im_start|>user\n{M}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n[[An apple.<|im_end|>]]\n",
        f"<|im_start|>user\n{M}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n[[An apple.<|im_end|>]]\n"
        "<|im_start|>user\nWhat colour?<|im_end|>\n<|im_start|>assistant\n[[Red.<|im_end|>]]\n",
        "<|im_start|>system\nBe short.<|im_end|>\n"
        f"<|im_start|>user\n{M}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n[[An apple.<|im_end|>]]\n"
        "<|im_start|>user\nWhat colour?<|im_end|>\n<|im_start|>assistant\n[[Red.<|im_end|>]]\n",
    ),
}
TEXTS["chatml_direct"] = TEXTS["mpt"]


def said(*turns):
    return [(Turn(role, ()), text) for role, text in turns]


def shown(found):
    """The text with brackets around what is learnt."""
    text = found.text
    for first, last in reversed(found.learnt):
        text = f"{text[:first]}[[{text[first:last]}]]{text[last:]}"
    return text


def own(template=written.CHATML, **settings):
    return ChatTemplate("tokenizer", written.tokenizer(chat_template=template, **settings), shown="a model")


def test_every_layout_is_written_down_here():
    assert set(TEXTS) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_text_and_learnt_stretches(name):
    template = ChatTemplate(name, written.tokenizer())
    for turns, wanted in zip((ONE, TWO, [SYSTEM, *TWO]), TEXTS[name], strict=True):
        assert shown(template.write(said(*turns))) == wanted


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_system_message_of_the_settings_is_for_conversations_without_one(name):
    template = ChatTemplate(name, written.tokenizer(), system="Be short.")
    assert shown(template.write(said(*TWO))) == TEXTS[name][2]
    other = ChatTemplate(name, written.tokenizer(), system="Be long.")
    assert shown(other.write(said(SYSTEM, *TWO))) == TEXTS[name][2]


@pytest.mark.parametrize("name", [*LAYOUTS, "tokenizer"])
def test_a_prompt_is_where_the_conversation_ends_before_its_answer(name):
    template = ChatTemplate(name, written.tokenizer(chat_template=written.CHATML))
    whole, prompt = template.write(said(*TWO)), template.write(said(*TWO[:-1]))
    assert whole.text.startswith(prompt.text) and len(prompt.learnt) == 1
    assert whole.learnt[-1][0] == len(prompt.text), "the answer begins where the prompt ends"


def test_plain_throws_the_words_of_the_user_away_but_not_the_pictures():
    found = ChatTemplate("plain", written.tokenizer()).write(
        said(("user", f"{M}\nCompare {M} them"), ("assistant", " Two birds. "))
    )
    assert shown(found) == f"{M}{M}[[Two birds.\n]]"


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "plain"] + ["tokenizer"])
@pytest.mark.parametrize("words", ["a", "S", ":", "assistant", "user", "\n", "INST", " it "])
def test_the_words_of_the_user_are_found_though_the_layout_has_them_too(name, words):
    template = ChatTemplate(name, written.tokenizer(chat_template=written.CHATML))
    found = template.write(said(("user", words), ("assistant", "Yes."), ("user", f"{words}?"), ("assistant", "No.")))
    assert [found.text[first:last] for first, last in found.asked] == [words, f"{words}?"]
    probe = template.write(said(("user", "\u2603"), ("assistant", "Yes.")))
    assert found.asked[0][0] == probe.text.index("\u2603")


# the tokenizer's own template


def test_the_tokenizers_own_template_is_written_as_transformers_writes_it():
    template = own()
    for turns in (ONE, TWO, [SYSTEM, *TWO]):
        messages = [{"role": role, "content": text} for role, text in turns]
        assert template.write(said(*turns)).text == template.tokenizer.apply_chat_template(messages, tokenize=False)
    found = template.write(said(SYSTEM, *TWO))
    assert [found.text[first:last] for first, last in found.learnt] == ["An apple.<|im_end|>", "Red.<|im_end|>"]


def test_what_stands_behind_the_end_token_is_not_learnt():
    found = own(eos="<|im_end|>").write(said(*TWO))
    assert [found.text[first:last] for first, last in found.learnt] == ["An apple.<|im_end|>", "Red.<|im_end|>"]


def test_a_template_that_trims_keeps_what_is_the_users():
    trims = written.CHATML.replace("message['content']", "message['content'] | trim")
    found = own(trims).write(said(("user", "  a \n"), ("assistant", "Yes.")))
    assert [found.text[first:last] for first, last in found.asked] == ["a"]
    assert found.text.startswith("<|im_start|>user\na<|im_end|>")


def test_a_template_that_changes_earlier_turns_is_refused():
    forgets = (
        "{% for message in messages %}{% if loop.last or message['role'] != 'assistant' %}" + written.CHATML.partition("%}")[2]
    )
    forgets = forgets.replace("{% endfor %}", "{% endif %}{% endfor %}")
    assert own(forgets).write(said(*ONE)).learnt, "with one answer nothing is changed"
    with pytest.raises(
        AssemblyError, match=r"chat template of a model changes earlier turns .* take one of chatml_direct, llava"
    ):
        own(forgets).write(said(*TWO))


def test_no_template_and_an_unknown_one_are_refused():
    with pytest.raises(AssemblyError, match="a model has no chat template of its own; take one of chatml_direct"):
        own(None)
    with pytest.raises(AssemblyError, match=r"no template 'vicuna_v2'; did you mean 'vicuna_v1'\? \(there are: chatml_direct"):
        ChatTemplate("vicuna_v2", written.tokenizer())


# start and end tokens


@pytest.mark.parametrize("name", [*LAYOUTS, "tokenizer"])
def test_only_the_tokenizers_own_template_writes_its_start_token(name):
    assert ChatTemplate(name, written.tokenizer(chat_template=written.CHATML)).adds_start == (name != "tokenizer")


def test_a_start_token_that_opens_every_turn_is_told_from_one_that_opens_the_text():
    for name in ("tokenizer", "qwen_1_5", "mpt"):
        assert ChatTemplate(name, written.tokenizer(chat_template=written.CHATML, bos="<|im_start|>")).start_marks_turns
        assert not ChatTemplate(name, written.tokenizer(chat_template=written.CHATML)).start_marks_turns
    assert not ChatTemplate("vicuna_v1", written.tokenizer(bos="<|im_start|>")).start_marks_turns


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("vicuna_v1", ["</s>"]),
        ("qwen_1_5", ["</s>", "<|im_end|>"]),
        ("tokenizer", ["</s>", "<|im_end|>"]),
        ("plain", ["</s>", "Ċ"]),
    ],
)
def test_an_answer_ends_with_the_end_token_or_what_closes_a_turn(name, wanted):
    words = written.tokenizer(chat_template=written.CHATML)
    assert ChatTemplate(name, words).stops() == sorted(words.convert_tokens_to_ids(wanted))
