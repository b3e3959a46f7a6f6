"""What a user may write for a set of shards: a folder, a list of tars, or an address, and nothing that runs or expands by itself.

| written | meaning |
|---|---|
| `shards/`, `asset:NAME` | a folder |
| `shards/00003.tar` | one tar |
| `shards/{00000..00012}.tar`, `{train,more}/0.tar` | tars, written as webdataset users do |
| `https://host/shards` | a folder elsewhere, if `allow_remote` allows it (`remote.py`) |
| `https://host/{00000..00012}.tar` | tars elsewhere, likewise |

Environment variables and `~` are never expanded, and nothing is ever opened through a shell.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalign.zoo.errors import DataError

from ..home import local_path

MAX_EXPANSION = 100_000
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.\-]*:")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")


@dataclass(frozen=True)
class Location:
    """Where shards are: one of a folder, tars in an order, or addresses.

    Attributes:
        text: As the user wrote it.
        folder: A local folder.
        tars: Local tars.
        urls: One address of a folder, or several of tars, not checked yet.
    """

    text: str
    folder: Path | None = None
    tars: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()


def parse_location(spec: str | Path | Sequence[str | Path]) -> Location:
    """Reads what a user wrote for a set of shards; nothing is opened.

    Raises:
        DataError: If it is empty, mixes local and remote, has braces that cannot be expanded, or a scheme without address.
    """
    if not isinstance(spec, str | os.PathLike):
        names = [os.fspath(item) for item in spec]
        return _tars(f"{len(names)} tars ({names[0]} ...)" if names else "an empty list", names)
    text = os.fspath(spec)
    if isinstance(spec, str) and "{" in text and not Path(text).exists():
        return _tars(text, list(expand_braces(text)))
    if is_address(text):
        return Location(text, urls=(text,))
    path = local_path(text)
    if path.suffix == ".tar" and not path.is_dir():
        return Location(text, tars=(path,))
    return Location(text, folder=path)


def is_address(text: str) -> bool:
    """True for ``scheme://`` (an asset's name and a plain path are not; other uses of a scheme are refused elsewhere)."""
    return bool(_SCHEME.match(text)) and "://" in text


def _tars(text: str, names: Sequence[str]) -> Location:
    if not names:
        raise DataError(f"data location: {text} names no shard")
    if len(set(names)) != len(names):
        raise DataError(f"data location {text!r} names a shard twice")
    wrong = next((name for name in names if not name.endswith(".tar")), None)
    if wrong is not None:
        raise DataError(f"data location {text!r}: {wrong!r} is not a .tar (a list or braces must name tars)")
    remote = [is_address(name) for name in names]
    if any(remote) and not all(remote):
        raise DataError(f"data location {text!r} mixes local and remote shards; make it two sources")
    if all(remote):
        return Location(text, urls=tuple(names))
    return Location(text, tars=tuple(local_path(name) for name in names))


def expand_braces(text: str) -> Iterator[str]:
    """Yields the names that ``{00..12}`` and ``{a,b}`` stand for, in order (zeros in front set the width; no nesting).

    Raises:
        DataError: If the braces are not of that form or stand for more than `MAX_EXPANSION` names.
    """
    parts = _BRACES.split(text)  # text, inside, text, inside, ..., text
    if any(set(part) & set("{}") for part in parts[::2]):
        raise DataError(f"data location {text!r}: braces must be of the form {{000..012}} or {{a,b}}, not nested")
    choices = [_choices(text, part) for part in parts[1::2]]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_EXPANSION:
        raise DataError(f"data location {text!r} stands for {total} shards, more than {MAX_EXPANSION}")
    for chosen in itertools.product(*choices):
        yield "".join(part for pair in itertools.zip_longest(parts[::2], chosen, fillvalue="") for part in pair)


def _choices(text: str, inside: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if not match:
        if "," not in inside:
            raise DataError(f"data location {text!r}: {{{inside}}} is neither a range {{000..012}} nor a list {{a,b}}")
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MAX_EXPANSION:
        raise DataError(f"data location {text!r}: the range {{{inside}}} is empty, runs backwards or is too long")
    width = len(match[1]) if match[1].startswith("0") or len(match[1]) == len(match[2]) else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]
