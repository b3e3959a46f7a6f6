"""A decoded sample: images, captions by language, and everything else that was packed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modalign.zoo.errors import DataError

from .decode import DEFAULT_LIMITS, Limits, decode_member
from .media import medium_of, select, suffix
from .shards import RawSample

if TYPE_CHECKING:
    from PIL.Image import Image

UNKNOWN_LANGUAGE = "und"


@dataclass
class Sample:
    """One sample, decoded.

    Attributes:
        key: Its key.
        images: RGB images, in the order of their names (`KEY.jpg`, or `KEY.0.jpg`, `KEY.1.jpg`, ... by number).
        captions: ``{language: [primary, alternatives ...]}``; a caption of unknown language is under "und".
        meta: The other fields of `KEY.json` ("group", boxes, ...).
        extras: Every other member by extension: recordings, arrays, bytes of unknown types.
    """

    key: str
    images: list[Image] = field(default_factory=list)
    captions: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def primary_caption(self) -> str:
        """The first caption of the first language ("" if there is none)."""
        return next((texts[0] for texts in self.captions.values() if texts), "")


def decode_sample(raw: RawSample, fields: Sequence[str] | None = None, limits: Limits = DEFAULT_LIMITS) -> Sample:
    """Decodes a sample as read by `ShardSet.read`.

    Args:
        raw: The sample's bytes.
        fields: Which members to decode, as in `ShardSet.read`; None = all that were read.
        limits: Caps on what a member may unpack to.

    Raises:
        DataError: Naming shard, sample and field.
    """
    sample = Sample(raw.key)
    text: str | None = None
    for ext in sorted(select(raw.members, fields), key=_by_number):
        value = _decoded(raw, ext, limits)
        if medium_of(ext) == "image":
            sample.images.append(value)
        elif ext == "txt":
            text = value
        elif ext == "json":
            sample.captions, sample.meta = _captions_and_meta(raw, value)
        else:
            sample.extras[ext] = value
    if text is not None and not sample.captions:
        sample.captions = {UNKNOWN_LANGUAGE: [text]}
    return sample


def _decoded(raw: RawSample, ext: str, limits: Limits) -> Any:
    try:
        return decode_member(ext, raw.members[ext], limits)
    except DataError as error:
        raise _error(raw, ext, str(error)) from error


def _error(raw: RawSample, ext: str, reason: str) -> DataError:
    return DataError(f"{raw.shard}: sample {raw.key!r}, field {ext!r}: {reason}")


def _by_number(ext: str) -> tuple[int, str]:
    """Sorts "2.jpg" before "10.jpg"."""
    head = ext.removesuffix(suffix(ext)).rstrip(".")
    return (int(head) if head.isdecimal() else -1, ext)


def _captions_and_meta(raw: RawSample, content: Any) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Splits the content of `KEY.json`; plain WebDataset users' JSON has no captions, or one as a string."""
    if not isinstance(content, dict):
        return {}, {"json": content}
    meta = dict(content)
    captions = meta.pop("captions", {})
    if not isinstance(captions, dict):
        raise _error(raw, "json", "'captions' is not a map of languages to lists of texts")
    for language, texts in captions.items():
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            raise _error(raw, "json", f"'captions.{language}' is not a non-empty list of texts")
    return captions, meta
