"""``modalign assets list | get | where``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from modalign.zoo.errors import AssetError

from . import places, record
from .catalogue import CATALOGUE, Asset, find
from .lookup import present


def list_assets() -> None:
    """Prints what can be had: name, kind, what it is, licence, size, and whether it is already in the cache."""
    table = Table(caption=f"cache: {places.assets_root()}", caption_justify="left")
    for column in ("name", "kind", "what", "licence", "size", "state"):
        table.add_column(column, no_wrap=column in ("name", "kind", "size", "state"))
    for asset in CATALOGUE.values():
        table.add_row(asset.name, asset.kind, asset.what, asset.licence, f"{asset.megabytes:.0f} MB", _state(asset))
    Console(markup=False).print(table)


def get(name: str) -> None:
    """Fetches an asset and converts it, or checks the hashes of the one that is there; prints its folder.

    Args:
        name: The asset's name, or ``all`` (what has no source within reach is then told and left out).
    """
    if name != "all":
        print(_get_one(find(name)))
        return
    missing = []
    for asset in CATALOGUE.values():
        try:
            print(_get_one(asset))
        except AssetError as error:
            missing.append(asset.name)
            places.CONSOLE.print(str(error), style="yellow")
    if missing:
        raise AssetError(f"not everything could be had, left out: {', '.join(missing)} (reasons above)")


def where(name: str) -> None:
    """Prints the folder of an asset that is in the cache; fetches nothing.

    Args:
        name: The asset's name.

    Raises:
        AssetError: If it is not there.
    """
    asset = find(name)
    folder = present(asset)
    if folder is None:
        raise AssetError(f"asset {name!r} is not in the cache; get it with 'modalign assets get {name}'")
    print(folder)


def _get_one(asset: Asset) -> str:
    from .fetch import fetch

    folder = present(asset)
    if folder is None:
        return str(fetch(asset))
    entry = record.read(folder)
    if entry is not None:
        record.verify(folder, entry, hashes=True)
    return str(folder)


def _state(asset: Asset) -> str:
    try:
        return "present" if present(asset) else "absent"
    except AssetError:
        return "damaged"
