"""The Hugging Face hub, asked once and given up within seconds when it does not answer.

Files go into the hub client's own cache. Where the hub cannot be reached, a copy in that cache is used if it is whole.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AssetError, ReleaseError

PATIENCE = 6.0  # seconds for the first answer; name resolution included, which no socket timeout covers
#: descriptions and vocabularies: what decides which kind of model a repository holds
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")


@dataclass(frozen=True)
class Listing:
    """What a repository holds.

    Attributes:
        files: Paths of its files.
    """

    files: tuple[str, ...]

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Its files that match any of some shell patterns."""
        return [file for file in self.files if any(fnmatch.fnmatch(file, pattern) for pattern in patterns)]


_listings: dict[str, Listing] = {}


def fetch(repo: str, patterns: Sequence[str] = SMALL_FILES) -> Path:
    """The local folder of a repository, with the files that match some patterns.

    Args:
        repo: `ORG/NAME`.
        patterns: Shell patterns of wanted files.

    Raises:
        AssetError: If there is no such repository, or the hub does not answer and the cache does not hold it.
    """
    from huggingface_hub import snapshot_download

    listing = _listing(repo)
    if listing is None:
        return _cached(repo)
    try:
        # no commit is named, so that the cache remembers what `main` was and can stand in for the hub
        return Path(snapshot_download(repo, allow_patterns=list(patterns), etag_timeout=PATIENCE))
    except Exception as error:  # httpx, OS and hub errors alike
        raise AssetError(f"hf:{repo}: the download broke off ({_said(error)}); the same command continues it") from error


def fetch_first(repo: str, choices: Sequence[Sequence[str]]) -> Path:
    """Like `fetch`, with the first of several sets of patterns that the repository has files for (safetensors before others).

    Raises:
        AssetError: See `fetch`.
        ReleaseError: If it has files for none.
    """
    listing = _listing(repo)
    if listing is None:
        return _cached(repo)
    for patterns in choices:
        if listing.matching(patterns):
            return fetch(repo, [*patterns, *SMALL_FILES])
    wanted = ", ".join(pattern for patterns in choices for pattern in patterns)
    raise ReleaseError(f"hf:{repo} has no weights that can be read here (looked for {wanted}); is it another kind of repository?")


def _listing(repo: str) -> Listing | None:
    """What the hub says a repository holds; None where it cannot be asked and the cache may stand in."""
    if repo not in _listings:
        answer = _ask(repo)
        if isinstance(answer, BaseException) or answer is None:
            if _is_refusal(answer):
                raise AssetError(f"hf:{repo}: the hub has no such repository, or not for you ({_said(answer)})")
            _unreached[repo] = _said(answer)
            return None
        _listings[repo] = Listing(tuple(sibling.rfilename for sibling in answer.siblings or []))
    return _listings[repo]


_unreached: dict[str, str] = {}


def _ask(repo: str) -> Any:
    """The hub's description of a repository, or the error, or None after `PATIENCE` seconds.

    Asked in a thread that is left behind when it hangs.
    """
    answer: dict[str, Any] = {}

    def ask() -> None:
        try:
            from huggingface_hub import HfApi

            answer["is"] = HfApi().model_info(repo, timeout=PATIENCE)
        except Exception as error:
            answer["is"] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answer.get("is")


def _is_refusal(answer: Any) -> bool:
    """Whether the hub did answer, and said no."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    status = getattr(getattr(answer, "response", None), "status_code", 0)
    return isinstance(answer, HFValidationError) or (isinstance(answer, HfHubHTTPError) and 400 <= status < 500)


def _said(answer: Any) -> str:
    if answer is None:
        return f"no answer within {PATIENCE:.0f} s"
    lines = [line for line in str(answer).splitlines() if line.strip()]
    return f"{type(answer).__name__}: {lines[0][:160]}" if lines else type(answer).__name__


def _cached(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except Exception:
        raise AssetError(
            f"hf:{repo}: the hub cannot be reached ({_unreached[repo]}) and the cache does not hold it; "
            "connect, or give a local folder (./FOLDER) with its files"
        ) from None
