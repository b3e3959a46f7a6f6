"""`modalign data pack`: the users' own pairs -> shards."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import suffix
from ..decoding.table import decode_member
from ..home import local_path
from ..shards.manifest import Manifest, counted
from ..shards.writer import checked_key, sample_members, write_shards
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
) -> None:
    """Packs pairs of media and captions into shards.

    The source is a .csv, .tsv or .jsonl file with the columns ``image`` (or ``audio``, ``series``), ``caption`` or
    ``captions`` (one text, a JSON list, or a JSON map of languages), also ``caption_de`` or ``captions.de``, and optionally
    ``lang``, ``group``, ``key``; further columns are kept. Paths are relative to the file. Or it is a folder of media with
    same-named .txt (one caption per line) or .json files, or a folder of plain WebDataset tars.

    Args:
        source: What to pack.
        out: Folder to make; it must be absent or empty.
        lang: Language of captions for which none is given ("und": unknown).
        samples_per_shard: Samples in a tar.
        on_error: "raise": list what is wrong and write nothing. "skip": list it and pack the rest.
        join_captions: Join rows with the same medium to one sample with several captions (else they are an error).
        delimiter: Of a csv, if it is not a comma.

    Raises:
        DataError: Naming file, line and field of every bad row (the first 20 are shown).
    """
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error is {on_error!r}; it can be 'raise' or 'skip'")
    place = local_path(source)
    rows, problems = _collect(place, lang, delimiter, join_captions)
    if problems and (on_error == "raise" or not rows):
        raise DataError(_summary(problems, "nothing was written; correct them, or leave them out with --on_error skip"))
    media = sorted({row.medium for row in rows})
    if len(media) > 1:
        raise DataError(f"{place}: rows with {' and '.join(media)} cannot go into one folder of shards; pack them one by one")
    task = f"{media[0]}-text"
    manifest = write_shards(map(_sample, rows), out, task=task, samples_per_shard=samples_per_shard, source=place.name)
    if problems:
        print(_summary(problems, "they were left out"))
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


def _collect(place: Path, lang: str, delimiter: str, join_captions: bool) -> tuple[list[Row], list[str]]:
    """Reads and checks all rows before anything is written: media are decoded once, keys made unique or refused."""
    rows: dict[str, Row] = {}
    problems: list[str] = []
    for row in read_rows(place, lang, delimiter):
        try:
            if isinstance(row, RowError):
                raise row
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


def _join(earlier: Row, row: Row, join_captions: bool) -> None:
    if not join_captions or earlier.path is None or earlier.path != row.path:
        hint = "or join the captions of one file with --join_captions true" if earlier.path == row.path else "keys must differ"
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
    for ext, data in _members(row).items():
        try:
            decode_member(ext, data)
        except DataError as error:
            named = f" {row.name!r}" if row.path else ""
            raise RowError(f"{row.where}: field {ext if row.path is None else row.medium!r}{named}: {error}") from error
    reserved = {"image_ext", "members", "captions"} & set(row.fields)
    if reserved:
        raise RowError(f"{row.where}: a field cannot be named {sorted(reserved)[0]!r}")
    try:
        sample_members(checked_key(row.key), _sample(row), f"{row.medium}-text")
    except DataError as error:
        raise RowError(f"{row.where}: {error}") from error


def _members(row: Row) -> dict[str, bytes]:
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
