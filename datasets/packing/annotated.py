"""A row with any number of media, and with annotations instead of captions: conversations, regions, fields of a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import MEDIA, suffix
from ..decoding.table import ORIENTATION, image_errors, open_image
from .entries import Entry
from .rows import Row, RowError

CONVERSATION, GROUNDING = "conversation", "grounding"


@dataclass
class AnnotatedRow(Row):
    """A row whose samples may have several media or none.

    Attributes:
        media: (medium, file) of each, in the order they are numbered in.
        task: The task of the manifest.
        origin: What the group is named after, if none is given: the first medium's file as the user wrote it, or the entry.
        cut: How many boxes stuck out of their picture by less than a pixel and were cut at its edge.
    """

    media: tuple[tuple[str, Path], ...] = ()
    task: str = CONVERSATION
    origin: str = ""
    cut: int = 0

    def contents(self) -> dict[str, bytes]:
        """Reads the media, as members by extension: `jpg` of a single one, `0.jpg`, `1.png` of several of one medium."""
        members = {}
        for kind in dict.fromkeys(medium for medium, _ in self.media):
            paths = [path for medium, path in self.media if medium == kind]
            for number, path in enumerate(paths):
                ext = suffix(path.name.lower())
                members[ext if len(paths) == 1 else f"{number}.{ext}"] = path.read_bytes()
        return members


def files_of(where: str, record: dict[str, Any], medium: str, base: Path) -> list[tuple[str, Path]]:
    """Takes the files of a medium out of an entry: its column, or that with an s, is a path or a list of paths.

    Raises:
        RowError: Naming field and file.
    """
    given = [(name, record.pop(name)) for name in (medium, f"{medium}s") if name in record]
    given = [(name, value) for name, value in given if value is not None]
    if len(given) > 1:
        raise RowError(f"{where}: fields {medium!r} and '{medium}s' are both given; write all files into one of them")
    for name, value in given:
        paths = value if isinstance(value, list) else [value]
        if not paths:
            raise RowError(f"{where}: field {name!r} is an empty list; leave it out where there is none")
        return [(medium, media_file(where, name, medium, path, base)) for path in paths]
    return []


def media_file(where: str, field: str, medium: str, name: Any, base: Path) -> Path:
    """Returns the file that a field names, after checking that it is there and of the right kind.

    Raises:
        RowError: Naming field and file.
    """
    if not isinstance(name, str):
        raise RowError(f"{where}: field {field!r} must be a path, it is {type(name).__name__}")
    if suffix(name.lower()) not in MEDIA[medium]:
        raise RowError(f"{where}: field {field!r}: {name!r} is not one of .{', .'.join(sorted(MEDIA[medium]))}")
    path = base / name
    if not path.is_file():
        raise RowError(f"{where}: field {field!r}: the file {name!r} does not exist (looked for {path})")
    return path


def picture_size(where: str, path: Path) -> tuple[int, int]:
    """Returns (width, height) of a picture from its header, held upright as it is decoded.

    Raises:
        RowError: If it is no picture.
    """
    try:
        with image_errors():
            image = open_image(path.read_bytes())
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) >= 5
    except DataError as error:
        raise RowError(f"{where}: picture {path.name!r}: {error}") from error
    return (height, width) if turned else (width, height)


def each_row(entries: Iterable[Entry | RowError], read: Callable[[Entry], AnnotatedRow]) -> Iterator[AnnotatedRow | RowError]:
    """Yields a row for each entry, and an error in place of each that cannot be read.

    Args:
        entries: The entries.
        read: Makes the row of one; raises `RowError` where it cannot.
    """
    for entry in entries:
        try:
            yield entry if isinstance(entry, RowError) else read(entry)
        except RowError as error:
            yield error
