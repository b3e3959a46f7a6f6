"""From a name to the folder of a release, or to a checkpoint of open_clip or LLaVA; and what a release says of itself."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ReleaseError, nearest
from ..names import local_folder, parse_name
from ..registry import FAMILIES
from .llava.folder import is_llava_folder
from .open_clip import is_open_clip_folder

FORMAT = "modalign-release/1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB_FILES = ("*.json", "*.safetensors", "*.md", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class Found:
    """What a name stands for.

    Attributes:
        folder: Of a release; None for a checkpoint of others.
        open_clip: Name of an open_clip checkpoint.
        llava: Name of a LLaVA folder of transformers.
    """

    folder: Path | None = None
    open_clip: str | None = None
    llava: str | None = None


def locate(name: str | Path) -> Found:
    """Finds a release or a checkpoint of open_clip or LLaVA, by the files that are there.

    Args:
        name: A release, a run folder (its `release/`), a folder in the layout of open_clip or of transformers' LLaVA models, or a name
            of the grammar.

    Raises:
        ReleaseError: If there is none; the message says what was looked for.
    """
    text = str(name)
    if not Path(text).is_dir() and Path(text).exists():
        raise ReleaseError(f"{text} is a file; give the folder of a run or of a release")
    if not Path(text).is_dir() and text.startswith("open_clip:"):
        return Found(open_clip=text)
    folder = Path(text) if Path(text).is_dir() else _named_folder(text)
    for candidate in (folder, folder / "release"):
        if (candidate / "release.json").is_file():
            return Found(folder=candidate)
    if is_open_clip_folder(folder):
        return Found(open_clip=text if text.startswith("hf:") else f"local-dir:{folder}")
    if is_llava_folder(folder):
        return Found(llava=text if text.startswith("hf:") else f"local-dir:{folder}")
    raise ReleaseError(
        f"{text} holds neither release.json nor release/release.json: is the run finished? (modalign train continues it); "
        f"there is no open_clip_config.json either, and no config.json of a LLaVA that transformers has{_original(folder)}"
    )


def _original(folder: Path) -> str:
    """A hint where a folder is in the layout of the original LLaVA code."""
    marks = ("mm_projector.bin", "non_lora_trainables.bin")
    config = folder / "config.json"
    found = any((folder / name).is_file() for name in marks) or (
        config.is_file() and "mm_vision_tower" in config.read_text("utf-8")
    )
    return "; it is a folder of the original LLaVA code: modalign convert makes a release of it" if found else ""


def find_release(name: str | Path) -> Path:
    """The release folder that a name stands for; for a checkpoint of others a small release that refers to it.

    Raises:
        ReleaseError: If there is none; see `locate`.
    """
    found = locate(name)
    if found.folder is not None:
        return found.folder
    from .stand_in import stand_in

    return stand_in(found)


def _named_folder(text: str) -> Path:
    if os.sep in text and ":" not in text:
        raise ReleaseError(f"there is no folder {text!r}")
    parsed = parse_name(text)
    if parsed.scheme == "hf":
        from .hub import fetch

        folder = fetch(parsed.rest)
        return fetch(parsed.rest, _HUB_FILES) if (folder / "release.json").is_file() else folder
    folder_of = local_folder(parsed)
    if folder_of is None:
        raise ReleaseError(f"{text}: models load from asset:NAME, hf:ORG/NAME, open_clip:MODEL/TAG or a folder")
    return folder_of


def read_release(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, release) of a release folder.

    Raises:
        ReleaseError: If a file is missing or not JSON, the format unknown, or the family not in this zoo.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        release = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{folder}: cannot read config.json and release.json ({error}); get the release again") from None
    if not isinstance(config, dict) or not isinstance(release, dict):
        raise ReleaseError(f"{folder}: config.json and release.json must each hold a JSON object; get the release again")
    if release.get("format") != FORMAT:
        raise ReleaseError(
            f"{folder}: format {release.get('format')!r} is not {FORMAT!r}; update modalign or export the model again"
        )
    if not isinstance(config.get("family"), str) or config["family"] not in FAMILIES.names():
        raise ReleaseError(
            f"{folder}: family {config.get('family')!r} is not in this zoo{nearest(str(config.get('family')), FAMILIES.names())}"
        )
    series = getattr(FAMILIES.get(config["family"]), "data_kind", "pairs") == "series"
    absent = [f"config.json: {key}" for key in ("model", *(() if series else ("image_preprocess",))) if key not in config]
    absent += [f"release.json: {key}" for key in ("kind", "parts") if key not in release]
    if absent:
        raise ReleaseError(f"{folder}: missing entries ({', '.join(absent)}); get the release again")
    for key in ("model", "image_preprocess"):
        if not isinstance(config.get(key, {}), dict):
            raise ReleaseError(f"{folder}: config.json: {key} must be a JSON object, not {config[key]!r}; get the release again")
    if (wrong := _wrong_entry(release)) is not None:
        raise ReleaseError(f"{folder}: release.json: {wrong}; get the release again")
    return config, release


def _wrong_entry(release: dict[str, Any]) -> str | None:
    """What of a release's own file has another form than `save_release` writes; None if nothing has."""
    if release["kind"] not in ("full", "adapter"):
        return f"kind is {release['kind']!r}, which is neither full nor adapter"
    if not isinstance(release["parts"], dict):
        return f"parts must map the names of parts to what they are, not {release['parts']!r}"
    for part, about in release["parts"].items():
        if not isinstance(about, dict):
            return f"parts.{part} must be a JSON object, not {about!r}"
        for key, kind in (("source", str), ("sha256", str), ("included", bool)):
            if not isinstance(about.get(key), kind):
                return f"parts.{part}.{key} must be {'true or false' if kind is bool else 'a text'}, not {about.get(key)!r}"
        if not _SHA256.fullmatch(about["sha256"]):
            return f"parts.{part}.sha256 must be 64 hexadecimal digits, not {about['sha256']!r}"
    stated = release.get("quick_gelu", {})
    if not isinstance(stated, dict) or not all(isinstance(value, bool) for value in stated.values()):
        return f"quick_gelu must map the names of parts to true or false, not {stated!r}"
    return None
