"""`modalign data index`: makes shards that another tool wrote readable, without touching them."""

from __future__ import annotations

from modalign.zoo.errors import DataError

from ..remote.access import Remote, remote_of
from ..remote.cache import ShardCache
from ..remote.store import remote_folder
from ..shards.captions import UNKNOWN_LANGUAGE
from ..shards.foreign import UNFINISHED, Indexing, index_folder, index_tars, indexed_folder
from ..shards.locations import Location, parse_location
from ..shards.manifest import FILE_NAME, read_manifest


def index(shards: str, *, lang: str = UNKNOWN_LANGUAGE, on_error: str = "raise", allow_remote: list[str] | None = None) -> None:
    """Indexes plain WebDataset tars (img2dataset and others): walks and hashes each once, writes `shards.json` and member indexes.

    They go beside the tars; into the cache if that folder cannot be written, the tars are named one by one, or are remote. Training does
    it by itself the first time; do it again after tars were added or changed. Captions: `captions` of KEY.json, else KEY.txt, else
    `caption` of KEY.json.

    Args:
        shards: A folder of tars, tars such as `x/{00000..00012}.tar`, or addresses of tars.
        lang: Language of captions for which none is given ("und": unknown).
        on_error: "raise", or "skip" to leave damaged tars out, listing them.
        allow_remote: Schemes or origins that may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.

    Raises:
        DataError: For a damaged tar (shard, offset and reason are named), or a folder that has its own manifest.
    """
    location = parse_location(shards)
    if location.urls:
        _index_remote(location, remote_of(allow_remote), lang, on_error)
    elif location.tars:
        index_tars(location.tars, indexed_folder(location.tars), lang, on_error)
    elif location.folder is not None:
        folder = location.folder
        if (folder / UNFINISHED).exists():
            raise DataError(f"{folder}: packing this folder was interrupted; pack it again")
        if (folder / FILE_NAME).is_file() and read_manifest(folder).layout == "modalign":
            raise DataError(
                f"{folder}: these shards have the {FILE_NAME} they were written with; `modalign data check` verifies them"
            )
        index_folder(folder, lang, on_error)


def _index_remote(location: Location, remote: Remote, lang: str, on_error: str) -> None:
    """Streams each tar once through the cache."""
    single = location.urls[0].rstrip("/")
    urls = (
        remote.glob(single)
        if len(location.urls) == 1 and not single.endswith(".tar")
        else [remote.check(url) for url in location.urls]
    )
    if not urls:
        raise DataError(f"{location.text}: there is no .tar")
    into = remote_folder(single if urls != list(location.urls) else location.text)
    into.mkdir(parents=True, exist_ok=True)
    pass_, cache = Indexing(into, lang), ShardCache(remote)
    for url in urls:
        try:
            with cache.received(url) as (path, keep):
                try:
                    info = pass_.add(path, url.rpartition("/")[2])
                except DataError as error:
                    raise DataError(str(error).replace(str(path), url)) from error
                keep(info)
        except DataError as error:
            if on_error != "skip":
                raise
            print(f"left out: {error}")
    pass_.finish(f"{location.text} (indexed)")
