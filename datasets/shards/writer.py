"""Writes samples as WebDataset shards with index and manifest: the same samples give the same bytes, always."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import MEDIA, REQUIRED, missing
from ..home import local_path
from .foreign import UNFINISHED
from .index import build_index, write_index
from .manifest import FILE_NAME, Manifest, ShardInfo, sync_folder, write_manifest
from .tarwalk import MAX_MEMBER_BYTES
from .verify import remember, sha256_of

MAX_NAME_BYTES = 100
_KEY = re.compile(r"(?:[^\x00-\x1f\x7f./][^\x00-\x1f\x7f/]*/)*[^\x00-\x1f\x7f./]+")
_EXT = re.compile(r"[a-z0-9_\-]+(\.[a-z0-9_\-]+)*")
_OWN_FIELDS = {"key", "image", "image_ext", "members", "captions"}


def write_shards(
    samples: Iterable[Mapping[str, Any]],
    out: str | Path,
    *,
    task: str = "image-text",
    samples_per_shard: int = 1000,
    source: str = "",
) -> Manifest:
    """Writes samples to ``out``: `000000.tar` ..., an index per shard, and `shards.json` last.

    Args:
        samples: Mappings with ``key``; ``image`` (bytes) and ``image_ext`` ("png"); ``captions`` ({language: [text, ...]}, the
            first text of the first language is the primary one); optionally ``members`` ({extension: bytes}, for any other
            medium, also several: "0.jpg", "1.jpg"); any further JSON-able fields ("group", ...).
        out: Folder to make; must be absent or empty.
        task: "image-text", "audio-text", "series-text" or a name of your own; decides which fields are required.
        samples_per_shard: At most so many samples in a tar.
        source: Where the samples came from, kept in the manifest.

    Returns:
        The manifest, as written.

    Raises:
        DataError: For a sample that cannot be stored as given (key, field and reason are named), or if ``out`` is not empty.
    """
    if samples_per_shard < 1:
        raise DataError(f"samples_per_shard is {samples_per_shard}; it must be at least 1")
    out = _fresh_folder(out)
    fields: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    shards: list[ShardInfo] = []
    prepared = _prepared(samples, task, fields, languages)
    while batch := list(islice(prepared, 1)):
        path = out / f"{len(shards):06d}.tar"
        _write_tar(path, chain(batch, islice(prepared, samples_per_shard - 1)))
        index = build_index(path, task)
        info = ShardInfo(path.name, len(index.keys), path.stat().st_size, sha256_of(path))
        write_index(path, index, info)
        remember(path, info.sha256)
        shards.append(info)
    if not shards:
        raise DataError(f"{out}: there is no sample to write")
    schema = {"fields": dict(sorted(fields.items())), "languages": dict(sorted(languages.items()))}
    manifest = Manifest(task, schema, source, shards)
    write_manifest(out, manifest)
    (out / UNFINISHED).unlink()
    return manifest


def _fresh_folder(out: str | Path) -> Path:
    out = local_path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        half = out.is_dir() and any(out.glob("*.tar")) and not (out / FILE_NAME).exists()
        hint = "it holds an unfinished pack (no shards.json): delete it" if half else "give a new or an empty folder"
        raise DataError(f"{out}: not empty, and nothing is overwritten; {hint}")
    out.mkdir(parents=True, exist_ok=True)
    (out / UNFINISHED).touch()  # so that nobody takes a half of it for a folder of plain tars
    return out


def _prepared(
    samples: Iterable[Mapping[str, Any]], task: str, fields: Counter[str], languages: Counter[str]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields (key, members) of checked samples and counts what they have."""
    seen: set[str] = set()
    for number, sample in enumerate(samples):
        try:
            key = checked_key(sample.get("key"))
        except DataError as error:
            raise DataError(f"sample number {number}: {error}") from error
        if key in seen:
            raise DataError(f"sample {key!r}: the key appears twice; every sample needs its own")
        seen.add(key)
        members = sample_members(key, sample, task)
        fields.update(list(members))
        languages.update({lang: len(texts) for lang, texts in sample.get("captions", {}).items()})
        yield key, members


def checked_key(key: Any) -> str:
    """Returns a key if it can be one.

    Raises:
        DataError: Saying what a key must be.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise DataError(
            f"field 'key' is {key!r}; it must be text without dots (a key ends at the first dot), control characters, "
            "leading or trailing slashes"
        )
    return key


def sample_members(key: str, sample: Mapping[str, Any], task: str) -> dict[str, bytes]:
    """Turns a sample (see `write_shards`) into its members ``{extension: bytes}``.

    Raises:
        DataError: Naming key and field.
    """
    members = _media(key, sample)
    captions = checked_captions(key, sample.get("captions", {}))
    fields = {name: value for name, value in sample.items() if name not in _OWN_FIELDS}
    try:
        text = json.dumps({"captions": captions, **fields}, ensure_ascii=False, allow_nan=False)
        members["json"] = text.encode("utf-8")
        if captions:
            members["txt"] = next(iter(captions.values()))[0].encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"sample {key!r}: its fields cannot be written as JSON ({error})") from error
    for field in missing(list(members), REQUIRED.get(task, ())):
        name = "captions" if field == "txt" else field
        raise DataError(f"sample {key!r}: field {name!r} is missing or empty; {task} needs it")
    for ext, data in members.items():
        if len(f"{key}.{ext}".encode()) > MAX_NAME_BYTES:
            raise DataError(f"sample {key!r}: '{key}.{ext}' is longer than the {MAX_NAME_BYTES} bytes a tar name may have")
        if len(data) > MAX_MEMBER_BYTES:
            raise DataError(f"sample {key!r}: field {ext!r} has {len(data)} bytes, more than the limit of {MAX_MEMBER_BYTES}")
    return members


def _media(key: str, sample: Mapping[str, Any]) -> dict[str, bytes]:
    members = dict(sample.get("members", {}))
    if "image" in sample:
        ext = sample.get("image_ext", "png")
        if ext not in MEDIA["image"]:
            raise DataError(f"sample {key!r}: field 'image_ext' is {ext!r}; it can be {', '.join(sorted(MEDIA['image']))}")
        members[ext] = sample["image"]
    for ext, data in members.items():
        if not _EXT.fullmatch(ext) or ext in ("txt", "json"):
            raise DataError(f"sample {key!r}: {ext!r} cannot be the extension of a medium (lower case, not txt or json)")
        if not isinstance(data, bytes) or not data:
            raise DataError(f"sample {key!r}: field {ext!r} must be non-empty bytes")
    return members


def checked_captions(key: str, captions: Any) -> dict[str, list[str]]:
    """Checks that captions are ``{language: [text, ...]}`` with no empty list and no empty text, and returns them.

    Raises:
        DataError: Naming key and language.
    """
    if not isinstance(captions, Mapping):
        raise DataError(f"sample {key!r}: field 'captions' must be a map of languages to lists of texts")
    for language, texts in captions.items():
        where = f"sample {key!r}: field 'captions.{language}'"
        if not isinstance(language, str) or not language:
            raise DataError(f"{where}: the language must be a non-empty text")
        if isinstance(texts, str) or not isinstance(texts, list | tuple) or not texts:
            raise DataError(f"{where} must be a non-empty list of texts")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{where} has an empty caption or one that is not text")
    return {language: list(texts) for language, texts in captions.items()}


def _write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """Writes one tar with fixed owner, mode and time, in the plainest tar format (the same with every webdataset version)."""
    import os
    import tarfile

    from webdataset import TarWriter

    with open(path, "wb") as stream:
        writer = TarWriter(stream, user="modalign", group="modalign", mode=0o444, encoder=False, mtime=0)
        writer.tarstream.format = tarfile.USTAR_FORMAT
        for key, members in samples:
            writer.write({"__key__": key, **members})
        writer.close()
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(path.parent)
