"""Uploading a release to the Hugging Face hub: what goes, what must not, and the two calls that do it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NameGrammarError, ReleaseError
from ..names import parse_name
from .find import locate, read_release
from .weights import check_safetensors

#: what a release is made of; anything else in the folder is not ours to publish
_SUFFIXES = (".json", ".safetensors", ".md", ".txt", ".model", ".jinja", ".tiktoken")
#: vocabularies, whose entries may look like paths
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
_ABSOLUTE = re.compile(r"^(local-dir:)?(/|~|\\\\|[A-Za-z]:[\\/])")


@dataclass(frozen=True)
class Upload:
    """What would be sent.

    Attributes:
        folder: The release.
        repo: ORG/NAME on the hub.
        files: (path within the release, bytes), by path.
    """

    folder: Path
    repo: str
    files: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """All bytes together."""
        return sum(size for _, size in self.files)


def plan_upload(name: str | Path, repo: str) -> Upload:
    """Checks a release for publication; touches no network.

    Args:
        name: A release, or a finished run folder (its `release/`).
        repo: `ORG/NAME`.

    Raises:
        ReleaseError: If it is no release, its base is a folder nobody else has, a file is not of a release, or names a folder of this
            machine.
        NameGrammarError: If `repo` is not ORG/NAME, or a name the hub does not take.
    """
    _check_repo(repo)
    folder = _release_of(name)
    _, release = read_release(folder)
    _check_base(folder, release)
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        _check_file(folder, path)
        files.append((str(path.relative_to(folder)), path.stat().st_size))
    return Upload(folder, repo, tuple(files))


def push(upload: Upload, *, private: bool = False) -> str:
    """Makes the repository if need be and uploads the files.

    Args:
        upload: From `plan_upload`.
        private: Make a new repository private.

    Returns:
        Where it is.

    Raises:
        ReleaseError: If the hub refuses or cannot be reached.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        place = api.create_repo(upload.repo, private=private, repo_type="model", exist_ok=True)
        api.upload_folder(
            repo_id=upload.repo,
            folder_path=upload.folder,
            repo_type="model",
            allow_patterns=[name for name, _ in upload.files],
            commit_message="Upload release",
        )
    except Exception as error:  # httpx, OS and hub errors alike
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ReleaseError(f"hf:{upload.repo}: the upload failed ({lines[0][:200]}); the same command tries again") from error
    return str(place)


def _check_repo(repo: str) -> None:
    """Asks our grammar and then the hub client's own rule, which the upload would fail at."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    parse_name(f"hf:{repo}")
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise NameGrammarError(
            f"{repo!r} is no name the hub takes; ORG/NAME has at most 96 characters, all of them letters, digits, '-', '_' or '.', "
            "neither begins nor ends with '-' or '.', has no '--' or '..', and does not end in '.git'"
        ) from None


def _release_of(name: str | Path) -> Path:
    found = locate(name)
    if found.folder is None:
        raise ReleaseError(f"{name} is an open_clip checkpoint, not a release of this zoo; modalign export writes one of those")
    return found.folder


def _check_base(folder: Path, release: dict[str, Any]) -> None:
    """An adapter is of use to others only if they can get what it leaves out."""
    for part, about in release["parts"].items():
        if about["included"]:
            continue
        source = str(about["source"])
        if source.startswith("local-dir:") or _ABSOLUTE.match(source) or source.startswith("."):
            there = Path(source.removeprefix("local-dir:")).is_dir()
            raise ReleaseError(
                f"{folder} is an adapter, and its {part} is in the local folder {source}, which nobody else has"
                f"{'' if there else ' (and which is not there)'}; push a full release (a run's own release/ is one)"
            )


def _check_file(folder: Path, path: Path) -> None:
    name = path.relative_to(folder)
    if path.is_symlink():
        raise ReleaseError(f"{path}: a link is not part of a release; take it away")
    if any(part.startswith(".") for part in name.parts) or path.suffix not in _SUFFIXES:
        raise ReleaseError(f"{path}: is not part of a release; take it away, so that nothing is published by accident")
    if path.suffix == ".safetensors":
        check_safetensors(path)
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    for private in _private(folder):
        if private in text:
            raise ReleaseError(f"{path}: names the folder {private} of this machine; save the release again with public settings")
    if path.suffix == ".json" and path.name not in _VOCABULARIES:
        for key, value in _strings(_parsed(path, text)):
            if _ABSOLUTE.match(value):
                raise ReleaseError(
                    f"{path}: {key} is {value!r}, a folder of this machine; save the release again with public settings"
                )


def _private(folder: Path) -> list[str]:
    places = {str(Path.home()), str(Path.cwd()), str(folder.resolve().parent)}
    return sorted(place for place in places if len(place) > 1)


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ReleaseError(f"{path}: is not JSON ({error}); get the release again") from None


def _strings(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, dict):
        for name, value in values.items():
            yield from _strings(value, f"{key}.{name}".lstrip("."))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _strings(value, f"{key}[{number}]")
