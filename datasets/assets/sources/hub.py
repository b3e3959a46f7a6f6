"""The Hugging Face hub, given up within seconds when it does not answer."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

from modalign.zoo.errors import AssetError

from .. import record
from ..catalogue import Asset
from . import SourceUnavailable

PATIENCE = 6.0  # seconds for the first answer; name resolution included, which no socket timeout covers


def from_hub(asset: Asset, work: Path, out: Path) -> dict[str, Any]:
    """Downloads an asset's repository and checks its large files against the hub's own hashes.

    Args:
        asset: An entry of the catalogue.
        work: An empty scratch folder.
        out: The folder to fill.

    Raises:
        SourceUnavailable: If there is no repository, the hub is switched off or does not answer, or the download breaks off.
        AssetError: If a file is not what the hub says it is.
    """
    if asset.hub is None:
        raise SourceUnavailable("not there")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise SourceUnavailable("switched off by HF_HUB_OFFLINE")
    info = _ask(asset.hub.repo)
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            asset.hub.repo, revision=info.sha, allow_patterns=list(asset.hub.patterns), local_dir=out, etag_timeout=5
        )
    except Exception as error:  # httpx, OS and hub errors alike: the package is the fallback
        shutil.rmtree(out)
        out.mkdir()
        raise SourceUnavailable(f"the download of {asset.hub.repo} broke off ({type(error).__name__})") from error
    shutil.rmtree(out / ".cache", ignore_errors=True)
    _check(asset, info, out)
    return {"kind": "hub", "repo": asset.hub.repo, "commit": info.sha}


def _ask(repo: str) -> Any:
    """Asks for the repository's description, in a thread that is left behind when it hangs."""
    answer: dict[str, Any] = {}

    def ask() -> None:
        try:
            from huggingface_hub import HfApi

            answer["info"] = HfApi().model_info(repo, timeout=PATIENCE, files_metadata=True)
        except Exception as error:
            answer["error"] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if "info" in answer:
        return answer["info"]
    reason = type(answer["error"]).__name__ if "error" in answer else f"no answer within {PATIENCE:.0f} s"
    raise SourceUnavailable(f"{repo} not reached ({reason})")


def _check(asset: Asset, info: Any, out: Path) -> None:
    for sibling in info.siblings or []:
        path = out / sibling.rfilename
        if sibling.lfs is not None and path.is_file() and record.sha256_of(path) != sibling.lfs.sha256:
            raise AssetError(
                f"asset {asset.name}: {sibling.rfilename} from the hub does not have the hub's own sha256; try again"
            )
