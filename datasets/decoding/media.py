"""Which file extensions hold which kind of medium, and what each task's samples must have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

MEDIA: dict[str, frozenset[str]] = {
    "image": frozenset({"jpg", "jpeg", "png", "webp"}),
    "audio": frozenset({"wav", "flac"}),
    "series": frozenset({"npy"}),
}
# task -> fields every sample must have (a medium's name stands for any of its extensions); what "conversation" and "grounding" must
# have stands in their JSON and is checked by datasets/dialogue: conversations can do without any medium
REQUIRED: dict[str, tuple[str, ...]] = {
    "image-text": ("image", "txt"),
    "audio-text": ("audio", "txt"),
    "series-text": ("series", "txt"),
    "series": ("series",),
}


def suffix(ext: str) -> str:
    """Returns what decides how a member is decoded: the part after the last dot (``0.jpg`` -> ``jpg``)."""
    return ext.rsplit(".", 1)[-1]


def medium_of_file(name: str) -> str | None:
    """Returns the medium ("image", "audio", "series") of a file by the last part of its name, in any case, or None."""
    return next((medium for medium, exts in MEDIA.items() if suffix(name.lower()) in exts), None)


@lru_cache(4096)
def _medium_of(ext: str) -> str | None:
    head = ext.removesuffix(suffix(ext)).rstrip(".")
    return medium_of_file(ext) if not head or head.isdecimal() else None


def medium_of(ext: str) -> str | None:
    """Returns the medium a member is of: `jpg` or, of several, `0.jpg`; others (`seg.png`: a mask) are None."""
    return _medium_of(ext)


def is_field(ext: str, field: str) -> bool:
    """True if member ``ext`` answers to ``field``: the same name, the same suffix, a medium's name, or "caption" for txt and json."""
    return field in (ext, suffix(ext), medium_of(ext)) or (field == "caption" and ext in ("txt", "json"))


def select(exts: Iterable[str], fields: Sequence[str] | None) -> list[str]:
    """Returns the extensions asked for, in their stored order (None = all)."""
    if fields is None:
        return list(exts)
    return [ext for ext in exts if any(is_field(ext, field) for field in fields)]


def missing(exts: Sequence[str], fields: Iterable[str]) -> list[str]:
    """Returns those of ``fields`` that no extension answers to."""
    return [field for field in fields if not any(is_field(ext, field) for ext in exts)]
