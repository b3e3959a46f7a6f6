"""``asset.json``: what a placed asset folder says about itself, and the check against it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from modalign.zoo.errors import AssetError

from .catalogue import Asset

FILE = "asset.json"
FORMAT = "modalign-asset/1"


def sha256_of(path: Path) -> str:
    """Returns the hash of a file as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write(folder: Path, asset: Asset, source: dict[str, Any]) -> None:
    """Writes the record of a finished folder, with size and hash of every file in it.

    Args:
        folder: The finished folder.
        asset: What it holds.
        source: Where it came from: kind, versions, hashes; never a path of this machine.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    files = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}
    record = {
        "format": FORMAT,
        "name": asset.name,
        "kind": asset.kind,
        "revision": asset.revision,
        "licence": asset.licence,
        "source": source,
        "files": files,
    }
    (folder / FILE).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any] | None:
    """Returns the record of a folder, or None where there is none.

    Raises:
        AssetError: If the file is there but is not a record.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AssetError(f"{path} is not readable as JSON ({error}); remove the folder and get the asset again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("files"), dict):
        raise AssetError(f"{path} is not an asset record of format {FORMAT!r}; remove the folder and get the asset again")
    return record


def verify(folder: Path, record: dict[str, Any], *, hashes: bool) -> None:
    """Compares a folder with its record.

    Args:
        folder: The asset's folder.
        record: What :func:`read` returned.
        hashes: Whether to read every file for its hash; otherwise only presence and size are compared.

    Raises:
        AssetError: At the first file that is absent or differs.
    """
    for name, expected in record["files"].items():
        path = folder / name
        remedy = f"remove the folder {folder} and run 'modalign assets get {record['name']}' again"
        if not path.is_file():
            raise AssetError(f"asset {record['name']}: the file {name} is missing; {remedy}")
        if path.stat().st_size != expected["bytes"]:
            raise AssetError(f"asset {record['name']}: {name} has {path.stat().st_size} bytes, not {expected['bytes']}; {remedy}")
        if hashes and sha256_of(path) != expected["sha256"]:
            raise AssetError(
                f"asset {record['name']}: the sha256 of {name} is not the recorded one, the file is damaged; {remedy}"
            )
