"""What `encode_image` and `encode_text` take: anything else is refused in a sentence that names its position."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from ..errors import AssemblyError

_FROM_ARRAY = "; make a picture of an array of bytes (H, W, 3) with Image.fromarray(array)"


def picture_batches(images: Sequence[Image.Image], size: int) -> Iterator[Sequence[Image.Image]]:
    """Cuts pictures into batches.

    A list is checked as a whole before its first batch is computed; a sequence of another kind, which may read its pictures from
    files, batch by batch.

    Args:
        images: PIL pictures.
        size: Pictures in a batch.

    Raises:
        AssemblyError: If it is a single picture or no sequence, or holds something else; it names the position and what is wanted.
    """
    if isinstance(images, Image.Image):
        raise AssemblyError("encode_image takes a list of pictures; write encode_image([picture])")
    if isinstance(images, str | os.PathLike):
        raise AssemblyError(f"encode_image takes a list of PIL pictures, not a path; write {_opened(images)}")
    if _is_array(images):
        raise AssemblyError(f"encode_image takes a list of PIL pictures, not {_kind(images)}{_FROM_ARRAY}")
    _check_sequence(images, "encode_image", "PIL pictures")
    if isinstance(images, list | tuple):
        _check_pictures(images, 0)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        _check_pictures(batch, start)
        yield batch


def check_texts(texts: Sequence[str]) -> None:
    """Refuses what is no sequence of strings.

    Raises:
        AssemblyError: If it is a single string or no sequence, or holds something else; it names the position and what is wanted.
    """
    if isinstance(texts, str):
        raise AssemblyError("encode_text takes a list of strings; write encode_text([text])")
    _check_sequence(texts, "encode_text", "strings")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise AssemblyError(
                f"encode_text takes strings (str), but the text at position {position} is {_kind(text)}; give a str in its place"
            )


def _check_pictures(images: Sequence[Any], first: int) -> None:
    for position, image in enumerate(images, first):
        if isinstance(image, Image.Image):
            continue
        where = f"encode_image takes PIL pictures, but the one at position {position} is {_kind(image)}"
        if isinstance(image, str | os.PathLike):
            raise AssemblyError(f"{where}, a path; open it: Image.open({os.fspath(image)!r})")
        raise AssemblyError(f"{where}{_FROM_ARRAY if _is_array(image) else '; open its file: Image.open(path)'}")


def _check_sequence(items: Any, method: str, what: str) -> None:
    """Length and slices are needed; a map has the first but not the second, a generator neither."""
    if isinstance(items, bytes | dict) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise AssemblyError(f"{method} takes a list of {what}, not {_kind(items)}")


def _opened(path: str | os.PathLike[str]) -> str:
    return f"encode_image([Image.open({os.fspath(path)!r})])"


def _is_array(item: Any) -> bool:
    """Whether something is an array of numbers; one of objects may hold pictures."""
    return hasattr(item, "shape") and str(getattr(item, "dtype", "")) != "object"


def _kind(item: Any) -> str:
    if item is None:
        return "None"
    module = type(item).__module__.split(".")[0]
    return f"of type {type(item).__name__ if module == 'builtins' else f'{module}.{type(item).__name__}'}"
