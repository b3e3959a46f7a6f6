"""Alignment levels of samples, kept in a file beside the shards; see `modalign data levels`."""

from __future__ import annotations

import json
from pathlib import Path

from modalign.zoo.errors import DataError


def read_levels(file: str | None) -> dict[str, int] | None:
    """Key -> level; None where no file is named.

    Raises:
        DataError: If the file is not there, or holds something else.
    """
    if file is None:
        return None
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        levels = content["levels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"data.dialogue.levels: {file} cannot be read ({error}); make it with modalign data levels") from None
    if not isinstance(levels, dict) or not all(type(level) is int and level >= 0 for level in levels.values()):
        raise DataError(f"data.dialogue.levels: {file} must map keys to whole numbers from 0; make it with modalign data levels")
    return levels
