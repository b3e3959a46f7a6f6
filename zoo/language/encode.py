"""A conversation with its pictures -> token ids and labels; the only place where text, placeholders and labels meet.

Ids and labels cannot drift apart: the whole conversation is tokenised once, media as one token each, and the tokenizer says which letters
every token stands for. A token is learnt exactly if it begins inside a learnt stretch of the template.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import DataError
from .templates import MARK, ChatTemplate
from .turns import Box, BoxPart, Dialogue, ImagePart, TextPart, Turn

IGNORE = -100
#: ids of what is put in from outside the token table; never embedded
IMAGE_PLACEHOLDER = -200
PREFIX_PLACEHOLDER = -201

Size = tuple[int, int]


@dataclass
class Encoded:
    """One conversation, ready to be put into a batch.

    Attributes:
        ids: Token ids; a picture of V tokens is V times `IMAGE_PLACEHOLDER`.
        labels: The id itself where it is learnt, else `IGNORE`.
        pictures: Numbers of the pictures shown, in order of their placeholders.
        lengths: V of each of them.
        instruction: Which ids are words of the user; what AlignGPT's gate reads.
        dropped: Turns that did not fit.
    """

    ids: list[int]
    labels: list[int]
    pictures: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    instruction: list[bool] = field(default_factory=list)
    dropped: int = 0


class DialogueEncoder:
    """Turns conversations into ids and labels.

    Args:
        tokenizer: A fast tokenizer of transformers (one that knows which letters a token stands for).
        template: How conversations are written.
        image_tokens: (width, height) of the pictures of a conversation -> V of each, its number of tokens.
        box_text: (box in pixels, size of the picture) -> how the model writes it.
        max_length: Most ids, placeholders included; whole pairs of turns are dropped from the end until it fits.
        prefix: K placeholders of a `sequence_prefix` behind the start token (at the front if there is none).
        prefix_always: Put them also where there is no picture.
        pictures_first: LLaVA-1.5's rule: pictures of a turn stand in front of it, each followed by a line break.
        start: Put the tokenizer's start token in front, where it has one and the template writes none.

    Raises:
        DataError: If the tokenizer cannot say which letters a token stands for.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate,
        image_tokens: Callable[[Sequence[Size]], list[int]],
        box_text: Callable[[Box, Size], str],
        max_length: int = 2048,
        prefix: int = 0,
        prefix_always: bool = False,
        pictures_first: bool = False,
        start: bool = True,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise DataError(
                f"{template.shown}: its tokenizer does not say which letters a token stands for; take one with a tokenizer.json"
            )
        self.template, self.image_tokens, self.box_text = template, image_tokens, box_text
        self.max_length, self.pictures_first, self.start = max_length, pictures_first, start
        self.prefix, self.prefix_always = prefix, prefix_always
        self.tokenizer = tokenizer
        self._marked = copy.deepcopy(tokenizer)  # knows the mark as one token; its number never leaves this class
        self._marked.add_tokens([MARK], special_tokens=True)
        self._mark = self._marked.convert_tokens_to_ids(MARK)
        self._control = tuple(dict.fromkeys(text for text in tokenizer.all_special_tokens if text.strip()))

    def __call__(self, dialogue: Dialogue, sizes: Sequence[Size], *, prompt: bool = False) -> Encoded:
        """Encodes a conversation.

        Args:
            dialogue: The conversation.
            sizes: (width, height) of every picture of the sample.
            prompt: The conversation is to be gone on with: it ends with the user's turn, and nothing is learnt.

        Raises:
            DataError: If it does not fit into `max_length` with its first answer, nothing is left to learn, a picture is missing or left
                over, or a text holds what the tokenizer takes for a control token.
        """
        dialogue = placed(dialogue, len(sizes))
        if (dialogue.turns[-1].role == "user") != prompt:
            raise DataError(
                "conversations: the last turn must be the " + ("user's to be answered" if prompt else "assistant's to learn from")
            )
        dropped = 0
        while True:
            encoded = self._encode(dialogue, sizes)
            if len(encoded.ids) <= self.max_length:
                break
            dialogue = self._shorter(dialogue, len(encoded.ids), prompt)
            dropped += 2
        if not prompt and all(label == IGNORE for label in encoded.labels):
            raise DataError("conversations: there is nothing to learn, for every answer is empty; write answers, or leave it out")
        return replace(encoded, dropped=dropped)

    def _shorter(self, dialogue: Dialogue, length: int, prompt: bool) -> Dialogue:
        """Without its last pair of turns; a prompt loses its oldest one, for the last is the question."""
        turns = list(dialogue.turns)
        first = 1 if turns[0].role == "system" else 0
        if len(turns) - first <= 2:
            raise DataError(
                f"conversations: {length} tokens with pictures do not fit into max_length {self.max_length}, and a picture or a turn "
                "is never cut; raise model.chat.max_length, make pictures smaller, or shorten the text"
            )
        kept = turns[:first] + turns[first + 2 :] if prompt else turns[:-2]
        return Dialogue(tuple(kept))

    def _encode(self, dialogue: Dialogue, sizes: Sequence[Size]) -> Encoded:
        written = self.template.write([(turn, self._said(turn, number, sizes)) for number, turn in enumerate(dialogue.turns)])
        found = self._marked(
            written.text, add_special_tokens=self.start and self.template.adds_start, return_offsets_mapping=True
        )
        encoded = Encoded([], [], dialogue.pictures)
        lengths = iter(self.image_tokens([sizes[number] for number in dialogue.pictures]))
        for id_, (begin, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            if id_ == self._mark:
                encoded.lengths.append(next(lengths))
                self._put(encoded, IMAGE_PLACEHOLDER, encoded.lengths[-1])
                continue
            learnt = begin < end and any(first <= begin < last for first, last in written.learnt)
            encoded.ids.append(id_)
            encoded.labels.append(id_ if learnt else IGNORE)
            encoded.instruction.append(any(begin < last and first < end for first, last in written.asked))
        return self._with_prefix(encoded)

    @staticmethod
    def _put(encoded: Encoded, placeholder: int, count: int, at: int | None = None) -> None:
        place = len(encoded.ids) if at is None else at
        encoded.ids[place:place] = [placeholder] * count
        encoded.labels[place:place] = [IGNORE] * count
        encoded.instruction[place:place] = [False] * count

    def _with_prefix(self, encoded: Encoded) -> Encoded:
        if self.prefix and (encoded.pictures or self.prefix_always):
            start = None if self.template.start_marks_turns else self.tokenizer.bos_token_id
            behind = 1 if encoded.ids and start is not None and encoded.ids[0] == start else 0
            self._put(encoded, PREFIX_PLACEHOLDER, self.prefix, behind)
        return encoded

    def _said(self, turn: Turn, number: int, sizes: Sequence[Size]) -> str:
        """What a turn says, as text; media as marks."""
        said = "".join(self._written(part, number, sizes) for part in turn.parts)
        if self.pictures_first and MARK in said:
            return f"{MARK}\n" * said.count(MARK) + said.replace(MARK, "").strip()
        return said

    def _written(self, part: Any, number: int, sizes: Sequence[Size]) -> str:
        where = f"conversations, turn {number}"
        if isinstance(part, TextPart):
            self._check_text(part.text, where)
            return part.text
        if isinstance(part, ImagePart):
            return MARK
        if isinstance(part, BoxPart):
            if part.image >= len(sizes):
                raise DataError(f"{where}: a box lies in picture {part.image}, but the sample has {len(sizes)}")
            return self.box_text(part.box, sizes[part.image])
        raise DataError(
            f"{where}: this model takes no {type(part).__name__.removesuffix('Part').lower()}; take a family that does"
        )

    def _check_text(self, text: str, where: str) -> None:
        """A control token in a text would end a turn, or begin one; letters of private use are marks."""
        found = next((token for token in (*self._control, MARK) if token in text), None)
        if found is not None:
            raise DataError(
                f"{where}: the text holds {found!r}, which the tokenizer takes for a control token; write it otherwise"
            )


def placed(dialogue: Dialogue, count: int) -> Dialogue:
    """The dialogue with every picture numbered and in a place: where no turn shows one, all stand at the start of the first user turn.

    Args:
        dialogue: The conversation.
        count: Pictures the sample has.

    Raises:
        DataError: If a picture is missing, shown twice, or left over.
    """
    shown = [part for turn in dialogue.turns for part in turn.parts if isinstance(part, ImagePart)]
    if not shown and count:
        return _in_front(dialogue, count)
    named = [part.index for part in shown if part.index is not None]
    if wrong := [index for index in named if index >= count] or [index for index in named if named.count(index) > 1]:
        what = "is not there" if wrong[0] >= count else "is shown twice"
        raise DataError(f"conversations: picture {wrong[0]} {what} (the sample has {count}: they are numbered from 0)")
    if len(shown) != count:
        raise DataError(f"conversations: {len(shown)} pictures are shown, but the sample has {count}; show each of them once")
    free = iter(index for index in range(count) if index not in named)
    turns = [
        replace(turn, parts=tuple(_numbered(part, free) if isinstance(part, ImagePart) else part for part in turn.parts))
        for turn in dialogue.turns
    ]
    return Dialogue(tuple(turns))


def _numbered(part: ImagePart, free: Any) -> ImagePart:
    return part if part.index is not None else ImagePart(next(free))


def _in_front(dialogue: Dialogue, count: int) -> Dialogue:
    turns = list(dialogue.turns)
    first = next(number for number, turn in enumerate(turns) if turn.role == "user")
    parts = tuple(piece for index in range(count) for piece in (ImagePart(index), TextPart("\n")))
    turns[first] = replace(turns[first], parts=(*parts, *turns[first].parts))
    return Dialogue(tuple(turns))
