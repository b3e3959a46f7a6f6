"""`conversations` of a sample: turns of user and assistant, made of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from modalign.zoo.errors import nearest
from modalign.zoo.language.turns import Dialogue, ImagePart, Role, TextPart, Turn

from ..decoding.sample import Sample
from .checks import listed, mapped, text_of
from .media import Media, media_of
from .parts import NAMES, PartReader
from .place import Place

FIELD = "conversations"
ROLES: tuple[Role, ...] = get_args(Role)


def dialogue_of(sample: Sample, *, media: Media | None = None, answered: bool = True) -> Dialogue | None:
    """Returns the conversation of a sample, None if it has none.

    Where no turn has a picture as a part, all pictures are placed at the start of the first user turn, each with a line break (Liu et al.
    2023, "Visual Instruction Tuning"); where one has, every picture must be shown.

    Args:
        sample: The decoded sample.
        media: What media it has, where they were not decoded; default what the sample holds.
        answered: Whether the last turn must be the assistant's, as training needs it.

    Raises:
        SchemaError: Naming sample, turn and part (counted from 1), and what is wanted.
    """
    if FIELD not in sample.meta:
        return None
    at = Place(sample.key, FIELD)
    reader = PartReader(media_of(sample) if media is None else media)
    entries = listed(at, sample.meta[FIELD], "turns")
    turns = [_turn(at.inside(f"turn {number}"), entry, reader) for number, entry in enumerate(entries, start=1)]
    _check_roles(at, turns, answered)
    return Dialogue(tuple(_with_all_media(at, turns, reader)))


def _turn(at: Place, value: Any, reader: PartReader) -> Turn:
    entry = mapped(at, value, ("role", "content"))
    role, content = entry["role"], entry["content"]
    if role not in ROLES:
        raise at.error(f"'role' is {role!r}{nearest(str(role), ROLES)}")
    if isinstance(content, str):
        return Turn(role, (TextPart(text_of(at, content, "content")),))
    parts = listed(at, content, "parts (or a text)")
    read = tuple(reader.read(at.inside(f"part {number}"), part) for number, part in enumerate(parts, start=1))
    if all(isinstance(part, TextPart) and not part.text.strip() for part in read):
        raise at.error("'content' has nothing but spaces; write what is said")
    return Turn(role, read)


def _check_roles(at: Place, turns: Sequence[Turn], answered: bool) -> None:
    """System at most once and first, then user, assistant, user ..."""
    first = 1 if turns[0].role == "system" else 0
    if len(turns) == first:
        raise at.error("there is no user turn")
    for number, turn in enumerate(turns[first:]):
        here = at.inside(f"turn {first + number + 1}")
        if turn.role == "system":
            raise here.error("its role is 'system', which only the first turn may have")
        wanted = ROLES[1 + number % 2]
        if turn.role != wanted:
            raise here.error(f"its role is {turn.role!r}, {wanted!r} is wanted; user and assistant alternate, the user first")
    if answered and turns[-1].role != "assistant":
        raise at.inside(f"turn {len(turns)}").error("it is the last and the user's; the last turn must be the assistant's answer")


def _with_all_media(at: Place, turns: list[Turn], reader: PartReader) -> list[Turn]:
    """Places the pictures if none is placed, and finds media that no turn shows."""
    pictures = reader.media.count("image")
    if pictures and not reader.shown["image"]:
        first = next(number for number, turn in enumerate(turns) if turn.role == "user")
        placed = tuple(part for number in range(pictures) for part in (ImagePart(number), TextPart("\n"))) + turns[first].parts
        turns = [*turns[:first], replace(turns[first], parts=placed), *turns[first + 1 :]]
        reader.shown["image"].update(range(pictures))
    for medium, name in NAMES.items():
        for number in reader.never_shown(medium):
            raise at.error(
                f"no turn shows {name} {number} (of {reader.media.count(medium)}, numbered from 0); "
                f'put {{"type": "{medium}"}} where it belongs, or leave the {name} out'
            )
    return turns
