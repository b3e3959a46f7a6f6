"""Folders of the sentence-transformers library, read without it: modules.json, pooling, normalisation, dense layers, prompts.

Modules this cannot express are refused by name; nothing named in the files is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.weights import load_strictly, read_weights
from ...errors import ReleaseError, nearest
from ..sources import read_json
from .pooling import Pooling

MODULES = "modules.json"
_POOLING: dict[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass
class SentenceFolder:
    """What a folder says besides its transformer.

    Attributes:
        transformer: The folder with the transformer's files.
        pooling: How token states become a vector.
        max_length: Longer texts are cut, in tokens; None leaves it to the tokenizer.
        lower: Put texts in lower case first.
        prompts: Name -> text put before every text.
        default_prompt: The prompt that is used if none is asked for.
        head: (kind, folder) of what follows the pooling, in order.
    """

    transformer: Path
    pooling: Pooling = "mean"
    max_length: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    head: list[tuple[str, Path]] = field(default_factory=list)

    def prefix(self, prompt: str | None, shown: str) -> str:
        """The text of a prompt.

        Raises:
            ReleaseError: If there is none of that name.
        """
        name = prompt or self.default_prompt
        if name is None:
            return ""
        if name not in self.prompts:
            raise ReleaseError(f"{shown}: has no prompt {name!r}{nearest(name, self.prompts)}")
        return self.prompts[name]


def read_sentence_folder(folder: Path, shown: str) -> SentenceFolder:
    """Reads a folder's modules and settings.

    Args:
        folder: A folder with modules.json.
        shown: What messages call the model.

    Raises:
        ReleaseError: If a module cannot be expressed, or a file is missing or damaged.
    """
    modules = _modules(folder, shown)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ReleaseError(
            f"{shown}: its modules are {', '.join(kinds)}; only a Transformer with Pooling after it can be used here"
        )
    found = SentenceFolder(modules[0][1])
    pooling = read_json(modules[1][1] / "config.json")
    found.pooling = _pooling_of(pooling, shown)
    for kind, place in modules[2:]:
        if kind not in ("Normalize", "Dense"):
            raise ReleaseError(f"{shown}: its module {kind} cannot be used here (known: Transformer, Pooling, Dense, Normalize)")
        found.head.append((kind, place))
    _read_settings(folder, found, shown)
    if not pooling.get("include_prompt", True) and found.prefix(None, shown):
        raise ReleaseError(f"{shown}: leaves its prompt out of the pooling (include_prompt: false), which cannot be done here")
    return found


def _modules(folder: Path, shown: str) -> list[tuple[str, Path]]:
    import json

    try:
        entries = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        found = [(str(entry["type"]), folder / str(entry.get("path", ""))) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReleaseError(f"{folder / MODULES}: cannot be read ({error}); get the file again") from None
    for kind, place in found:
        if not kind.startswith("sentence_transformers."):
            raise ReleaseError(f"{shown}: its module {kind} is code of its own, which is never run here")
        if not place.resolve().is_relative_to(folder.resolve()):
            raise ReleaseError(f"{folder / MODULES}: {place} lies outside the folder")
    return [(kind.rsplit(".", 1)[-1], place) for kind, place in found]


def _pooling_of(values: dict[str, Any], shown: str) -> Pooling:
    stated = values.get("pooling_mode")
    names = [stated] if isinstance(stated, str) else list(stated or [])
    names += [mode for key, mode in _OLD_KEYS.items() if values.get(key) is True]
    if len(names) != 1 or names[0] not in _POOLING:
        raise ReleaseError(
            f"{shown}: pools by {' and '.join(map(str, names)) or 'nothing'}; one of {', '.join(_POOLING)} can be used"
        )
    return _POOLING[names[0]]


def _read_settings(folder: Path, found: SentenceFolder, shown: str) -> None:
    path = found.transformer / "sentence_bert_config.json"
    settings = read_json(path) if path.is_file() else {}
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise ReleaseError(f"{shown}: its transformer is for {task!r}, not for token states")
    way = (settings.get("modality_config") or {}).get("text", {})
    if way and (way.get("method", "forward"), way.get("method_output_name", "last_hidden_state")) != (
        "forward",
        "last_hidden_state",
    ):
        raise ReleaseError(
            f"{shown}: its transformer is read off at {way.get('method_output_name')!r}, not at its last hidden states"
        )
    found.max_length, found.lower = settings.get("max_seq_length"), bool(settings.get("do_lower_case", False))
    path = folder / "config_sentence_transformers.json"
    about = read_json(path) if path.is_file() else {}
    found.prompts = {str(name): str(text) for name, text in (about.get("prompts") or {}).items()}
    found.default_prompt = about.get("default_prompt_name")


class Dense(nn.Module):
    """A linear layer and its activation, optionally added to what goes in.

    Args:
        values: The module's config.json.
        shown: What messages call the model.

    Raises:
        ReleaseError: If its activation is not known here.
    """

    def __init__(self, values: dict[str, Any], shown: str) -> None:
        super().__init__()
        width_in, width_out = int(values["in_features"]), int(values["out_features"])
        name = str(values.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
        if name not in _ACTIVATIONS:
            raise ReleaseError(f"{shown}: its dense layer uses {name!r}; known: {', '.join(_ACTIVATIONS)}")
        if values.get("module_input_name", "sentence_embedding") != "sentence_embedding":
            raise ReleaseError(f"{shown}: its dense layer works on {values['module_input_name']!r}, not on the pooled vector")
        self.linear = nn.Linear(width_in, width_out, bias=bool(values.get("bias", True)))
        self.activation = _ACTIVATIONS[name]()
        self.adds = bool(values.get("use_residual", False))
        self.residual = nn.Linear(width_in, width_out, bias=False) if self.adds and width_in != width_out else None

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, D_in) -> (N, D_out)."""
        out = self.activation(self.linear(vectors))
        return out + (vectors if self.residual is None else self.residual(vectors)) if self.adds else out


class Normalize(nn.Module):
    """Vectors of length one."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return F.normalize(vectors, dim=-1)


def build_head(found: SentenceFolder, shown: str, *, load_weights: bool) -> tuple[nn.Sequential, int | None]:
    """What follows the pooling, and its output width (None if it keeps the width).

    Raises:
        ReleaseError: If a weight is missing.
    """
    layers: list[nn.Module] = []
    width = None
    for kind, place in found.head:
        if kind == "Normalize":
            layers.append(Normalize())
            continue
        values = read_json(place / "config.json")
        dense, width = Dense(values, shown), int(values["out_features"])
        if load_weights:
            file = next((place / name for name in ("model.safetensors", "pytorch_model.bin") if (place / name).is_file()), None)
            if file is None:
                raise ReleaseError(f"{shown}: the dense layer in {place.name} has no weights")
            load_strictly(dense, read_weights(file), f"{shown}: {place.name}")
        layers.append(dense)
    return nn.Sequential(*layers), width
