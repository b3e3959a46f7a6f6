"""What the losses of a stage ask of the data, read off the names of the entries they read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Needs:
    """What the losses of a stage ask of the data.

    Attributes:
        image: Pictures or their features.
        text: The student's text.
        second: Second captions.
        negatives: Texts that must not fit, by themselves.
        teacher_text: Prefixes of the teachers whose text is read.
        ids: Fields whose values are read as ids.
        grouped: Captions, each followed by texts that must not fit.
        captioning: Captions as the decoder of the model predicts them, from pictures and token ids together.
        teacher_image: Prefixes of the teachers that see pictures.
    """

    image: bool
    text: bool
    second: bool
    negatives: bool
    teacher_text: tuple[str, ...]
    ids: tuple[str, ...]
    grouped: bool = False
    captioning: bool = False
    teacher_image: tuple[str, ...] = ()


_TEXT = ("text_embedding", "second_text_embedding", "negative_text_embedding")
_TEACHER = re.compile(r"teacher\d*_")
_TEACHER_TEXT = re.compile(r"(teacher\d*_)(second_|negative_|grouped_)?text_")
_WITHOUT_PICTURE = re.compile(r"teacher\d*_(((second_|negative_|grouped_)?text_)|logit_(scale|bias)$)")


def needs_of(inputs: frozenset[str]) -> Needs:
    """Reads off the names of the entries losses read."""
    captioning = any(name.startswith("caption_") for name in inputs)
    return Needs(
        image=captioning or any("image_embedding" in name for name in inputs),
        text=captioning or any(name in _TEXT for name in inputs),
        second=any("second_text" in name for name in inputs),
        negatives=any("negative_text" in name for name in inputs),
        teacher_text=_prefixes(_TEACHER_TEXT.match(name) for name in inputs),
        ids=tuple(sorted(name.removesuffix("_id") for name in inputs if name.endswith("_id"))),
        grouped=any("grouped_text" in name for name in inputs),
        captioning=captioning,
        # whatever is not known to come of text or of the model alone may need the picture
        teacher_image=_prefixes(_TEACHER.match(name) for name in inputs if not _WITHOUT_PICTURE.match(name)),
    )


def _prefixes(found: Iterable[re.Match[str] | None]) -> tuple[str, ...]:
    return tuple(sorted({match.group(1) if match.re.groups else match.group(0) for match in found if match}))


def teacher_prefix(number: int) -> str:
    """What the entries of the n-th teacher start with: `teacher_`, `teacher2_`, `teacher3_`."""
    return "teacher_" if number == 1 else f"teacher{number}_"


def teacher_number(prefix: str) -> int:
    """The reverse of `teacher_prefix`."""
    return int(prefix.removeprefix("teacher").removesuffix("_") or 1)
