"""COCO's JSON of instances or captions: {images, annotations, categories} (Lin et al. 2014; cocodataset.org, "Data format")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..dialogue.boxes import corners
from .annotated import GROUNDING, AnnotatedRow, media_file, picture_size
from .rows import RowError

Numbered = tuple[str, dict[str, Any]]  # where it stands, for messages, and the annotation


@dataclass
class _Tables:
    """What the pictures' rows are made with."""

    source: Path
    base: Path
    lang: str
    task: str
    categories: dict[Any, str]
    licences: dict[Any, str]
    annotations: dict[Any, list[Numbered]] = field(default_factory=dict)


def coco_rows(source: Path, content: Any, lang: str, base: Path) -> Iterator[AnnotatedRow | RowError]:
    """Yields a row for each picture: its regions (with category and crowd flag) and captions.

    Args:
        source: The file, for messages.
        content: What it holds.
        lang: Language of the captions.
        base: Folder of the pictures.

    Raises:
        DataError: If the file as a whole is not of this form.
    """
    images, annotations = (_table(source, content, name) for name in ("images", "annotations"))
    boxes = "categories" in content or any(isinstance(one, dict) and "bbox" in one for one in annotations)
    task = GROUNDING if boxes else "image-text"
    categories, licences = _names(source, content, "categories"), _names(source, content, "licenses")
    tables = _Tables(source, base, lang, task, categories, licences)
    known = _ids(source, images)
    for number, annotation in enumerate(annotations, start=1):
        try:
            image, one = _placed(source, number, annotation, known)
            tables.annotations.setdefault(image, []).append(one)
        except RowError as error:
            yield error
    for number, image in enumerate(images, start=1):
        try:
            yield _row(tables, number, image)
        except RowError as error:
            yield error


def _table(source: Path, content: Any, name: str) -> list[Any]:
    table = content.get(name) if isinstance(content, dict) else None
    if not isinstance(table, list):
        raise DataError(
            f"{source}: field {name!r} must be a list; a COCO file is an object with images, annotations and categories"
        )
    return table


def _ids(source: Path, images: list[Any]) -> set[Any]:
    found: set[Any] = set()
    for number, image in enumerate(images, start=1):
        if isinstance(image, dict) and isinstance(image.get("id"), str | int):
            if image["id"] in found:
                raise DataError(f"{source}: images, entry {number}: the id {image['id']!r} was already used")
            found.add(image["id"])
    return found


def _names(source: Path, content: Mapping[str, Any], name: str) -> dict[Any, str]:
    """Id -> name of the categories or licences, which may be left out."""
    found: dict[Any, str] = {}
    for number, entry in enumerate(_table(source, {name: [], **content}, name), start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int) or not isinstance(entry.get("name"), str):
            raise DataError(f"{source}: {name}, entry {number}: an object with 'id' and 'name' is wanted")
        if entry["id"] in found:
            raise DataError(f"{source}: {name}, entry {number}: the id {entry['id']!r} was already used")
        found[entry["id"]] = entry["name"]
    return found


def _placed(source: Path, number: int, annotation: Any, known: set[Any]) -> tuple[Any, Numbered]:
    """Finds which picture an annotation is of."""
    if not isinstance(annotation, dict):
        raise RowError(f"{source}: annotations, entry {number}: must be an object, it is {type(annotation).__name__}")
    where = f"{source}: annotations, entry {number} (id {annotation.get('id')!r})"
    image = annotation.get("image_id")
    if not isinstance(image, str | int) or image not in known:
        raise RowError(f"{where}: field 'image_id' is {image!r}; 'images' has no such id")
    return image, (where, annotation)


def _row(tables: _Tables, number: int, image: Any) -> AnnotatedRow:
    if not isinstance(image, dict) or not isinstance(image.get("id"), str | int):
        raise RowError(f"{tables.source}: images, entry {number}: an object with 'id' and 'file_name' is wanted")
    where = f"{tables.source}: images, entry {number} (id {image['id']!r})"
    name = image.get("file_name")
    path = media_file(where, "file_name", "image", name, tables.base)
    size = _size(where, image, path)
    annotations = tables.annotations.get(image["id"], [])
    captions = [_caption(*one) for one in annotations if "bbox" not in one[1]]
    boxes = [corners_at(*one, size, "bbox") for one in annotations if "bbox" in one[1]]
    fields: dict[str, Any] = {"image_id": image["id"]}
    if licence := _looked_up(tables.licences, image.get("license")):
        fields["license"] = licence
    if tables.task == GROUNDING:
        named = [_named(tables, *one) for one in annotations if "bbox" in one[1]]
        fields["regions"] = [{"box": box, **rest} for (box, _), rest in zip(boxes, named, strict=True)]
    elif not captions:
        raise RowError(f"{where}: no annotation has a caption for it")
    texts = {tables.lang: captions} if captions else {}
    cut = sum(was_cut for _, was_cut in boxes)
    media = (("image", path),)
    return AnnotatedRow(where, "image", None, str(name), texts, fields, media=media, task=tables.task, origin=str(name), cut=cut)


def _size(where: str, image: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """The picture's size; boxes mean nothing if the file is not the one they were drawn on."""
    size = picture_size(where, path)
    said = (image.get("width", size[0]), image.get("height", size[1]))
    if said != size:
        raise RowError(
            f"{where}: fields 'width' and 'height' say {said[0]}x{said[1]}, the file {path.name!r} has {size[0]}x{size[1]} pixels; "
            "give the folder of the pictures that were annotated (--images)"
        )
    return size


def _caption(where: str, annotation: Mapping[str, Any]) -> str:
    caption = annotation.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise RowError(f"{where}: it has neither a 'bbox' nor a 'caption' with a text")
    return caption.strip()


def corners_at(where: str, entry: Mapping[str, Any], size: tuple[int, int], name: str) -> tuple[list[float], bool]:
    """Returns the box of an entry as ours and whether it was cut at the picture's edge; ``name`` tells the layout.

    Raises:
        RowError: Naming entry and field.
    """
    try:
        return corners(entry[name], "xywh" if name == "bbox" else "xyxy", size)
    except DataError as error:
        raise RowError(f"{where}: field {name!r}: {error}") from error


def _named(tables: _Tables, where: str, annotation: Mapping[str, Any]) -> dict[str, Any]:
    """What a region is called: its category, the phrase if the annotation describes its box, and whether it is a crowd."""
    found: dict[str, Any] = {}
    if "category_id" in annotation:
        category = _looked_up(tables.categories, annotation["category_id"])
        if category is None:
            raise RowError(f"{where}: field 'category_id' is {annotation['category_id']!r}; 'categories' has no such id")
        found["category"] = category
    if "caption" in annotation:
        found["phrase"] = _caption(where, annotation)
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise RowError(f"{where}: field 'iscrowd' is {crowd!r}; it can be 0 or 1")
    return {**found, "crowd": True} if crowd else found


def _looked_up(names: Mapping[Any, str], key: Any) -> str | None:
    return names.get(key) if isinstance(key, str | int) else None
