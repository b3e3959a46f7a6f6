"""`modalign ground MODEL x.jpg "phrase" --out boxed.png`: where a model sees something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..console import console
from ..data_kind import DIALOGUE
from ..device import pick_device
from ..kinds import only
from .chat import opened


def ground(
    model: str,
    image: str,
    phrase: str,
    out: str | None = None,
    question: str | None = None,
    device: str = "auto",
    max_new_tokens: int = 48,
) -> None:
    """Asks a model where something is, and prints the box in pixels: x0 y0 x1 y1.

    Args:
        model: A run folder, a release, or a LLaVA folder of transformers.
        image: The picture.
        phrase: What to look for.
        out: Draw the box into a copy of the picture.
        question: What to say, with {phrase}; default as the model was trained.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        max_new_tokens: Most tokens of the answer.
    """
    from modalign import zoo
    from modalign.zoo.errors import DataError
    from modalign.zoo.stack.generate import Decoding
    from modalign.zoo.stack.talk import Talk

    loaded = only(zoo.load(model, pick_device(device)), DIALOGUE, "ground")
    picture = opened(image)
    talk = Talk(loaded, Decoding(max_new_tokens))
    talk.show(picture, image)
    answer = talk.ask(asked_for(loaded, phrase, question))
    box = box_in(loaded, answer, picture.size)
    if box is None:
        raise DataError(f"{image}: the model named no place of {phrase!r}; it said: {answer!r}")
    print(json.dumps({"phrase": phrase, "box": [round(value, 1) for value in box], "answer": answer}, ensure_ascii=False))
    if out:
        draw(picture, box, phrase).save(out)
        console.print(f"written: {Path(out)}")


def asked_for(model: Any, phrase: str, question: str | None) -> str:
    """The words a model was trained to be asked by, or others."""
    from ..recipe.dialogue_settings import QUESTIONS

    asked = model.config.asked or {}
    own = (asked.get("question") or QUESTIONS["regions"]) if asked.get("ask") == "regions" else QUESTIONS["regions"]
    return (question or own[0]).replace("{phrase}", phrase) + (asked.get("suffix") or "")


def box_in(model: Any, answer: str, size: tuple[int, int]) -> list[float] | None:
    """The box of an answer, in pixels; None if it has none."""
    from modalign.zoo.metrics.box_text import parse_box

    found = parse_box(answer)
    return None if found is None else model.box_frame.pixels(found, size)


def draw(picture: Any, box: list[float], label: str) -> Any:
    """A copy of a picture with a box and its name."""
    from PIL import ImageDraw

    drawn = picture.convert("RGB")
    pen, width = ImageDraw.Draw(drawn), max(2, min(drawn.size) // 120)
    x0, x1 = sorted((box[0], box[2]))
    y0, y1 = sorted((box[1], box[3]))
    pen.rectangle((x0, y0, x1, y1), outline=(208, 40, 40), width=width)
    left, top, right, bottom = pen.textbbox((x0, y0), label)
    above = y0 - (bottom - top) - 6
    place = (x0, above if above >= 0 else y0 + width)
    pen.rectangle((place[0], place[1], place[0] + right - left + 6, place[1] + bottom - top + 6), fill=(208, 40, 40))
    pen.text((place[0] + 3, place[1] + 1), label, fill=(255, 255, 255))
    return drawn
