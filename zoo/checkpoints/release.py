"""Releases: one folder that a model loads from, without network and without the code that trained it.

`config.json` (family, settings, preprocessing), `model.safetensors`, processor files, `README.md` (model card) and `release.json`
{format, kind, parts}. A *full* release holds every weight. An *adapter* holds everything that was trained and names, by hash, the
pretrained part it leaves out; loading checks that hash. A missing or an unexpected weight is an error.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ModalignError, ReleaseError
from ..names import public_source
from ..registry import FAMILIES
from .durable import put_in_place, recover, staging_for
from .find import FORMAT, find_release, locate, read_release
from .hashing import weights_sha256
from .weights import read_weights, unshared

__all__ = ["FORMAT", "Kind", "find_release", "load", "read_release", "save_release"]
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
    if kind == "full" and hasattr(model, "refuse_whole"):
        model.refuse_whole()
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

    state = unshared(model.state_dict())
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
    }
    if hasattr(model, "image"):
        config["image_preprocess"] = model.image.preprocess.to_dict()
    _dump(folder / "config.json", config)
    (folder / "README.md").write_text(card or f"# {model.family}\n", encoding="utf-8")
    _dump(folder / "release.json", {"format": FORMAT, "kind": kind, "parts": parts, "quick_gelu": model.quick_gelu()})


def _public(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {
            key: public_source(value) if key in ("name", "base") and isinstance(value, str) else _public(value)
            for key, value in settings.items()
        }
    return settings


def _dump(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(name: str | Path, device: str | torch.device = "cpu") -> Any:
    """Loads a model for use: `encode_image`, `encode_text`, `answer`, `forward`.

    Args:
        name: A release or run folder, `asset:NAME`, `hf:ORG/NAME`, `open_clip:MODEL/TAG`, or a folder in the layout of open_clip or of
            transformers' LLaVA models.
        device: Where to put it.

    Returns:
        The model in eval mode.

    Raises:
        ReleaseError: If the release is incomplete or damaged, or the base of an adapter is missing or another one.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ReleaseError(f"device {device}: this machine has no GPU that torch can use; take device cpu")
    found = locate(name)
    if found.folder is None:
        from .stand_in import load_other

        return load_other(found).to(device).eval()
    config, release = read_release(found.folder)
    model = _build(found.folder, config)
    _check_activation(model, release, found.folder)
    _load_weights(model, found.folder, release)
    return model.to(device).eval()


_NOT_WHOLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError, MemoryError)


def _build(folder: Path, config: Mapping[str, Any]) -> Any:
    family = FAMILIES.get(config["family"])
    try:
        return family.from_settings(
            config["model"], "config.json: model", release=folder, preprocess=config.get("image_preprocess")
        )
    except (*_NOT_WHOLE, ModalignError) as error:  # a processor file that is not there or not whole, sizes that fit no memory
        raise ReleaseError(f"{folder}: the model cannot be built from it ({error}); get the release again") from error


def _check_activation(model: Any, release: Mapping[str, Any], folder: Path) -> None:
    """A release says which of its parts compute QuickGELU; older ones do not, and cannot be checked."""
    for part, stated in release.get("quick_gelu", {}).items():
        if (has := model.quick_gelu().get(part)) != stated:
            raise ReleaseError(
                f"{folder}: its {part} part was trained with {'QuickGELU' if stated else 'GELU'}, its configuration builds one with "
                f"{'QuickGELU' if has else 'GELU'}: every vector would be silently off; get the release again"
            )


def _load_weights(model: Any, folder: Path, release: Mapping[str, Any]) -> None:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ReleaseError(f"{file}: cannot be read (it is not there); get the release again")
    state = read_weights(file)
    for part, about in release["parts"].items():
        if not about["included"]:
            state |= _base_weights(model, f"{part}.", about, folder)
    model.adapt_state(state)
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
    state = {prefix + name: tensor for name, tensor in unshared(base.state_dict()).items()}
    if (have := weights_sha256(state)) != about["sha256"]:
        raise ReleaseError(
            f"{folder} is an adapter on {source} with weights sha256 {about['sha256'][:12]}…, but what is there now has {have[:12]}…: "
            "get the version it was trained on, or ask for a full release"
        )
    return state
