"""Referring expressions as JSON or JSON lines, in the manner of RefCOCO (Kazemzadeh et al. 2014, Yu et al. 2016).

An entry is {file_name or image, bbox [x, y, width, height] or box [x0, y0, x1, y1], sentences or phrases}. All entries of a picture
become one sample; every sentence is a region with the entry's box.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .annotated import GROUNDING, AnnotatedRow, media_file, picture_size
from .coco import corners_at
from .entries import Entry
from .rows import RowError

PICTURE, BOX, TEXTS = ("file_name", "image"), ("bbox", "box"), ("sentences", "phrases")
_KEPT = ("split", "image_id")  # kept of the entries of a picture, where they agree


def is_refcoco(record: Mapping[str, Any]) -> bool:
    """True for an entry of this form."""
    return all(any(name in record for name in names) for names in (PICTURE, BOX, TEXTS))


def refcoco_rows(entries: Iterable[Entry | RowError], base: Path) -> Iterator[AnnotatedRow | RowError]:
    """Yields errors of entries, then a row for each picture, in the order in which they are first named.

    Args:
        entries: The entries of the file.
        base: Folder of the pictures.
    """
    rows: dict[Path, AnnotatedRow] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for entry in entries:
        try:
            if isinstance(entry, RowError):
                raise entry
            _add(entry, base, rows, sizes)
        except RowError as error:
            yield error
    yield from rows.values()


def _add(entry: Entry, base: Path, rows: dict[Path, AnnotatedRow], sizes: dict[Path, tuple[int, int]]) -> None:
    where, record = entry.where, entry.record
    field = one_of(where, record, PICTURE)
    path = media_file(where, field, "image", record[field], base)
    if path not in sizes:
        sizes[path] = picture_size(where, path)
    box, cut = corners_at(where, record, sizes[path], one_of(where, record, BOX))
    found: dict[str, Any] = {"box": box}
    if record.get("category") is not None:
        found["category"] = record["category"]
    regions = [{**found, "phrase": phrase} for phrase in _phrases(where, record)]
    kept = {name: record[name] for name in _KEPT if name in record}
    row = rows.get(path)
    if row is None:
        fields, media, name = {**kept, "regions": regions}, (("image", path),), record[field]
        rows[path] = AnnotatedRow(where, "image", None, name, {}, fields, media=media, task=GROUNDING, origin=name, cut=int(cut))
        return
    for name, value in kept.items():
        if row.fields.get(name, value) != value:
            raise RowError(
                f"{where}: field {name!r} is {value!r}, but {row.where} says {row.fields[name]!r} for the same picture"
            )
    row.fields = {**row.fields, **kept, "regions": [*row.fields["regions"], *regions]}
    row.cut += cut


def one_of(where: str, record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Returns which of some names an entry has.

    Raises:
        RowError: If it has none or several.
    """
    found = [name for name in names if record.get(name) is not None]
    if len(found) != 1:
        said = " and ".join(map(repr, found)) or "none of them"
        raise RowError(f"{where}: exactly one of the fields {', '.join(map(repr, names))} must be given, found {said}")
    return found[0]


def _phrases(where: str, record: Mapping[str, Any]) -> list[str]:
    """The expressions: texts, or objects with `sent` (or `raw`), as RefCOCO has them."""
    name = one_of(where, record, TEXTS)
    values = record[name] if isinstance(record[name], list) else [record[name]]
    given = [value.get("sent", value.get("raw")) if isinstance(value, dict) else value for value in values]
    texts = [text.strip() for text in given if isinstance(text, str) and text.strip()]
    if not texts or len(texts) < len(given):
        raise RowError(
            f"{where}: field {name!r} must be a text or a list of texts (or of objects with 'sent'), none of them empty"
        )
    return texts
