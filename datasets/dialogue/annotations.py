"""All checks of a sample's annotations at once, for whoever writes or verifies samples."""

from __future__ import annotations

from ..decoding.sample import Sample
from .conversation import dialogue_of
from .document import fields_of
from .media import Media, media_of
from .regions import regions_of
from .spans import spans_of


def check_annotations(sample: Sample, *, media: Media | None = None, answered: bool = True) -> None:
    """Checks conversation, regions, fields and spans, as far as the sample has them.

    Args:
        sample: The decoded sample.
        media: What media it has, where they were not decoded; default what the sample holds.
        answered: Whether a conversation must end with the assistant's turn.

    Raises:
        SchemaError: For the first thing that is wrong.
    """
    media = media_of(sample) if media is None else media
    dialogue_of(sample, media=media, answered=answered)
    regions_of(sample, media=media)
    fields_of(sample, media=media)
    spans_of(sample)
