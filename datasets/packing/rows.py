"""Reads the users' own lists of samples: csv, tsv, jsonl, a folder of media with texts beside them, or a folder of plain tars.

Every source becomes a stream of `Row`; whatever is wrong with a row is a sentence that names file, line and field.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import MEDIA, suffix

MEDIA_COLUMNS = tuple(MEDIA)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


@dataclass
class Row:
    """One sample to pack.

    Attributes:
        where: "FILE:LINE" or the file, for messages.
        medium: "image", "audio" or "series".
        path: The medium's file, or None if ``data`` holds its bytes.
        name: What a key is derived from if none is given (the path as the user wrote it).
        captions: ``{language: [text, ...]}``.
        fields: Everything else, kept in the sample's JSON.
        key: The key, if given.
        members: Members given as bytes (from tars).
    """

    where: str
    medium: str
    path: Path | None
    name: str
    captions: dict[str, list[str]]
    fields: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    members: dict[str, bytes] = field(default_factory=dict)


class RowError(DataError):
    """What is wrong with one row; the others can still be read."""


def read_rows(source: Path, lang: str, delimiter: str = "") -> Iterator[Row | RowError]:
    """Yields the rows of a source, and an error in place of each row that cannot be read.

    Args:
        source: A .csv, .tsv or .jsonl file, or a folder.
        lang: Language of captions for which none is given.
        delimiter: Of a csv, if it is not a comma.

    Raises:
        DataError: If the source as a whole cannot be read.
    """
    if source.is_dir():
        from .folders import media_rows, tar_rows

        tars = sorted(source.glob("*.tar"))
        return tar_rows(tars, lang) if tars else media_rows(source, lang)
    if not source.is_file():
        raise DataError(f"{source}: no such file or folder")
    kind = source.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _safely(_csv_records(source, delimiter or ("\t" if kind == ".tsv" else ",")), source, lang)
    if kind in (".jsonl", ".ndjson"):
        return _safely(_jsonl_records(source), source, lang)
    raise DataError(
        f"{source}: cannot tell what this is; give a .csv, .tsv or .jsonl file, a folder of media, or a folder of tars"
    )


Record = tuple[str, dict[str, Any] | RowError]


def _safely(records: Iterator[Record], source: Path, lang: str) -> Iterator[Row | RowError]:
    for where, record in records:
        if isinstance(record, RowError):
            yield record
            continue
        try:
            yield _row(where, record, source.parent, lang)
        except RowError as error:
            yield error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from error


def _csv_records(source: Path, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(_text(source), newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(source, header)
        line = reader.line_num
        for values in reader:
            where, line = f"{source}:{line + 1}", reader.line_num
            if not values:
                continue
            if len(values) != len(header):
                yield where, RowError(f"{where}: {len(values)} values, but the header has {len(header)} columns")
                continue
            yield where, {name: value for name, value in zip(header, values, strict=True) if value != ""}
    except csv.Error as error:
        raise DataError(f"{source}:{reader.line_num}: not valid csv ({error})") from error


def _check_header(source: Path, header: list[str]) -> None:
    if len(set(header)) != len(header) or "" in header:
        raise DataError(f"{source}:1: the header has an empty or repeated column name: {header}")
    columns = f"(columns: {', '.join(header)}){_other_delimiter(header)}"
    if not set(header) & set(MEDIA_COLUMNS):
        raise DataError(f"{source}:1: no column is named image, audio or series {columns}{_meant(header, MEDIA_COLUMNS)}")
    if not any(_caption_language(name, "und") for name in header):
        hint = _meant(header, ("caption", "captions"))
        raise DataError(f"{source}:1: no column is named caption, captions or caption_LANGUAGE {columns}{hint}")


def _meant(names: Iterable[Any], known: Sequence[str]) -> str:
    """A hint where a column's name is nearly, or but for its case, one of those known."""
    for name in map(str, names):
        if close := difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7):
            return f"; did you mean {close[0]!r} with the column {name!r}?"
    return ""


def _other_delimiter(header: list[str]) -> str:
    """A hint where a column's name looks like several."""
    found = next((mark for mark in (";", "\t", "|") if any(mark in name for name in header)), None)
    return "" if found is None else f"; if {found!r} separates them, say --delimiter {found!r}"


def _jsonl_records(source: Path) -> Iterator[Record]:
    for number, line in enumerate(_text(source).split("\n"), start=1):
        where = f"{source}:{number}"
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield where, RowError(f"{where}: not valid JSON ({error})")
            continue
        if isinstance(content, dict):
            yield where, content
        else:
            yield where, RowError(f"{where}: a line must be a JSON object, this is {type(content).__name__}")


def _row(where: str, record: dict[str, Any], base: Path, lang: str) -> Row:
    """Makes a row of a record with the columns image|audio|series, caption[s], lang, key and others."""
    record = dict(record)
    media = [name for name in MEDIA_COLUMNS if record.get(name)]
    if len(media) != 1:
        found = " and ".join(media) or "none of them"
        hint = "" if media else _meant(record, MEDIA_COLUMNS)
        raise RowError(f"{where}: exactly one of the fields image, audio, series must be given, found {found}{hint}")
    name = record.pop(media[0])
    path = media_path(where, media[0], name, base)
    language = record.pop("lang", None) or lang
    if not isinstance(language, str):
        raise RowError(f"{where}: field 'lang' must be text")
    key = record.pop("key", None)
    if key is not None and not isinstance(key, str):
        key = str(key)
    captions = take_captions(where, record, language)
    if not captions:
        raise RowError(f"{where}: field 'caption' is missing or empty ({media[0]} {name!r} needs a caption)")
    return Row(where, media[0], path, name, captions, record, key)


def media_path(where: str, medium: str, name: Any, base: Path) -> Path:
    """Returns the file a row names, relative to its list, after checking that it is there and of the right kind."""
    if not isinstance(name, str):
        raise RowError(f"{where}: field {medium!r} must be a path, it is {type(name).__name__}")
    path = base / name
    if suffix(name.lower()) not in MEDIA[medium]:
        raise RowError(f"{where}: field {medium!r}: {name!r} is not one of .{', .'.join(sorted(MEDIA[medium]))}")
    if not path.is_file():
        raise RowError(f"{where}: field {medium!r}: the file {name!r} does not exist (looked for {path})")
    return path


def _caption_language(column: str, lang: str) -> str | None:
    """Returns the language that a caption column is of: `caption`, `captions`, `caption_de`, `captions.de`; else None."""
    for prefix in ("captions", "caption"):
        if column == prefix:
            return lang
        if column.startswith((prefix + "_", prefix + ".")):
            language = column[len(prefix) + 1 :]
            return language if _LANGUAGE.fullmatch(language) else None  # `caption_source` is just a column
    return None


def take_captions(where: str, record: dict[str, Any], lang: str) -> dict[str, list[str]]:
    """Takes the caption columns out of a record and joins them to ``{language: [text, ...]}``."""
    captions: dict[str, list[str]] = {}
    for column in list(record):
        language = _caption_language(column, lang)
        if language is None:
            continue
        for one, texts in _by_language(where, column, record.pop(column), language).items():
            captions.setdefault(one, []).extend(texts)
    return captions


def _by_language(where: str, column: str, value: Any, lang: str) -> dict[str, list[str]]:
    """Reads one caption value: a text, a list of texts, a map of languages, or (in a csv) one of these as JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and column.startswith("captions"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(f"{where}: field {column!r} starts like JSON but is not ({error})") from error
    if value is None or value == "":
        return {}
    if isinstance(value, dict):
        parts = [_by_language(where, f"{column}.{one}", texts, one) for one, texts in value.items()]
        return {one: texts for part in parts for one, texts in part.items()}
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise RowError(f"{where}: field {column!r} must be a text, a list of texts or a map of languages, none of them empty")
    return {lang: [text.strip() for text in texts]}
