"""`modalign data index`: shards that another tool wrote (img2dataset, plain webdataset) become ours to read, and are not touched.

One pass walks every tar strictly, hashes it, and writes the member indexes and `shards.json` beside the tars; into the cache if that folder
cannot be written or the tars were named one by one. What img2dataset (`00000_stats.json`) and webdataset's users (`sizes.json`) note beside
their shards is compared with what is found: it is all there is to tell that a shard of others is complete.

Keys that repeat between shards (some tools count anew in each) are told apart as SHARD/KEY, for all samples of the set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.media import REQUIRED, medium_of, missing
from ..decoding.table import decode_json, decode_text
from ..home import cache_home
from ..locks import locked
from .captions import UNKNOWN_LANGUAGE, UnusableText, captions_and_meta
from .index import ShardIndex, build_index, write_index
from .manifest import FILE_NAME, Manifest, ShardInfo, counted, write_manifest
from .verify import remember, sha256_of

UNFINISHED = ".unfinished"  # `write_shards` leaves it until the folder is complete


def manifest_folder(folder: Path) -> Path:
    """Returns where the manifest of a folder of tars is: beside them, or in the cache, or nowhere yet (then beside)."""
    kept = indexed_folder([folder])
    return kept if not (folder / FILE_NAME).is_file() and (kept / FILE_NAME).is_file() else folder


def indexed_folder(places: Sequence[Path | str]) -> Path:
    """Returns where the cache keeps manifest and indexes of tars whose own folder is not used for it."""
    text = "\0".join(os.path.abspath(place) for place in places)
    return cache_home() / "indexed" / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def index_at_first_use(folder: Path) -> None:
    """Indexes a folder of tars that has no manifest, saying so; leaves alone what is none, or one that is not finished."""
    if (manifest_folder(folder) / FILE_NAME).is_file() or (folder / UNFINISHED).exists():
        return
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        return
    with _alone(indexed_folder([folder])):
        if not (manifest_folder(folder) / FILE_NAME).is_file():
            print(
                f"{folder}: {counted(len(tars), 'tar')} without {FILE_NAME}; indexing them once (modalign data index)", flush=True
            )
            index_folder(folder)


def index_folder(folder: Path, language: str = UNKNOWN_LANGUAGE, on_error: str = "raise") -> Manifest:
    """Indexes all tars of a folder; see `index_tars`."""
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise DataError(f"{folder}: there is no .tar in this folder")
    beside = os.access(folder, os.W_OK)
    return index_tars(tars, folder if beside else indexed_folder([folder]), language, on_error)


def index_tars(tars: Sequence[Path], into: Path, language: str = UNKNOWN_LANGUAGE, on_error: str = "raise") -> Manifest:
    """Walks tars and writes their indexes and manifest.

    Args:
        tars: The tars, in order.
        into: Folder to write to.
        language: Language of captions for which none is given.
        on_error: "raise", or "skip" to leave a damaged tar out, saying so.

    Raises:
        DataError: Naming shard, offset and reason, for damage or a count that is not the one noted beside the tars.
    """
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error is {on_error!r}; it can be 'raise' or 'skip'")
    into.mkdir(parents=True, exist_ok=True)
    pass_ = Indexing(into, language)
    for tar, name in zip(tars, unique_names(tars), strict=True):
        try:
            pass_.add(tar, name)
        except DataError as error:
            if on_error == "raise":
                raise
            print(f"left out: {error}")
    return pass_.finish(f"{tars[0].parent.name} (indexed)")


def unique_names(tars: Sequence[Path]) -> list[str]:
    """Returns the tars' file names, with their position in front where two are the same."""
    names = [tar.name for tar in tars]
    return names if len(set(names)) == len(names) else [f"{position:06d}-{name}" for position, name in enumerate(names)]


class Indexing:
    """One pass over foreign tars: give it each tar, then finish.

    Args:
        into: Folder for indexes and manifest.
        language: Language of captions for which none is given.
    """

    def __init__(self, into: Path, language: str = UNKNOWN_LANGUAGE) -> None:
        self.into, self.language = into, language
        self._shards: list[ShardInfo] = []
        self._fields, self._languages = Counter[str](), Counter[str]()
        self._complete = Counter[str]()  # samples that have all a task needs
        self._silent, self._repeats = 0, False
        self._keys: set[int] = set()

    def add(self, tar: Path, name: str) -> ShardInfo:
        """Indexes one tar.

        Args:
            tar: The file.
            name: Its name in the manifest.
        """
        index = build_index(tar)
        _compare_counts(tar, len(index.keys))
        info = ShardInfo(name, len(index.keys), tar.stat().st_size, sha256_of(tar))
        captions = _captions(tar, index, self.language)
        write_index(self.into / name, index, info)
        remember(tar, info.sha256)
        self._shards.append(info)
        self._silent += captions.pop("", 0)
        self._languages.update(captions)
        self._fields.update({ext: int((index.offsets[:, column] >= 0).sum()) for column, ext in enumerate(index.exts)})
        for row in range(len(index.keys)):
            self._complete.update(_tasks(list(index.members(row))))
        hashes = {hash(key) for key in index.keys}
        self._repeats |= not self._keys.isdisjoint(hashes)  # equal hashes of other keys: qualified without need, no harm
        self._keys |= hashes
        return info

    def finish(self, source: str) -> Manifest:
        """Writes the manifest, says what was found, and returns it."""
        if not self._shards:
            raise DataError(f"{self.into}: no shard could be indexed")
        samples = sum(shard.samples for shard in self._shards)
        task = next((task for task, count in self._complete.items() if count == samples), "webdataset")
        schema = {"fields": dict(sorted(self._fields.items())), "languages": dict(sorted(self._languages.items()))}
        manifest = Manifest(task, schema, source, self._shards, "webdataset", self.language, self._repeats)
        write_manifest(self.into, manifest)
        fields = ", ".join(f"{ext} {count}" for ext, count in schema["fields"].items())
        captions = ", ".join(f"{lang} {count}" for lang, count in schema["languages"].items()) or "none"
        far = source.removesuffix(" (indexed)") if "://" in source else ""
        print(
            f"{far or self.into}: {counted(samples, 'sample')} in {counted(len(self._shards), 'shard')}; {fields}; captions: {captions}"
            + (f"; train on {far}" if far else "")
        )
        if self._silent:
            print(
                f"{self._silent} samples have no caption, or none that can be used: an error when drawn, unless data.on_error is skip"
            )
        if self._repeats:
            print("keys repeat between shards, so they are read as SHARD/KEY")
        return manifest


def _tasks(exts: Sequence[str]) -> Iterable[str]:
    return [task for task, needed in REQUIRED.items() if not missing(exts, needed)]


def _captions(tar: Path, index: ShardIndex, language: str) -> dict[str, int]:
    """Counts captions by language; "" counts samples that have none to use, although they have a medium."""
    found = Counter[str]()
    with open(tar, "rb") as stream:
        for row, key in enumerate(index.keys):
            places = index.members(row)
            values: dict[str, Any] = {"txt": None, "json": None}
            for ext, decode in (("txt", decode_text), ("json", decode_json)):
                if ext in places:
                    try:
                        values[ext] = decode(os.pread(stream.fileno(), places[ext][1], places[ext][0]))
                    except DataError as error:
                        raise DataError(f"{tar}: offset {places[ext][0]}: sample {key!r}, field {ext!r}: {error}") from error
            try:
                captions, _ = captions_and_meta(values["json"], values["txt"], language)
            except UnusableText:  # one sample's fault, not the shard's: said when it is drawn, where it can be skipped
                captions = {}
            except DataError as error:
                raise DataError(f"{tar}: sample {key!r}, field 'json': {error}") from error
            found.update({lang: len(texts) for lang, texts in captions.items()})
            found[""] += not captions and any(medium_of(ext) for ext in places)
    return dict(found)


def _compare_counts(tar: Path, samples: int) -> None:
    """Compares with the counts that img2dataset and webdataset's users keep beside a shard."""
    for path, name in ((tar.with_name(f"{tar.stem}_stats.json"), "successes"), (tar.with_name("sizes.json"), tar.name)):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # a note of others: if it cannot be read, there is nothing to compare with
        count = content.get(name) if isinstance(content, Mapping) else None
        if type(count) is int and count != samples:
            raise DataError(
                f"{tar}: the shard has {samples} samples, but {path.name} says {count}; it is not complete "
                f"(if you know better, delete {path.name})"
            )


def unknown_tars(folder: Path, manifest: Manifest) -> list[str]:
    """Returns the names of tars in a folder that its manifest does not list."""
    return sorted({path.name for path in folder.glob("*.tar")} - {shard.name for shard in manifest.shards})


def _alone(place: Path) -> Any:
    """Holds a lock while indexing, so that the other processes of a run wait for one; without a cache they all do it."""
    from contextlib import nullcontext

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return locked(place.with_suffix(".lock")) if os.access(place.parent, os.W_OK) else nullcontext()
    except OSError:
        return nullcontext()
