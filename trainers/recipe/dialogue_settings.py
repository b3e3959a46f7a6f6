"""What is asked about a picture, where a recipe is about conversations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from modalign.zoo.errors import RecipeError

Ask = Literal["conversations", "captions", "regions", "fields"]
#: what is asked where a recipe does not say
QUESTIONS: dict[str, list[str]] = {
    "captions": ["Describe the picture."],
    "regions": ["Where is {phrase}?"],
    "fields": ["What is the {field}?"],
}


@dataclass
class DialogueConfig:
    """How samples become conversations.

    Attributes:
        ask: `conversations` as stored; or conversations made of `captions` (the picture, then its caption), of `regions` (a phrase, then
            its box) or of the `fields` of a document (a field's name, then its value). Default conversations where a sample has some,
            else captions.
        question: What the user says, one of them drawn: `{phrase}` stands for a region's phrase, `{field}` for the name of a field.
        suffix: Put behind what the user says first, such as a sentence about axes drawn onto the picture.
        per_sample: With regions and fields, how many are asked about in one conversation.
        batching: `padded` pads a batch to its longest conversation; `bucketed` also puts conversations of like length together; `packed`
            puts several into one row, none of which sees another.
        levels: A file of alignment levels (`modalign data levels`), for methods that read one per sample.
    """

    ask: Ask | None = None
    question: list[str] = field(default_factory=list)
    suffix: str = ""
    per_sample: int = 1
    levels: str | None = None
    batching: Literal["padded", "bucketed", "packed"] = "padded"

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a question has no place for what it asks about.
        """
        if self.per_sample < 1:
            raise RecipeError(f"data.dialogue.per_sample: {self.per_sample} must be 1 or more")
        place = {"regions": "{phrase}", "fields": "{field}"}.get(self.ask or "")
        for text in self.question:
            if place is not None and place not in text:
                raise RecipeError(f"data.dialogue.question: {text!r} does not say where {place} stands")
        if self.question and self.ask == "conversations":
            raise RecipeError("data.dialogue.question: conversations bring their own questions; take it out, or change ask")

    def questions(self, ask: str) -> list[str]:
        """What may be asked."""
        return self.question or QUESTIONS[ask]
