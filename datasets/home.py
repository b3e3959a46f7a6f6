"""Where a data location is and where derived files may be kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modalign.zoo.errors import DataError

_SCHEME = re.compile(r"^\s*([A-Za-z][A-Za-z0-9+.\-]+):")


def cache_home() -> Path:
    """Returns the cache folder (``$MODALIGN_HOME``, else ``modalign`` in the user's cache folder); it is not created here."""
    from .assets.places import home

    return home()


def local_path(spec: str | Path) -> Path:
    """Turns a data location into a local path; nothing is opened, expanded or run.

    Args:
        spec: A path, or ``asset:NAME`` for data fetched with ``modalign assets get``.

    Raises:
        DataError: For any URL scheme (``pipe:``, ``http:``, ``file:`` ...) and for an empty name.
    """
    text = os.fspath(spec)
    scheme = _SCHEME.match(text)
    if scheme and scheme[1] == "asset" and not text[0].isspace():
        from .assets.lookup import folder_of

        return Path(folder_of(text.removeprefix("asset:")))
    if scheme:
        raise DataError(
            f"data location {text!r}: the scheme {scheme[1]!r} is refused; only local paths and asset:NAME are read "
            "(download the data first; a local path with a colon can be written as './NAME')"
        )
    if not text.strip() or "\0" in text:
        raise DataError(f"data location {text!r} is not a path")
    return Path(text)
