"""Releases: one folder that a model loads from, without network and without the code that trained it.

`config.json` (family, settings, preprocessing), `model.safetensors`, processor files, `README.md` (model card) and `release.json`
{format, kind, parts}. A *full* release holds every weight. An *adapter* holds everything that was trained and names, by hash, the
pretrained part it leaves out; loading checks that hash. A missing or an unexpected weight is an error.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ReleaseError, nearest
from ..names import local_folder, parse_name, public_source
from ..registry import FAMILIES
from .durable import put_in_place, recover, staging_for
from .hashing import weights_sha256

FORMAT = "modalign-release/1"
Kind = Literal["full", "adapter"]


def save_release(
    model: Any,
    folder: str | Path,
    *,
    kind: Kind = "full",
    card: str = "",
    trained: frozenset[str] = frozenset(),
    public: bool = True,
) -> Path:
    """Writes a release, all or nothing: into a folder beside it, then renamed.

    Args:
        model: A model of a family.
        folder: Where; an older release there is replaced once the new one is complete.
        kind: `full`, or `adapter`, which leaves out pretrained parts no parameter of which was trained.
        card: Text of README.md.
        trained: Names of the parameters that any stage trained; an adapter includes every part that has one.
        public: State local sources by their last component only; off for releases that stay inside a run folder, whose
            adapters must find local bases again.

    Raises:
        ReleaseError: If the folder exists and is not a release.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "release.json").exists() and any(folder.iterdir()):
        raise ReleaseError(f"{folder} exists and is not a release: choose another folder or move it away")
    if folder.parent.is_dir():
        recover(folder.parent, folder.name)
    staging = staging_for(folder)
    try:
        _write(model, staging, kind, card, trained, public)
        put_in_place(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return folder


def _write(model: Any, folder: Path, kind: Kind, card: str, trained: frozenset[str], public: bool) -> None:
    from safetensors.torch import save_file

    state = _unshared(model.state_dict())
    parts, left_out = {}, set()
    for prefix, source in model.sources().items():
        names = [name for name in state if name.startswith(prefix)]
        included = kind == "full" or any(name.startswith(prefix) for name in trained)
        parts[prefix.rstrip(".")] = {
            "source": public_source(source) if public else source,
            "sha256": weights_sha256({name: state[name] for name in names}),
            "included": included,
        }
        left_out |= set() if included else set(names)
    save_file({name: tensor for name, tensor in state.items() if name not in left_out}, folder / "model.safetensors")
    model.save_processors(folder)
    config = {
        "family": model.family,
        "model": _public(model.settings()) if public else model.settings(),
        "image_preprocess": model.image.preprocess.to_dict(),
    }
    _dump(folder / "config.json", config)
    (folder / "README.md").write_text(card or f"# {model.family}\n", encoding="utf-8")
    _dump(folder / "release.json", {"format": FORMAT, "kind": kind, "parts": parts})


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _public(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {
            key: public_source(value) if key == "name" and isinstance(value, str) else _public(value)
            for key, value in settings.items()
        }
    return settings


def _dump(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def find_release(name: str | Path) -> Path:
    """The release folder that a path or name stands for: a release, a run folder (its `release/`), or a name of the grammar.

    Raises:
        ReleaseError: If there is none; the message says what was looked for.
    """
    text = str(name)
    if not Path(text).is_dir() and Path(text).exists():
        raise ReleaseError(f"{text} is a file; give the folder of a run or of a release")
    folder = Path(text) if Path(text).is_dir() else _named_folder(text)
    for candidate in (folder, folder / "release"):
        if (candidate / "release.json").is_file():
            return candidate
    raise ReleaseError(
        f"{text} holds neither release.json nor release/release.json: is the run finished? (modalign train continues it)"
    )


def _named_folder(text: str) -> Path:
    if os.sep in text and ":" not in text:
        raise ReleaseError(f"there is no folder {text!r}")
    parsed = parse_name(text)
    if parsed.scheme == "hf":
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(parsed.rest, allow_patterns=["*.json", "*.safetensors", "*.md", "image/*", "text/*"]))
    folder = local_folder(parsed)
    if folder is None:
        raise ReleaseError(f"{text}: releases load from asset:NAME, hf:ORG/NAME or a folder")
    return folder


def read_release(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (config, release) of a release folder.

    Raises:
        ReleaseError: If a file is missing or not JSON, the format unknown, or the family not in this zoo.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        release = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{folder}: cannot read config.json and release.json ({error}); get the release again") from None
    if not isinstance(config, dict) or not isinstance(release, dict):
        raise ReleaseError(f"{folder}: config.json and release.json must each hold a JSON object; get the release again")
    if release.get("format") != FORMAT:
        raise ReleaseError(
            f"{folder}: format {release.get('format')!r} is not {FORMAT!r}; update modalign or export the model again"
        )
    if config.get("family") not in FAMILIES.names():
        raise ReleaseError(
            f"{folder}: family {config.get('family')!r} is not in this zoo{nearest(str(config.get('family')), FAMILIES.names())}"
        )
    absent = [f"config.json: {key}" for key in ("model", "image_preprocess") if key not in config]
    absent += [f"release.json: {key}" for key in ("kind", "parts") if key not in release]
    if absent:
        raise ReleaseError(f"{folder}: missing entries ({', '.join(absent)}); get the release again")
    return config, release


def load(name: str | Path, device: str | torch.device = "cpu") -> Any:
    """Loads a model for use: `encode_image`, `encode_text`.

    Args:
        name: A release or run folder, `asset:NAME` or `hf:ORG/NAME`.
        device: Where to put it.

    Returns:
        The model in eval mode.

    Raises:
        ReleaseError: If the release is incomplete or damaged, or the base of an adapter is missing or another one.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ReleaseError(f"device {device}: this machine has no GPU that torch can use; take device cpu")
    folder = find_release(name)
    config, release = read_release(folder)
    family = FAMILIES.get(config["family"])
    try:
        model = family.from_settings(config["model"], "config.json: model", release=folder, preprocess=config["image_preprocess"])
    except (
        OSError,
        ValueError,
        TypeError,
    ) as error:  # what the libraries raise on a processor file that is not there or not whole
        raise ReleaseError(f"{folder}: the model cannot be built from it ({error}); get the release again") from error
    _load_weights(model, folder, release)
    return model.to(device).eval()


def _load_weights(model: nn.Module, folder: Path, release: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ReleaseError(
            f"{folder / 'model.safetensors'}: cannot be read ({error}); the file is damaged, get it again"
        ) from None
    for part, about in release["parts"].items():
        if not about["included"]:
            state |= _base_weights(model, f"{part}.", about, folder)
    wanted = model.state_dict()
    missing, unexpected = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    wrong = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if missing or unexpected or wrong:
        raise ReleaseError(
            f"{folder}: weights do not fit the model; missing: {_few(missing)}; unexpected: {_few(unexpected)}; other shape: {_few(wrong)}"
        )
    model.load_state_dict(state)


def _few(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _base_weights(model: Any, prefix: str, about: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    source = about["source"]
    try:
        base = type(model).part_from_source(model.config, prefix)
    except Exception as error:
        raise ReleaseError(f"{folder} is an adapter on {source} ({prefix.rstrip('.')}), which cannot be had: {error}") from error
    state = {prefix + name: tensor for name, tensor in _unshared(base.state_dict()).items()}
    if (have := weights_sha256(state)) != about["sha256"]:
        raise ReleaseError(
            f"{folder} is an adapter on {source} with weights sha256 {about['sha256'][:12]}…, but what is there now has {have[:12]}…: "
            "get the version it was trained on, or ask for a full release"
        )
    return state
