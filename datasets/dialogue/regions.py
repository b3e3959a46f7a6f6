"""`regions` of a sample: boxes with what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..decoding.media import medium_of
from ..decoding.sample import Sample
from .boxes import Box, box_in
from .checks import listed, mapped, optional_text, text_of
from .media import Media, media_of
from .place import Place

FIELD = "regions"


@dataclass(frozen=True)
class Region:
    """A box and what is known of it.

    Attributes:
        box: In pixels of the stored picture.
        phrase: An expression that refers to it and to nothing else in the picture.
        category: The class of what is in it.
        crowd: Whether it is many of the category in one box, as COCO's ``iscrowd``.
        image: Which picture it is in.
        mask: The member with its mask (`mask.0.png` of `KEY.mask.0.png`).
    """

    box: Box
    phrase: str | None = None
    category: str | None = None
    crowd: bool = False
    image: int = 0
    mask: str | None = None


def regions_of(sample: Sample, *, media: Media | None = None) -> list[Region]:
    """Returns the regions of a sample, in their order; none if it has none.

    Args:
        sample: The decoded sample.
        media: What media it has, where they were not decoded; default what the sample holds.

    Raises:
        SchemaError: Naming sample and region (counted from 1), and what is wanted.
    """
    if FIELD not in sample.meta:
        return []
    at, media = Place(sample.key, FIELD), media_of(sample) if media is None else media
    entries = listed(at, sample.meta[FIELD], "regions", empty=True)
    return [_region(at.inside(f"region {number}"), entry, media) for number, entry in enumerate(entries, start=1)]


def _region(at: Place, value: Any, media: Media) -> Region:
    entry = mapped(at, value, ("box",), ("phrase", "category", "crowd", "image", "mask"))
    box, image = box_in(at, entry, media)
    crowd = entry.get("crowd", False)
    if not isinstance(crowd, bool):
        raise at.error(f"'crowd' must be true or false, it is {crowd!r}")
    phrase, category = (optional_text(at, entry, name) for name in ("phrase", "category"))
    return Region(box, phrase, category, crowd, image, _mask(at, entry, media))


def _mask(at: Place, entry: Mapping[str, Any], media: Media) -> str | None:
    if entry.get("mask") is None:
        return None
    name = text_of(at, entry["mask"], "mask")
    if medium_of(name) is not None:
        raise at.error(f"'mask' is {name!r}, which is the name of a picture to show; call a mask 'mask.0.png' or the like")
    if media.members is not None and name not in media.members:
        raise at.error(f"'mask' is {name!r}, but the sample has no such member")
    return name
