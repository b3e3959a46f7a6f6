"""From a name to a folder: what ``asset:NAME`` means."""

from __future__ import annotations

from pathlib import Path

from modalign.zoo.errors import AssetError, nearest

from . import places, record
from .catalogue import Asset, find


def present(asset: Asset) -> Path | None:
    """Returns the folder of an asset that is in the cache, complete and up to date, or None where it is not.

    Raises:
        AssetError: If it is there but damaged (a file is missing or has another size).
    """
    folder = places.assets_root() / asset.name
    entry = record.read(folder)
    if entry is None or entry.get("revision") != asset.revision:
        return None
    record.verify(folder, entry, hashes=False)
    return folder


def folder_of(name: str) -> Path:
    """Returns the folder of an asset or of a part of one, fetching the asset if it is not there yet.

    Args:
        name: ``multilingual-e5-small`` or, with a sub-folder, ``openmoji/train``.

    Raises:
        AssetError: If the name is unknown, the asset cannot be had, or it has no such sub-folder.
    """
    head, _, rest = name.strip("/").partition("/")
    asset = find(head)
    folder = present(asset)
    if folder is None:
        from .fetch import fetch

        folder = fetch(asset)
    if not rest:
        return folder
    inner = (folder / rest).resolve()
    if not inner.is_dir() or not inner.is_relative_to(folder.resolve()):
        parts = [path.name for path in folder.iterdir() if path.is_dir()]
        raise AssetError(f"asset {head!r} has no folder {rest!r}{nearest(rest, parts)}")
    return inner
