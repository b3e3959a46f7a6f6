"""What converters of a local folder share: ``annotations.jsonl`` beside ``images/``, one line per picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modalign.zoo.errors import AssetError, DataError

DEV_SHARE = 10  # one training picture in ten
PARTS = ("train", "dev", "test")
Row = Mapping[str, Any]
SampleOf = Callable[[Row, bytes], dict[str, Any] | None]


def write_parts(folder: Path, out: Path, needed: Sequence[str], sample_of: SampleOf, source: str) -> None:
    """Writes the parts train/, dev/ and test/ of an annotated folder, every sample checked against docs/conversations.md.

    Args:
        folder: The raw folder.
        out: The folder to fill.
        needed: Fields that every line must have, beside ``image`` and ``split``.
        sample_of: Makes the sample (without key and picture) of a line and its picture's bytes, or None to leave it out.
        source: Where the samples came from, kept in the manifest.

    Raises:
        AssetError: Naming line and picture of what is missing or wrong.
    """
    from ...shards.writer import write_shards

    file = folder / "annotations.jsonl"
    rows = list(_rows(file, ("image", "split", *needed)))
    for part in PARTS:
        chosen = [(where, row) for where, row in rows if part_of(row["image"], row["split"]) == part]
        write_shards(_samples(folder, chosen, sample_of), out / part, task="grounding", source=source)


def part_of(image: str, split: str) -> str:
    """Returns the part a picture belongs to: as published, but every tenth training picture by hash is ``dev``.

    Args:
        image: Its file name.
        split: ``train`` or ``test``.
    """
    if split == "test":
        return "test"
    # a hash of its own: the published split may be one of the bare name, which would leave this part empty
    digest = int(hashlib.md5(f"dev {image}".encode(), usedforsecurity=False).hexdigest(), 16)
    return "dev" if digest % DEV_SHARE == 0 else "train"


def _rows(file: Path, needed: Sequence[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AssetError(f"{where}: not JSON ({error})") from error
        absent = [name for name in needed if not isinstance(row, dict) or name not in row]
        if absent:
            raise AssetError(f"{where}: no {' and no '.join(absent)}")
        if row["split"] not in ("train", "test"):
            raise AssetError(f"{where}: split is {row['split']!r}, expected 'train' or 'test'")
        yield where, row


def _samples(folder: Path, rows: Sequence[tuple[str, Row]], sample_of: SampleOf) -> Iterator[dict[str, Any]]:
    for where, row in rows:
        name = row["image"]
        path = folder / "images" / str(name)
        if not isinstance(name, str) or Path(name).name != name or not path.is_file():
            raise AssetError(f"{where}: the picture {name!r} is not in {folder / 'images'}")
        stem, _, extension = name.rpartition(".")
        image = path.read_bytes()
        try:
            made = sample_of(row, image)
            if made is not None:
                sample = {"key": stem, "image": image, "image_ext": extension.lower(), "group": stem, **made}
                _check(sample)
                yield sample
        except DataError as error:
            raise AssetError(f"{where}: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise AssetError(f"{where}: not as expected ({type(error).__name__}: {error})") from error


def _check(sample: Mapping[str, Any]) -> None:
    """Checks a sample as it will be read."""
    from ...decoding.sample import decode_sample
    from ...dialogue import check_annotations
    from ...shards.shard_set import RawSample
    from ...shards.writer import sample_members

    check_annotations(decode_sample(RawSample(sample["key"], "", 0, sample_members(sample["key"], sample, "grounding"))))
