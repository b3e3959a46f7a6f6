"""From a sample to what is asked about it and what is right: conversations to learn from, and questions to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modalign.datasets.decoding.sample import Sample
from modalign.datasets.dialogue import Region, dialogue_of, fields_of, regions_of
from modalign.zoo.errors import DataError
from modalign.zoo.language.turns import BoxPart, Dialogue, ImagePart, Part, TextPart, Turn

from ..examples import CaptionChoice
from ..recipe.dialogue_settings import DialogueConfig


@dataclass
class Question:
    """Something asked about a sample's pictures.

    Attributes:
        dialogue: The conversation up to the user's turn.
        answers: What is right, as texts.
        box: What is right, as a place in pixels.
        what: What is asked about: a phrase, the name of a field.
    """

    dialogue: Dialogue
    answers: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    what: str = ""


@dataclass
class Asker:
    """Makes conversations of samples.

    Attributes:
        config: What is asked.
        captions: Which caption is the answer.
    """

    config: DialogueConfig
    captions: CaptionChoice

    def kind(self, sample: Sample) -> str:
        """What is asked of a sample."""
        return self.config.ask or ("conversations" if "conversations" in sample.meta else "captions")

    def conversation(self, sample: Sample, rng: np.random.Generator) -> Dialogue:
        """A conversation to learn from, drawn where there are several.

        Raises:
            DataError: If the sample has nothing to ask about.
        """
        kind = self.kind(sample)
        if kind == "conversations":
            found = dialogue_of(sample)
            if found is None:
                raise DataError("field 'conversations': the sample has none; set data.dialogue.ask to what it has")
            return self._with_suffix(found)
        if kind == "captions":
            caption, _ = self.captions(sample.captions, rng)
            return self._turns(sample, [(self._question(kind, rng), (TextPart(caption),))])
        things = self._things(sample, kind)
        order = rng.permutation(len(things))[: self.config.per_sample]
        return self._turns(sample, [(self._question(kind, rng, things[i][0]), things[i][1]) for i in order])

    def questions(self, sample: Sample) -> list[Question]:
        """Everything that is asked of a sample, each by itself, with the first wording there is; of conversations every answer in turn."""
        kind = self.kind(sample)
        if kind == "conversations":
            found = dialogue_of(sample)
            return [] if found is None else _answered(self._with_suffix(found))
        if kind == "captions":
            texts = (
                sample.captions
                if self.captions.languages is None
                else {lang: sample.captions.get(lang, []) for lang in self.captions.languages}
            )
            answers = tuple(text for group in texts.values() for text in group)
            return [Question(self._turns(sample, [(self._first(kind), None)]), answers)] if answers else []
        found_things = self._things(sample, kind, must=False)
        return [self._asked(sample, kind, name, answer) for name, answer in found_things]

    def _asked(self, sample: Sample, kind: str, name: str, answer: tuple[Part, ...]) -> Question:
        dialogue = self._turns(sample, [(self._first(kind, name), None)])
        part = answer[0]
        box = part.box if isinstance(part, BoxPart) else None
        return Question(dialogue, () if box else (part.text if isinstance(part, TextPart) else "",), box, name)

    def _things(self, sample: Sample, kind: str, must: bool = True) -> list[tuple[str, tuple[Part, ...]]]:
        """(name, answer) of everything that can be asked about."""
        if kind == "regions":
            found: list[tuple[str, tuple[Part, ...]]] = [
                (region.phrase, (BoxPart(region.box, region.image),)) for region in named(regions_of(sample)) if region.phrase
            ]
        else:
            document = fields_of(sample)
            found = (
                [] if document is None else [(name, (TextPart(text),)) for name, text in document.fields.items() if text.strip()]
            )
        if must and not found:
            raise DataError(f"field {kind!r}: the sample has nothing to ask about; leave it out, or set data.dialogue.ask")
        return found

    def _question(self, kind: str, rng: np.random.Generator, name: str = "") -> str:
        texts = self.config.questions(kind)
        return _put(texts[int(rng.integers(len(texts)))], name)

    def _first(self, kind: str, name: str = "") -> str:
        return _put(self.config.questions(kind)[0], name)

    def _turns(self, sample: Sample, pairs: Sequence[tuple[str, tuple[Part, ...] | None]]) -> Dialogue:
        turns: list[Turn] = []
        for number, (question, answer) in enumerate(pairs):
            pictures: tuple[Part, ...] = () if number else tuple(map(ImagePart, range(len(sample.images))))
            text = question + (self.config.suffix if not number else "")
            turns.append(Turn("user", (*pictures, TextPart(f"\n{text}" if pictures and text else text))))
            if answer is not None:
                turns.append(Turn("assistant", answer))
        return Dialogue(tuple(turns))

    def _with_suffix(self, dialogue: Dialogue) -> Dialogue:
        if not self.config.suffix:
            return dialogue
        turns = list(dialogue.turns)
        first = next(number for number, turn in enumerate(turns) if turn.role == "user")
        turns[first] = Turn("user", (*turns[first].parts, TextPart(self.config.suffix)))
        return Dialogue(tuple(turns))


def named(regions: Sequence[Region]) -> list[Region]:
    """Regions with a phrase that stands for one place of a picture, and no crowd."""
    phrases = [(region.image, region.phrase) for region in regions]
    return [
        region
        for region, key in zip(regions, phrases, strict=True)
        if region.phrase and not region.crowd and phrases.count(key) == 1
    ]


def _put(text: str, name: str) -> str:
    return text.replace("{phrase}", name).replace("{field}", name)


def _answered(dialogue: Dialogue) -> list[Question]:
    found = []
    for number, turn in enumerate(dialogue.turns):
        if turn.role == "assistant":
            boxes = [part.box for part in turn.parts if isinstance(part, BoxPart)]
            found.append(Question(Dialogue(dialogue.turns[:number]), (turn.text,), boxes[0] if len(boxes) == 1 else None))
    return found
