"""Chat templates: how a conversation is written down for a language model, and which stretches of it the model has to learn.

Layouts that have a name are in `layouts.py`; a tokenizer's own chat template is `tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import AssemblyError, nearest
from .layouts import END, LAYOUTS, MARK, START, Layout
from .turns import Turn

__all__ = ["LAYOUTS", "MARK", "ChatTemplate", "Layout", "Written"]
TOKENIZER = "tokenizer"
_INSIDE = "<<SYS>>\n{}\n<</SYS>>\n\n"  # how Llama 2 puts a system message into the first turn


@dataclass(frozen=True)
class Written:
    """A conversation as one text.

    Attributes:
        text: The text, with a `MARK` for every medium.
        learnt: Stretches (start, end) of the text that are the assistant's.
        asked: Stretches that are the user's own words.
    """

    text: str
    learnt: tuple[tuple[int, int], ...]
    asked: tuple[tuple[int, int], ...]


class _Writer:
    """Collects text, what of it is learnt, and what the user's words are."""

    def __init__(self) -> None:
        self.text = ""
        self.learnt: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int]] = []

    def add(self, text: str, learnt: bool = False, asked: bool = False) -> None:
        """Adds a text, and notes whose it is."""
        stretch = (len(self.text), len(self.text) + len(text))
        self.learnt += [stretch] * bool(learnt and text)
        self.asked += [stretch] * bool(asked and text)
        self.text += text

    def done(self) -> Written:
        return Written(self.text, tuple(self.learnt), tuple(self.asked))


class ChatTemplate:
    """Writes conversations.

    Args:
        name: Of `LAYOUTS`, or `tokenizer`, the tokenizer's own chat template.
        tokenizer: A tokenizer of transformers.
        system: A system message for conversations without one; "" has none.
        shown: What messages call the model.

    Raises:
        AssemblyError: If there is no such template.
    """

    def __init__(self, name: str, tokenizer: Any, system: str = "", shown: str = "the language model") -> None:
        self.name, self.tokenizer, self.system, self.shown = name, tokenizer, system, shown
        if name == TOKENIZER:
            if not getattr(tokenizer, "chat_template", None):
                raise AssemblyError(
                    f"model.chat.template: {shown} has no chat template of its own; take one of {', '.join(sorted(LAYOUTS))}"
                )
        elif name not in LAYOUTS:
            known = sorted([*LAYOUTS, TOKENIZER])
            raise AssemblyError(
                f"model.chat.template: there is no template {name!r}{nearest(name, known)} (there are: {', '.join(known)})"
            )

    @property
    def adds_start(self) -> bool:
        """Whether the tokenizer is to put its start token in front; its own template writes it itself."""
        return self.name != TOKENIZER

    @property
    def start_marks_turns(self) -> bool:
        """Whether what the tokenizer calls its start token opens every turn, as in ChatML, and so is no start of the text."""
        start = self.tokenizer.bos_token
        if self.name != TOKENIZER:
            return bool(start) and start in LAYOUTS[self.name].opening
        asked = [{"role": "user", "content": "x"}]
        texts = [
            self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=opens) for opens in (False, True)
        ]
        return bool(start) and start in texts[1][len(texts[0]) :]

    def stops(self) -> list[int]:
        """Ids that end an answer: the tokenizer's end token, and what the template closes a turn with."""
        found = [self.tokenizer.eos_token_id]
        if self.name == TOKENIZER:
            asked = [{"role": "user", "content": "x"}, {"role": "assistant", "content": END}]
            closing = self.tokenizer.apply_chat_template(asked, tokenize=False).rpartition(END)[2]
            found += [id_ for id_ in self._ids(closing)[:1] if id_ in self.tokenizer.all_special_ids]
        elif closing := LAYOUTS[self.name].answer.partition("{}")[2].replace(END, ""):
            found += self._ids(closing)[-1:]  # some tokenizers put a blank in front
        return sorted({id_ for id_ in found if id_ is not None})

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def write(self, turns: Sequence[tuple[Turn, str]]) -> Written:
        """Writes a conversation.

        Args:
            turns: Turns and what they say as text, with a `MARK` for every medium. If the last is the user's, the text ends where the
                assistant begins.

        Raises:
            AssemblyError: If the tokenizer's template changes what it wrote before when a turn is added.
        """
        if self.system and turns[0][0].role != "system":
            turns = [(Turn("system", ()), self.system), *turns]
        return self._by_tokenizer(turns) if self.name == TOKENIZER else self._by_layout(turns)

    def _by_layout(self, turns: Sequence[tuple[Turn, str]]) -> Written:
        layout, writer, system, users = LAYOUTS[self.name], _Writer(), "", 0
        for turn, text in turns:
            if turn.role == "system":
                inside = "{system}" in layout.user
                system = _INSIDE.replace("{}", text) if inside else ""
                writer.add("" if inside or not layout.keeps_user else self._said(layout.system, text))
            elif turn.role == "user":
                before, _, behind = layout.user.partition("{}")
                writer.add(self._ends(layout.later if users else "") + before.replace("{system}", system))
                writer.add(text if layout.keeps_user else MARK * text.count(MARK), asked=True)
                writer.add(behind + layout.opening)
                system, users = "", users + 1
            else:
                writer.add(self._said(layout.answer, text.strip()), learnt=True)
                writer.add(layout.closing)
        return writer.done()

    def _said(self, layout: str, text: str) -> str:
        before, _, behind = layout.partition("{}")
        return before + text + self._ends(behind)

    def _ends(self, layout: str) -> str:
        """A piece of a layout with the tokenizer's own start and end tokens."""
        return layout.replace(END, self.tokenizer.eos_token or "").replace(START, self.tokenizer.bos_token or "")

    def _by_tokenizer(self, turns: Sequence[tuple[Turn, str]]) -> Written:
        """Turn by turn, so that what an answer adds is known; what the template opens an answer with is not learnt."""
        messages = [{"role": turn.role, "content": text} for turn, text in turns]
        writer = _Writer()
        for number, message in enumerate(messages):
            if message["role"] == "user":
                added = self._added(messages[: number + 1], writer.text, True)
                first, last = self._words(messages[: number + 1], added, writer.text)
                writer.add(added[:first])
                writer.add(added[first:last], asked=True)
                writer.add(added[last:])
            elif message["role"] == "assistant":
                added = self._added(messages[: number + 1], writer.text, False)
                # up to the token that closes the turn, whatever the tokenizer calls its end; the answer itself holds none
                ends = [added.rfind(token) + len(token) for token in self.tokenizer.all_special_tokens if token in added]
                learnt = max(ends, default=len(added))
                writer.add(added[:learnt], learnt=True)
                writer.add(added[learnt:])
        return writer.done()

    def _words(self, messages: list[dict[str, str]], added: str, before: str) -> tuple[int, int]:
        """Where in what the last turn adds its words stand; told by a letter in their place, for a word may also be the template's."""
        probe = self._added([*messages[:-1], {**messages[-1], "content": END}], before, True)
        first = max(0, probe.find(END))
        words = next(
            (words for words in (messages[-1]["content"], messages[-1]["content"].strip()) if added.startswith(words, first)), ""
        )
        return first, first + len(words)

    def _added(self, messages: list[dict[str, str]], before: str, opens: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens)
        if not text.startswith(before):
            raise AssemblyError(
                f"model.chat.template: the chat template of {self.shown} changes earlier turns when a turn is added, so it cannot be "
                f"told what is learnt; take one of {', '.join(sorted(LAYOUTS))}"
            )
        return text[len(before) :]
