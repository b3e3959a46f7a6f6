"""`modalign data pack`: the users' own pairs -> shards."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import suffix
from ..decoding.sample import decode_sample
from ..decoding.table import decode_member
from ..dialogue import check_annotations
from ..home import local_path
from ..sample_error import SampleError
from ..shards.manifest import Manifest, counted
from ..shards.shard_set import RawSample
from ..shards.writer import checked_key, sample_members, write_shards
from .annotated import AnnotatedRow
from .formats import annotated_rows
from .rows import Row, RowError, read_rows

_SHOWN = 20
_MAX_STEM = 70


def pack(
    source: str,
    out: str,
    *,
    lang: str = "und",
    samples_per_shard: int = 1000,
    on_error: str = "raise",
    join_captions: bool = False,
    delimiter: str = "",
    format: str = "",
    images: str = "",
) -> None:
    """Packs pairs of media and captions, conversations or pictures with boxes into shards.

    The source is a .csv, .tsv or .jsonl file with the columns ``image`` (or ``audio``, ``series``), ``caption`` or
    ``captions`` (one text, a JSON list, or a JSON map of languages), also ``caption_de`` or ``captions.de``, and optionally
    ``lang``, ``group``, ``key``; further columns are kept. Paths are relative to the file. Or it is a folder of media with
    same-named .txt (one caption per line) or .json files, or a folder of plain WebDataset tars.

    Conversations and boxes (docs/conversations.md) are read from LLaVA's JSON, from COCO's instances or captions, from referring
    expressions like RefCOCO's, and from a .jsonl of our own with ``conversations``, ``regions`` or ``fields``.

    Args:
        source: What to pack.
        out: Folder to make; it must be absent or empty.
        lang: Language of captions for which none is given ("und": unknown).
        samples_per_shard: Samples in a tar.
        on_error: "raise": list what is wrong and write nothing. "skip": list it and pack the rest.
        join_captions: Join rows with the same medium to one sample with several captions (else they are an error).
        delimiter: Of a csv, if it is not a comma.
        format: llava, coco or refcoco, where it should not be found out from the content.
        images: Folder of the pictures that conversations or boxes name; default the folder of the file.

    Raises:
        DataError: Naming file, line and field of every bad row (the first 20 are shown).
    """
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error is {on_error!r}; it can be 'raise' or 'skip'")
    place = local_path(source)
    found = annotated_rows(place, format, lang, images) or read_rows(place, lang, delimiter)
    rows, problems = _collect(place, found, join_captions)
    if problems and (on_error == "raise" or not rows):
        raise DataError(_summary(problems, "nothing was written; correct them, or leave them out with --on_error skip"))
    tasks = sorted({_task(row) for row in rows})
    if len(tasks) > 1:
        kinds = " and ".join(task.removesuffix("-text") for task in tasks)
        raise DataError(f"{place}: rows with {kinds} cannot go into one folder of shards; pack them one by one")
    manifest = write_shards(map(_sample, rows), out, task=tasks[0], samples_per_shard=samples_per_shard, source=place.name)
    if problems:
        print(_summary(problems, "they were left out"))
    if cut := sum(row.cut for row in rows if isinstance(row, AnnotatedRow)):
        print(f"{cut} box(es) stuck out of their picture by less than a pixel and were cut at its edge")
    print(describe(manifest, out))


def describe(manifest: Manifest, out: str | Path) -> str:
    """Returns a sentence or two on what a folder of shards holds."""
    languages = ", ".join(f"{name} {count}" for name, count in manifest.schema.get("languages", {}).items())
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    unnamed = "und" in manifest.schema.get("languages", {})
    hint = "\nund = language not stated: recipes that ask for a language do not find these; pack with --lang en to name it"
    samples, shards = counted(manifest.samples, "sample"), counted(len(manifest.shards), "shard")
    captions = f"; captions: {languages}{hint if unnamed else ''}" if languages else ""
    return f"{out}: {samples} ({manifest.task}) in {shards}, {size:.1f} MB{captions}"


def _collect(place: Path, found: Iterable[Row | RowError], join_captions: bool) -> tuple[list[Row], list[str]]:
    """Reads and checks all rows before anything is written: media are decoded once, keys made unique or refused."""
    rows: dict[str, Row] = {}
    problems: list[str] = []
    for row in found:
        try:
            if isinstance(row, RowError):
                raise row
            if isinstance(row, AnnotatedRow):
                row.fields.setdefault("group", key_of(row.origin))
                row.key = row.key or _free(key_of(row.name), rows)
            row.key = row.key or key_of(row.name)
            earlier = rows.get(row.key)
            if earlier is None:
                _check(row)
                rows[row.key] = row
            else:
                _join(earlier, row, join_captions)
        except RowError as error:
            problems.append(str(error))
    if not rows and not problems:
        raise DataError(f"{place}: there is no row in it")
    return list(rows.values()), problems


def key_of(name: str) -> str:
    """Derives a key from a relative path: `a/b.c.jpg` -> `a_b_c`; of an absolute path only the file's name; a long one gets a hash."""
    parts = [part for part in Path(name).parts if part not in (".", "..")]
    name = Path(name).name if Path(name).is_absolute() else "/".join(parts)  # where the files lie is nobody's business
    stem = name[: -len(suffix(name)) - 1] if "." in Path(name).name else name
    key = re.sub(r"[^\w\-]+", "_", stem).strip("_") or "sample"
    if len(key.encode()) > _MAX_STEM or key != re.sub(r"[/\\.]", "_", stem):
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
        key = key.encode()[: _MAX_STEM - 11].decode("utf-8", "ignore") + "-" + digest
    return key


def _free(key: str, taken: Mapping[str, Row]) -> str:
    """A key, with a number where it is taken: annotations of one picture may be several samples, and ids of LLaVA's lists repeat."""
    if key not in taken:
        return key
    return next(numbered for number in itertools.count(2) if (numbered := f"{key}-{number}") not in taken)


def _join(earlier: Row, row: Row, join_captions: bool) -> None:
    if not join_captions or earlier.path is None or earlier.path != row.path:
        same = earlier.path == row.path and not isinstance(row, AnnotatedRow)
        hint = "or join the captions of one file with --join_captions true" if same else "keys must differ"
        raise RowError(
            f"{row.where}: field 'key': {row.key!r} was already used in {earlier.where}; give the row its own key, {hint}"
        )
    for name, value in row.fields.items():
        if earlier.fields.get(name, value) != value:
            raise RowError(f"{row.where}: field {name!r} is {value!r}, but {earlier.where} says {earlier.fields[name]!r}")
        earlier.fields[name] = value
    for language, texts in row.captions.items():
        earlier.captions.setdefault(language, []).extend(texts)


def _check(row: Row) -> None:
    """Finds whatever would stop the writer, so that nothing is written if there is anything."""
    if not isinstance(row, AnnotatedRow):
        _check_media(row)
    reserved = {"image_ext", "members", "captions"} & set(row.fields)
    if reserved:
        raise RowError(f"{row.where}: a field cannot be named {sorted(reserved)[0]!r}")
    try:
        key = checked_key(row.key)
        members = sample_members(key, _sample(row), _task(row))
        if isinstance(row, AnnotatedRow):  # as it will be read
            check_annotations(decode_sample(RawSample(key, row.where, 0, members)))
    except SampleError as error:
        raise RowError(str(error)) from error  # the row's place stands for the shard
    except DataError as error:
        raise RowError(f"{row.where}: {error}") from error


def _check_media(row: Row) -> None:
    for ext, data in _members(row).items():
        try:
            decode_member(ext, data)
        except DataError as error:
            named = f" {row.name!r}" if row.path else ""
            raise RowError(f"{row.where}: field {ext if row.path is None else row.medium!r}{named}: {error}") from error


def _task(row: Row) -> str:
    return row.task if isinstance(row, AnnotatedRow) else f"{row.medium}-text"


def _members(row: Row) -> dict[str, bytes]:
    if isinstance(row, AnnotatedRow):
        return row.contents()
    if row.path is None:
        return row.members
    return {suffix(row.path.name.lower()): row.path.read_bytes()}


def _sample(row: Row) -> dict[str, Any]:
    return {"key": row.key, "members": _members(row), "captions": row.captions, **row.fields}


def _summary(problems: list[str], end: str) -> str:
    lines = [f"{len(problems)} bad row(s); {end}:", *problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more")
    return "\n  ".join(lines)
