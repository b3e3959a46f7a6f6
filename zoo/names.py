"""The name grammar: one way to say where weights or data come from.

`asset:NAME`, `hf:ORG/NAME`, `timm:NAME`, `open_clip:NAME`, `local-dir:PATH`, or a path that starts with `./`, `../` or `/`.
Anything else is refused with the right spelling, because a name that is silently read as something else trains the wrong model.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from .errors import NameGrammarError, nearest

SCHEMES = ("asset", "hf", "timm", "open_clip", "local-dir")
_FORMS = "asset:NAME, hf:ORG/NAME, timm:NAME, open_clip:NAME, local-dir:PATH, or a path that starts with ./, ../ or /"


@dataclass(frozen=True)
class Name:
    """A parsed name.

    Attributes:
        scheme: One of `SCHEMES`; a plain path has the scheme `local-dir`.
        rest: What follows the colon.
    """

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


def parse_name(text: str) -> Name:
    """Parses a name by the grammar.

    Raises:
        NameGrammarError: If the text follows none of the forms; the message suggests the likely one.
    """
    if text.startswith(("./", "../", "/")) or text in (".", ".."):
        return Name("local-dir", text)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        if not rest:
            raise NameGrammarError(f"{text!r}: nothing follows the colon; write {scheme}:NAME")
        if scheme == "hf" and (rest.count("/") != 1 or not all(rest.split("/"))):
            raise NameGrammarError(f"{text!r}: a Hugging Face name is ORG/NAME; write hf:ORG/NAME")
        return Name(scheme, rest)
    if colon:
        raise NameGrammarError(f"{text!r}: unknown prefix {scheme!r}{nearest(scheme, SCHEMES)}")
    raise NameGrammarError(f"{text!r} is not a name: use {_FORMS}{_guess(text)}")


def _guess(text: str) -> str:
    if Path(text).exists():
        return f"; did you mean './{text}'?"
    if text.count("/") == 1:
        return f"; did you mean 'hf:{text}' or './{text}'?"
    return f"; did you mean 'timm:{text}', 'asset:{text}' or './{text}'?"


def public_source(text: str) -> str:
    """A name or path as a public file may state it: a local path keeps its last component only, for it names somebody's machine."""
    path = text.removeprefix("local-dir:")
    if path != text or text.startswith(("./", "../", "/", "~")):
        return f"local-dir:{Path(path).name}"
    return text


def local_folder(name: Name) -> Path | None:
    """Returns the folder an `asset:` or `local-dir:` name stands for, or None for names that a hub answers.

    Raises:
        NameGrammarError: If a `local-dir:` folder does not exist.
        AssetError: If the asset is unknown or cannot be had.
    """
    if name.scheme == "local-dir":
        folder = Path(name.rest).expanduser()
        if not folder.is_dir():
            raise NameGrammarError(f"{name}: there is no folder {str(folder)!r}")
        return folder
    for entry in entry_points(group="modalign.names"):
        if entry.name == name.scheme:
            return Path(entry.load()(name.rest))
    return None
