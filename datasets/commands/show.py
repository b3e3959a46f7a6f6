"""`modalign data show`: look at the data."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modalign.zoo.errors import DataError

from ..decoding.sample import Sample, decode_sample
from ..dialogue import AudioPart, BoxPart, Dialogue, ImagePart, Part, SchemaError, SpanPart, TextPart, dialogue_of, fields_of
from ..loading.order import permutation
from ..packing.annotated import CONVERSATION, GROUNDING
from ..remote.access import remote_of
from ..series.sketch import described, sketch
from ..series.stored import TASK as SERIES
from ..series.stored import checked_series
from ..shards.shard_set import RawSample, ShardSet
from .boxes import Label, labels_of, with_boxes
from .sheet import CELL, contact_sheet, sheet_path

if TYPE_CHECKING:
    from PIL import Image

WIDE_CELL = 380  # with boxes and conversations there is more to read
_PRINTED = 400  # letters of a conversation on the console


def show(
    shards: str,
    out: str = "",
    n: int = 16,
    *,
    lang: str = "",
    seed: int = -1,
    allow_remote: list[str] | None = None,
) -> list[Sample]:
    """Draws samples with their captions on a contact sheet and prints the captions.

    Boxes are drawn into the pictures, with their phrases or categories; below a picture with a conversation stand its first words.

    Args:
        shards: The folder of shards.
        out: Path of the PNG; default contact_sheet.png, or the next free of contact_sheet-2.png, contact_sheet-3.png ...
        n: How many samples.
        lang: Show captions of this language only; else the primary caption and the language of each.
        seed: -1: the first samples; else a random choice with this seed.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.

    Returns:
        The samples that were drawn.

    Raises:
        DataError: If `out` is no .png, a sample cannot be decoded, has no image, or no sample has captions of that language.
    """
    sheet = sheet_path(out, "contact_sheet.png")
    source = ShardSet(shards, remote=remote_of(allow_remote))
    if n < 1:
        raise DataError(f"n is {n}; at least one sample must be shown")
    numbers = range(len(source)) if seed < 0 else permutation(len(source), "show", seed).tolist()
    samples: list[Sample] = []
    for number in numbers:
        raw = source.read(number)
        sample = decode_sample(raw)
        if source.manifest.task == SERIES:
            sample = _sketched(raw, sample)
        if not lang or lang in sample.captions:
            samples.append(sample)
        if len(samples) == n:
            break
    if not samples:
        known = ", ".join(source.manifest.schema.get("languages", {}))
        raise DataError(f"{source.folder}: no sample has a caption in {lang!r}; languages: {known}")
    try:
        drawn = [_drawn(sample, lang, source.manifest.task) for sample in samples]
    except DataError as error:
        raise DataError(f"{source.folder}: {error}") from error
    title = f"{source.folder.name}: {len(samples)} of {len(source)} samples"
    cell = WIDE_CELL if any(one.annotated for one in drawn) else CELL
    path = contact_sheet([one.picture for one in drawn], [one.caption for one in drawn], sheet, title, cell=cell)
    for sample, one in zip(samples, drawn, strict=True):
        print(f"{sample.key}: {one.caption if len(one.caption) <= _PRINTED else one.caption[:_PRINTED] + '…'}")
    print(f"written: {path}")
    return samples


@dataclass(frozen=True)
class _Drawn:
    """A sample as it goes onto the sheet."""

    picture: Image.Image
    caption: str
    annotated: bool = False


def _drawn(sample: Sample, lang: str, task: str) -> _Drawn:
    """A plain pair as it is; with annotations all pictures, the boxes in them, and what is said."""
    dialogue, labels = _annotations(sample, task)
    if not sample.images and dialogue is None:
        raise DataError(f"sample {sample.key!r} has no image to show")
    caption = said(dialogue) if dialogue else _caption(sample, lang) or _answers(sample) or _names(labels)
    if not labels and dialogue is None:
        return _Drawn(sample.images[0], caption)
    if not sample.images:
        return _Drawn(_nothing(), caption, True)
    picture, hidden = with_boxes(sample.images, labels, WIDE_CELL)
    return _Drawn(picture, f"({hidden} of {len(labels)} labels hidden) {caption}" if hidden else caption, True)


def _annotations(sample: Sample, task: str) -> tuple[Dialogue | None, list[Label]]:
    """Conversation and boxes. In shards of pairs a field of such a name may be anything, so there it need not follow the schema."""
    try:
        dialogue = dialogue_of(sample, answered=False)
        return dialogue, labels_of(sample, dialogue)
    except SchemaError:
        if task in (CONVERSATION, GROUNDING):
            raise
        return None, []


def _nothing() -> Image.Image:
    """In the place of a picture where a conversation has none."""
    from PIL import Image

    return Image.new("RGB", (WIDE_CELL, WIDE_CELL // 4), "#eeeeee")


def said(dialogue: Dialogue) -> str:
    """Returns a conversation in one line, media and boxes as marks: ``user: [image] What is [box 1]? assistant: a hat``.

    Args:
        dialogue: The conversation.
    """
    boxes = itertools.count(1)
    parts = [part for turn in dialogue.turns for part in turn.parts]
    several = {type(part) for part in parts if not isinstance(part, TextPart | BoxPart | SpanPart) and part.index}
    turns = [f"{turn.role}: " + " ".join(_part(part, boxes, several).strip() for part in turn.parts) for turn in dialogue.turns]
    return " ".join(" ".join(turns).split())


def _part(part: Part, boxes: Iterator[int], several: Collection[object]) -> str:
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, BoxPart):
        return f"[box {next(boxes)}]"
    if isinstance(part, SpanPart):
        return f"[{part.start:g}-{part.end:g} s]"
    kind = "image" if isinstance(part, ImagePart) else "audio" if isinstance(part, AudioPart) else "video"
    return f"[{kind} {part.index}]" if type(part) in several else f"[{kind}]"


def _names(labels: list[Label]) -> str:
    return "; ".join(label.text for label in labels if label.text)


def _answers(sample: Sample) -> str:
    document = fields_of(sample)
    return "; ".join(f"{name}: {answer}" for name, answer in document.fields.items()) if document else ""


def _sketched(raw: RawSample, sample: Sample) -> Sample:
    """A series as a picture of its columns and a line about it."""
    series = checked_series(raw, sample)
    return replace(sample, key=series.key, images=[sketch(series)], captions=sample.captions or {"": [described(series)]})


def _caption(sample: Sample, lang: str) -> str:
    language = lang or next(iter(sample.captions), "")
    texts = sample.captions.get(language, [""])
    more = sum(len(others) for others in sample.captions.values()) - 1
    return (f"[{language}] " if language else "") + texts[0] + (f" (+{more})" if more > 0 else "")
