"""Errors a user can act on: each message names the culprit and says what to do.

The command line prints these as one sentence; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModalignError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class RecipeError(ModalignError):
    """A recipe (or an override of it) is wrong: unknown key, wrong type, a role that matches nothing."""


class DataError(ModalignError):
    """A shard, manifest, index or sample is wrong; the message names file, sample and field."""


class AssetError(ModalignError):
    """An asset is unknown, cannot be fetched, or is not what its hash says."""


class NameGrammarError(ModalignError):
    """A model name does not follow the name grammar; the message suggests the right spelling."""


class ReleaseError(ModalignError):
    """A release or checkpoint is incomplete, damaged or does not fit the model."""


class AssemblyError(ModalignError):
    """Parts do not go together (widths, grids, missing inputs)."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest known word, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
