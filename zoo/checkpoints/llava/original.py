"""Folders of the original LLaVA code: a whole model, a projector alone (`mm_projector.bin`), or LoRA with what else was trained.

Such folders name their language model and image encoder by hub names or by paths of the machine they were made on; both can be given.
Source: the layouts that LLaVA's training code writes and its builder reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.sources import read_json, refuse_remote_code
from ...errors import ReleaseError
from ...registry import FAMILIES
from ..weights import read_weights
from .names import to_stack

PROJECTOR, BESIDE_LORA, ADAPTER = "mm_projector.bin", "non_lora_trainables.bin", "adapter_config.json"
_PLAIN_KINDS = {"llava_llama": "llama", "llava": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2", "llava_mpt": "mpt"}


@dataclass
class Original:
    """A folder of the original code.

    Attributes:
        folder: Where it is.
        config: Its config.json.
        language: Name of the language model it needs; None if it holds its own.
        vision: Name of the image encoder.
    """

    folder: Path
    config: Mapping[str, Any]
    language: str | None
    vision: str

    @property
    def has_lora(self) -> bool:
        """Whether it holds adapters."""
        return (self.folder / ADAPTER).is_file()


def is_original_folder(folder: Path) -> bool:
    """Whether a folder is the original code's, by its files."""
    config = folder / "config.json"
    return config.is_file() and "mm_vision_tower" in read_json(config)


def read_original(folder: Path, language: str | None = None, vision: str | None = None) -> Original:
    """Reads a folder of the original code.

    Args:
        folder: The folder.
        language: The language model, where the folder has none or its name cannot be had.
        vision: The image encoder, where its name cannot be had.

    Raises:
        ReleaseError: If it is no such folder, or needs something that nobody named.
    """
    if not is_original_folder(folder):
        raise ReleaseError(f"{folder}: no folder of the original LLaVA code (a config.json with mm_vision_tower)")
    refuse_remote_code(folder)
    config = read_json(folder / "config.json")
    whole = any(folder.glob("pytorch_model*.bin")) or any(folder.glob("model*.safetensors"))
    named = None if whole else _base_name(folder, config)
    if not whole and language is None and named is None:
        raise ReleaseError(f"{folder}: holds no language model and names none; name it with --language")
    tower = vision or _grammar(str(config["mm_vision_tower"]))
    return Original(folder, config, language or (None if named is None else _grammar(named)), tower)


def _base_name(folder: Path, config: Mapping[str, Any]) -> str | None:
    adapter = folder / ADAPTER
    found = read_json(adapter).get("base_model_name_or_path") if adapter.is_file() else config.get("_name_or_path")
    return found if isinstance(found, str) and found else None


def _grammar(name: str) -> str:
    """A hub name or a path as the name grammar has them."""
    if Path(name).is_dir():
        return f"local-dir:{name}"
    return f"hf:{name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else name


def load_original(found: Original) -> Any:
    """The model of a folder of the original code; adapters stay adapters.

    Raises:
        ReleaseError: If the projector has another shape or is missing, a weight has no place, or a part cannot be had.
    """
    settings = _settings(found)
    family = "llava_next" if settings["picture"]["mode"] == "anyres" else "llava"
    model = FAMILIES.get(family).from_settings(settings, f"{found.folder}: model").eval()
    state = to_stack(_weights(found), model.language.model.base_model_prefix, str(found.folder))
    needed = {name for name in model.state_dict() if name.startswith(("projector.", "newline"))}
    missing = sorted(needed - set(state))
    if missing:
        raise ReleaseError(f"{found.folder}: the projector's {missing[0]} is missing; without it answers would be at random")
    _fill(model, state, found)
    if found.has_lora:
        _fill(model, _adapters(found), found)
    return model


def _fill(model: Any, state: Mapping[str, Tensor], found: Original) -> None:
    own = model.state_dict()
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            here = f"is {tuple(own[name].shape)}" if name in own else "has no place"
            raise ReleaseError(
                f"{found.folder}: {name} is {tuple(tensor.shape)} there and {here} in the model its config.json describes"
            )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)


def _weights(found: Original) -> dict[str, Tensor]:
    """What the folder holds besides adapters, without the wrappers' prefixes."""
    folder = found.folder
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    files += [folder / name for name in (PROJECTOR, BESIDE_LORA) if (folder / name).is_file()]
    if not files:
        raise ReleaseError(f"{folder}: has neither {PROJECTOR}, {BESIDE_LORA} nor weights of a whole model")
    state: dict[str, Tensor] = {}
    for file in files:
        part = {name.removeprefix("base_model."): tensor for name, tensor in read_weights(file).items()}
        if any(name.startswith("model.model.") for name in part):
            part = {name.removeprefix("model."): tensor for name, tensor in part.items()}
        state |= part
    return {name: tensor for name, tensor in state.items() if not name.endswith("rotary_emb.inv_freq")}


def _adapters(found: Original) -> dict[str, Tensor]:
    """LoRA matrices under our names."""
    files = [found.folder / f"adapter_model.{kind}" for kind in ("safetensors", "bin")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ReleaseError(f"{found.folder}: has {ADAPTER} but no adapter_model.safetensors or .bin")
    state = {}
    for name, tensor in read_weights(file).items():
        plain = re.sub(r"\.(lora_[AB])\.weight$", r".\1.default.weight", name.removeprefix("base_model.model."))
        if "lora_" in plain:
            state[f"language.model.{plain}"] = tensor
    return state


def _settings(found: Original) -> dict[str, Any]:
    config = found.config
    kind, depth = str(config.get("mm_projector_type", "linear")), 2
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if match is None and kind != "linear":
        raise ReleaseError(f"{found.folder}: projector {kind!r} is not converted; linear and mlpNx_gelu are")
    if match is not None:
        depth = int(match[1])
    projector = {"name": "linear", "options": {"bias": True}} if match is None else {"name": "mlp", "options": {"depth": depth}}
    aspect = config.get("image_aspect_ratio", "square")
    settings: dict[str, Any] = {
        "image": {"name": found.vision},
        "feature_layer": int(config.get("mm_vision_select_layer", -2)),
        "keep_prefix": config.get("mm_vision_select_feature", "patch") == "cls_patch",
        "picture": _picture(config, str(aspect)),
        "projector": projector,
        "language": {"name": found.language or _own_language(found)},
        "chat": {
            "template": "mistral_instruct" if "mistral" in str(config.get("model_type")) else "vicuna_v1",
            "pictures_first": True,
        },
    }
    if found.has_lora:
        lora = read_json(found.folder / ADAPTER)
        settings["lora"] = {
            "rank": int(lora["r"]),
            "alpha": float(lora["lora_alpha"]),
            "dropout": float(lora.get("lora_dropout", 0.0)),
            "targets": sorted(lora["target_modules"]),
        }
    return settings


def _picture(config: Mapping[str, Any], aspect: str) -> dict[str, Any]:
    if aspect != "anyres":
        return {"mode": "pad" if aspect == "pad" else "own"}
    points = config["image_grid_pinpoints"]
    points = json.loads(points) if isinstance(points, str) else points
    side = min(min(point) for point in points)  # every grid of LLaVA-1.6 has one tile in one direction
    return {"mode": "anyres", "grids": [[width // side, height // side] for width, height in points]}


def _own_language(found: Original) -> str:
    """A folder of transformers made of the language model inside, for its shape; its weights follow."""
    import atexit
    import shutil
    import tempfile

    kind = _PLAIN_KINDS.get(str(found.config.get("model_type")))
    if kind is None:
        raise ReleaseError(f"{found.folder}: model_type {found.config.get('model_type')!r} is not converted")
    place = Path(tempfile.mkdtemp(prefix="modalign-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    plain = {key: value for key, value in found.config.items() if not key.startswith(("mm_", "image_", "tune_mm", "freeze_mm"))}
    plain |= {"model_type": kind, "architectures": None}
    (place / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    for file in [
        *found.folder.glob("tokenizer*"),
        *found.folder.glob("special_tokens_map.json"),
        *found.folder.glob("added_tokens.json"),
    ]:
        shutil.copy(file, place / file.name)
    _write_language(found, place)
    return f"local-dir:{place}"


def _write_language(found: Original, place: Path) -> None:
    from safetensors.torch import save_file

    state = to_stack(_weights(found), "model", str(found.folder))
    own = {name.removeprefix("language_base."): tensor for name, tensor in state.items() if name.startswith("language_base.")}
    if not own:
        raise ReleaseError(f"{found.folder}: its files hold no language model")
    save_file(
        {name: tensor.to(torch.float32).contiguous() for name, tensor in own.items()},
        place / "model.safetensors",
        {"format": "pt"},
    )
