"""The user's own folder: ``MODALIGN_DATA/NAME``, ready made, raw, or with the downloaded packages in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from modalign.zoo.errors import AssetError

from .. import places, record
from ..catalogue import Asset
from . import SourceUnavailable


def ready_folder(asset: Asset) -> Path | None:
    """Returns ``MODALIGN_DATA/NAME`` if it holds the asset in its final form, else None."""
    root = places.data_root()
    if root is None:
        return None
    folder = root / asset.name
    return folder if all((folder / name).is_file() for name in asset.files) else None


def raw_folder(asset: Asset) -> Path:
    """Returns ``MODALIGN_DATA/NAME``, or the data set's folder there, if it holds the raw source that the converter reads.

    Raises:
        SourceUnavailable: If it does not, with the reason.
    """
    root = places.data_root()
    if root is None:
        raise SourceUnavailable("MODALIGN_DATA is not set")
    folder = root / asset.name
    if not folder.is_dir() and asset.folder:
        folder = root / asset.folder
    if not folder.is_dir():
        raise SourceUnavailable(f"there is no {folder}")
    if not asset.raw:
        raise SourceUnavailable(f"{folder} is not a ready folder")
    absent = [name for name in asset.raw if not (folder / name).exists()]
    if absent:
        raise SourceUnavailable(f"{folder} has no {', '.join(absent)}")
    return folder


def copy_ready(asset: Asset, ready: Path, out: Path) -> None:
    """Copies a ready folder; where it carries a record (it was another machine's cache), every hash is checked.

    Raises:
        AssetError: If a file is not what the folder's own record says.
    """
    shutil.copytree(ready, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "*.whl", "*.deb", "*.tgz"))
    entry = record.read(out)
    if entry is None:
        return
    if entry.get("name") != asset.name:
        raise AssetError(f"{ready} says it is the asset {entry.get('name')!r}, not {asset.name!r}; move it to the right name")
    try:
        record.verify(out, entry, hashes=True)
    except AssetError as error:
        raise AssetError(f"the local folder {ready} is damaged: {error}") from error


def file_at_hand(asset: Asset, pattern: str) -> Path | None:
    """Returns a package file of that name lying in ``MODALIGN_DATA/NAME`` or ``MODALIGN_DATA``, or None.

    Args:
        asset: The asset.
        pattern: Shell pattern of the file's name.
    """
    root = places.data_root()
    if root is None:
        return None
    for folder in (root / asset.name, root):
        for path in sorted(folder.glob(pattern)):
            return path
    return None
