"""flickr8k_multilingual: a local folder (``captions.jsonl`` and ``images/``) as shards train/, dev/, test/.

The published validation photographs are the test set; dev is a fixed slice of the training ones, chosen by the hash of the name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modalign.zoo.errors import AssetError

DEV_SHARE = 10  # one training photograph in ten
PARTS = ("train", "dev", "test")


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes the three parts.

    Args:
        sources: The raw folder under ``"local"``.
        out: The folder to fill.

    Raises:
        AssetError: If a row or a photograph is missing or wrong; the message names it.
    """
    from ...shards.writer import write_shards

    folder = sources["local"]
    rows = list(_rows(folder / "captions.jsonl"))
    for part in PARTS:
        samples = (_sample(folder, row) for row in rows if part_of(row["image"], row["split"]) == part)
        write_shards(samples, out / part, task="image-text", source="flickr8k_multilingual (research use only)")


def part_of(image: str, split: str) -> str:
    """Returns the part a photograph belongs to.

    Args:
        image: Its file name.
        split: ``train`` or ``val``, as published.
    """
    if split == "val":
        return "test"
    digest = int(hashlib.md5(image.encode(), usedforsecurity=False).hexdigest(), 16)
    return "dev" if digest % DEV_SHARE == 0 else "train"


def captions_of(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the captions by language: five in English; a translation first, then independent ones, where there are any.

    Args:
        row: One line of ``captions.jsonl``.
    """
    captions = {"en": list(row["captions_en"])}
    translation = row.get("multi30k_translation") or {}
    for language in ("de", "fr", "cs"):
        found = [translation.get(language, ""), *row.get(f"multi30k_captions_{language}", [])]
        captions[language] = found
    stripped = {language: [text.strip() for text in texts if text.strip()] for language, texts in captions.items()}
    return {language: list(dict.fromkeys(texts)) for language, texts in stripped.items() if texts}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AssetError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise AssetError(f"{path}, line {number}: not a JSON object")
        absent = [name for name in ("image", "split", "captions_en") if not row.get(name)]
        if absent:
            raise AssetError(f"{path}, line {number}: no {' and no '.join(absent)}")
        if row["split"] not in ("train", "val"):
            raise AssetError(f"{path}, line {number}: split is {row['split']!r}, expected 'train' or 'val'")
        yield row


def _sample(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    name = str(row["image"])
    path = folder / "images" / name
    if Path(name).name != name or not path.is_file():
        raise AssetError(f"{folder / 'captions.jsonl'}: the photograph {name!r} is not in {folder / 'images'}")
    stem, _, extension = name.rpartition(".")
    image = path.read_bytes()
    return {"key": stem, "image": image, "image_ext": extension.lower(), "captions": captions_of(row), "group": stem}
