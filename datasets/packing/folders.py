"""Rows from folders: media with same-named .txt or .json files beside them, or tars that another tool wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import medium_of, medium_of_file
from ..shards.index import build_index
from .rows import Row, RowError, take_captions


def media_rows(folder: Path, lang: str) -> Iterator[Row | RowError]:
    """Yields a row for each media file under ``folder``, in the order of the paths.

    `NAME.txt` has one caption per line; `NAME.json` is an object with the same fields as a line of a jsonl. Both may be there:
    then captions of the .json count, and the .txt is used if it has none.

    Raises:
        DataError: If there is no media file at all.
    """
    media = [path for path in sorted(folder.rglob("*")) if path.is_file() and medium_of_file(path.name)]
    media = [path for path in media if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not media:
        raise DataError(f"{folder}: no jpg, png, webp, wav, flac or npy file in this folder, and no tar")
    for path in media:
        try:
            yield _media_row(folder, path, lang)
        except RowError as error:
            yield error


def _media_row(folder: Path, path: Path, lang: str) -> Row:
    medium = medium_of_file(path.name)
    assert medium is not None
    record = _json_beside(path.with_suffix(".json"))
    language = record.pop("lang", None) or lang
    key = record.pop("key", None)
    captions = take_captions(str(path.with_suffix(".json")), record, language)
    text = path.with_suffix(".txt")
    if not captions and text.is_file():
        captions = _captions_of_text(text, language)
    if not captions:
        raise RowError(
            f"{path}: no caption; expected {text.name} (a caption per line) or a {text.stem}.json with 'caption' beside it"
        )
    return Row(str(path), medium, path, str(path.relative_to(folder)), captions, record, key)


def _json_beside(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RowError(f"{path}: not valid JSON in UTF-8 ({error})") from error
    if not isinstance(content, dict):
        raise RowError(f"{path}: must be a JSON object")
    return content


def _captions_of_text(path: Path, language: str) -> dict[str, list[str]]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise RowError(f"{path}: not UTF-8 text (byte {error.start})") from error
    texts = [line for line in lines if line]
    return {language: texts} if texts else {}


def tar_rows(tars: list[Path], lang: str) -> Iterator[Row | RowError]:
    """Yields the samples of WebDataset tars that have no manifest (the tars are walked strictly: damage is an error).

    Raises:
        DataError: If a tar is damaged or its names do not follow KEY.EXTENSION.
    """
    for tar in tars:
        index = build_index(tar)
        with open(tar, "rb") as stream:
            for number, key in enumerate(index.keys):
                members = {}
                for ext, (offset, size) in index.members(number).items():
                    stream.seek(offset)
                    members[ext] = stream.read(size)
                try:
                    yield _tar_row(f"{tar}: sample {key!r}", key, members, lang)
                except RowError as error:
                    yield error


def _tar_row(where: str, key: str, members: dict[str, bytes], lang: str) -> Row:
    media = {ext: data for ext, data in members.items() if medium_of(ext)}
    kinds = sorted({medium_of(ext) or "" for ext in media})
    if not kinds:
        raise RowError(f"{where}: no image, recording or array (it has {', '.join(members)})")
    try:
        record = json.loads(members["json"].decode("utf-8")) if "json" in members else {}
        text = members["txt"].decode("utf-8").strip() if "txt" in members else ""
    except (ValueError, RecursionError) as error:
        raise RowError(f"{where}: field 'txt' or 'json' cannot be read ({error})") from error
    record = record if isinstance(record, dict) else {"json": record}
    language = record.pop("lang", None) or lang
    record.pop("key", None)
    text_counts = text and not isinstance(record.get("captions"), dict)  # the rule of captions.py
    captions = {language: [text]} if text_counts else take_captions(where, record, language)
    if not captions:
        raise RowError(f"{where}: field 'txt' is missing or empty, and 'json' has no captions")
    others = {ext: data for ext, data in members.items() if ext not in ("txt", "json")}
    return Row(where, kinds[0], None, key, captions, record, key, others)
