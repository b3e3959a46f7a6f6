"""The languages that a recipe or command names, against those that the captions of a set are in."""

from __future__ import annotations

from collections.abc import Sequence

from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import DataError, nearest


def check_present(languages: Sequence[str] | None, sets: Sequence[ShardSet], where: str) -> None:
    """Refuses a language that no set has a caption in, and one that is named twice: either would change results without a word.

    Args:
        languages: As named; None means all there are.
        sets: Together they must have each language; sets that do not say what they have are not asked.
        where: The setting, for messages.

    Raises:
        DataError: Naming the language, and those there are.
    """
    if languages is None:
        return
    for number, language in enumerate(languages):
        if language in languages[:number]:
            raise DataError(f"{where}: {language!r} is named twice, so its captions would count twice; name it once")
    counts = [one.manifest.schema.get("languages") for one in sets]
    if not counts or any(not count for count in counts):
        return
    there = sorted({name for count in counts for name in count or ()})
    missing = [language for language in languages if language not in there]
    if missing:
        names, hint = ", ".join(str(one.folder) for one in sets), nearest(missing[0], there)
        known = f"{hint}; there are {_some(there)}" if "did you mean" in hint else f"; there are {_some(there)}"
        raise DataError(f"{where}: no caption in {', '.join(map(repr, missing))} in {names}{known}")


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
