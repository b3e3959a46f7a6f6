"""A decoded sample: images, captions by language, and everything else that was packed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modalign.zoo.errors import DataError

from ..sample_error import SampleError
from ..shards.captions import captions_and_meta
from ..shards.shard_set import RawSample
from .encoded import encoded_image
from .media import medium_of, select, suffix
from .table import DEFAULT_LIMITS, Limits, decode_member


@dataclass
class Sample:
    """One sample, decoded.

    Attributes:
        key: Its key.
        images: RGB images, in the order of their names (`KEY.jpg`, or `KEY.0.jpg`, `KEY.1.jpg`, ... by number); some of them may be
            `EncodedImage` where that was asked for.
        captions: ``{language: [primary, alternatives ...]}``; a caption of unknown language is under "und".
        meta: The other fields of `KEY.json` ("group", boxes, ...).
        extras: Every other member by extension: recordings, arrays, bytes of unknown types.
    """

    key: str
    images: list[Any] = field(default_factory=list)
    captions: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def primary_caption(self) -> str:
        """The first caption of the first language ("" if there is none)."""
        return next((texts[0] for texts in self.captions.values() if texts), "")


def decode_sample(
    raw: RawSample, fields: Sequence[str] | None = None, limits: Limits = DEFAULT_LIMITS, *, encoded: bool = False
) -> Sample:
    """Decodes a sample as read by `ShardSet.read`.

    Args:
        raw: The sample's bytes.
        fields: Which members to decode, as in `ShardSet.read`; None = all that were read.
        limits: Caps on what a member may unpack to.
        encoded: Leave photographs encoded (`EncodedImage`) for code that decodes only what it needs of them.

    Raises:
        SampleError: Naming shard, sample and field.
    """
    sample = Sample(raw.key)
    text, content = None, None
    for ext in sorted(select(raw.members, fields), key=_by_number):
        value = _decoded(raw, ext, limits, encoded)
        if medium_of(ext) == "image":
            sample.images.append(value)
        elif ext == "txt":
            text = value
        elif ext == "json":
            content = value
        else:
            sample.extras[ext] = value
    try:
        sample.captions, sample.meta = captions_and_meta(content, text, raw.language)
    except DataError as error:
        raise SampleError(raw.shard, raw.key, "json", str(error)) from error
    return sample


def _decoded(raw: RawSample, ext: str, limits: Limits, encoded: bool) -> Any:
    try:
        if encoded and medium_of(ext) == "image":
            return encoded_image(raw.members[ext], (raw.shard, raw.key, ext), limits)
        return decode_member(ext, raw.members[ext], limits)
    except SampleError:
        raise
    except DataError as error:
        raise SampleError(raw.shard, raw.key, ext, str(error)) from error


def _by_number(ext: str) -> tuple[int, str]:
    """Sorts "2.jpg" before "10.jpg"."""
    head = ext.removesuffix(suffix(ext)).rstrip(".")
    return (int(head) if head.isdecimal() else -1, ext)
