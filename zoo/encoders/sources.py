"""From the name of an encoder to the files it is built from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import NameGrammarError, ReleaseError
from ..names import Name, local_folder, parse_name


@dataclass(frozen=True)
class Source:
    """Where an encoder comes from.

    Attributes:
        name: As the settings give it.
        folder: The folder with its files; None for a name that only its library knows (`timm:`, `open_clip:`).
    """

    name: Name
    folder: Path | None

    def with_weights(self, choices: Sequence[Sequence[str]]) -> Source:
        """The same with its weights fetched, where a hub has them.

        Args:
            choices: Patterns of wanted files, best format first.
        """
        if self.name.scheme != "hf":
            return self
        from ..checkpoints.hub import fetch_first

        return replace(self, folder=fetch_first(self.name.rest, choices))

    def files(self) -> Path:
        """Its folder.

        Raises:
            NameGrammarError: If it has none.
        """
        if self.folder is None:
            raise NameGrammarError(f"{self.name}: give hf:ORG/NAME, asset:NAME or a local folder")
        return self.folder


def open_source(text: str) -> Source:
    """The source behind a name; of a hub repository only the small files are fetched yet.

    Raises:
        NameGrammarError: If the name follows no form or the folder is not there.
        AssetError: If it cannot be had.
    """
    name = parse_name(text)
    if name.scheme == "hf":
        from ..checkpoints.hub import fetch

        return Source(name, fetch(name.rest))
    return Source(name, local_folder(name))


def trusted_source(name: str, folder: Path | None = None) -> Source:
    """The files of an encoder, by its name or from a release's folder; such as ask for code of their own are refused.

    Raises:
        NameGrammarError: If the name is wrong.
        ReleaseError: If the files ask to run code.
    """
    source = open_source(name) if folder is None else Source(Name("local-dir", str(folder)), folder)
    if source.folder is not None:
        refuse_remote_code(source.folder)
    return source


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ReleaseError: If the file is missing, not JSON, or no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{path}: cannot be read ({error}); get the file again") from None
    if not isinstance(values, dict):
        raise ReleaseError(f"{path}: must hold a JSON object; get the file again")
    return values


#: Files of transformers that may name classes of their own
_MAY_ASK = (
    "config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)


def refuse_remote_code(folder: Path) -> None:
    """Refuses a folder that asks for code of its own to be run, itself or in a folder inside it.

    Raises:
        ReleaseError: Naming the file and the classes it asks for.
    """
    for file in (path for name in _MAY_ASK for pattern in (name, f"*/{name}") for path in sorted(folder.glob(pattern))):
        if file.is_file() and (asked := read_json(file).get("auto_map")):
            raise ReleaseError(
                f"{file}: auto_map asks to run code that comes with the weights ({_named(asked)}), and that is never done here; "
                "take a model whose class transformers has itself"
            )


def _named(auto_map: Any) -> str:
    return ", ".join(str(value) for value in auto_map.values()) if isinstance(auto_map, dict) else str(auto_map)
