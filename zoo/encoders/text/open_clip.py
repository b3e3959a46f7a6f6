"""Text towers of open_clip: CLIP's own, SigLIP's, CoCa's, and transformers' models with its heads, whole with their projection."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.open_clip import CONFIG, is_open_clip_folder
from ...checkpoints.weights import load_strictly
from ...errors import AssemblyError, ReleaseError
from ..hf_loading import checkpoint_body
from ..layers import Depths
from ..open_clip_source import checkpoint_of
from ..projection import MatrixProjection
from ..sources import Source, read_json, refuse_remote_code
from .base import TextEncoder
from .open_clip_tokenize import ClipTokenize, HfClipTokenize, build_tokenize


class OpenClipTextEncoder(TextEncoder):
    """A text tower of open_clip with its tokenizer; its vector lies in the checkpoint's joint space.

    Attributes:
        model_cfg: embed_dim, text_cfg and quick_gelu, as open_clip writes them.
    """

    fixed_length = True

    def __init__(self, config: Any, model: Any, model_cfg: dict[str, Any], tokenize: Any) -> None:
        """Wraps a tower; `build` makes one from a name.

        Args:
            config: A `TextEmbedderConfig`.
            model: open_clip's `TextTransformer` or `HFTextEncoder`.
            model_cfg: What it was built from.
            tokenize: Its tokenizer.
        """
        super().__init__()
        self.config = config
        self.model = model
        self.model_cfg = model_cfg
        self._tokenize = tokenize
        self.width = int(model_cfg["embed_dim"])

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """open_clip's own description, with a text tower."""
        return is_open_clip_folder(folder) and "text_cfg" in read_json(folder / CONFIG).get("model_cfg", {})

    @classmethod
    def build(cls, config: Any, source: Source, *, load_weights: bool) -> OpenClipTextEncoder:
        """See `TextEncoder.build`.

        Raises:
            AssemblyError: If a setting does not go with the tower.
            ReleaseError: If weights and description do not fit each other.
        """
        _refuse_settings(config)
        checkpoint = checkpoint_of(source, config.name, weights=config.pretrained and load_weights)
        folder = checkpoint.folder or source.folder
        model_cfg = {
            "embed_dim": int(checkpoint.model_cfg["embed_dim"]),
            "text_cfg": copy.deepcopy(checkpoint.model_cfg["text_cfg"]),
            "quick_gelu": bool(checkpoint.model_cfg.get("quick_gelu", False)),
            "custom_text": bool(checkpoint.model_cfg.get("custom_text", False)),
        }
        model = build_text(model_cfg, folder, config.name)
        if checkpoint.weights is not None:
            load_strictly(model, checkpoint.part("text"), f"{checkpoint.name}: text tower")
        tokenize = build_tokenize(model_cfg["text_cfg"], folder, _pad_id(model), _prefix(config), config.name)
        return cls(config, model.eval(), model_cfg, tokenize)

    def tokenizer(self) -> ClipTokenize | HfClipTokenize:
        """See `TextEncoder.tokenizer`."""
        return self._tokenize

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids -> (N, D); the tower finds the end or the padding by itself."""
        return self.pooled_and_tokens(ids)[0]

    def pooled_and_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The vectors and, of towers that give them (CoCa's), the token states a decoder goes on from."""
        out = self.model(ids)
        return out if isinstance(out, tuple) else (out, None)

    def identity(self) -> dict[str, Any]:
        """Settings that change the vectors."""
        return {
            "text_cfg": _public_cfg(self.model_cfg["text_cfg"]),
            "quick_gelu": self.quick_gelu,
            "prefix": _prefix(self.config),
        }

    def split_projection(self) -> nn.Module | None:
        """See `ImageEncoder.split_projection`."""
        projection: nn.Module | None = None
        if hasattr(self.model, "token_embedding"):
            own = self.model.text_projection
            self.model.text_projection = None
            projection = MatrixProjection(own) if isinstance(own, nn.Parameter) else own
            self.width = int(self.model.width) if own is not None else self.width
        elif not isinstance(self.model.proj, nn.Identity):
            projection, self.model.proj = self.model.proj, nn.Identity()
            self.width = int(next(projection.parameters()).shape[1])
        self.__dict__.pop("_depths", None)
        return projection

    @cached_property
    def _depths(self) -> Depths:
        return Depths(self.model)

    @property
    def num_layers(self) -> int:
        """See `TextEncoder.num_layers`."""
        return self._depths.count

    def layer_of(self, parameter: str) -> int:
        """See `TextEncoder.layer_of`."""
        return self._depths[parameter.removeprefix("model.")]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TextEncoder.set_grad_checkpointing`."""
        if hasattr(self.model, "token_embedding"):
            self.model.set_grad_checkpointing(enable)
        else:
            checkpoint_body(self.model.transformer, "this text encoder", enable)

    def save_processor(self, folder: Path) -> None:
        """Writes the tower's description in open_clip's own layout, a transformers model's configuration and tokenizer files."""
        public = {**self.model_cfg, "text_cfg": _public_cfg(self.model_cfg["text_cfg"])}
        (folder / CONFIG).write_text(json.dumps({"model_cfg": public}, indent=2) + "\n", encoding="utf-8")
        if hasattr(self.model, "config"):
            self.model.config.save_pretrained(folder)
        if isinstance(self._tokenize, HfClipTokenize):
            self._tokenize.inner.save_pretrained(folder)


def build_text(model_cfg: dict[str, Any], folder: Path | None, shown: str) -> Any:
    """open_clip's text tower with random weights.

    Args:
        model_cfg: embed_dim, text_cfg and quick_gelu.
        folder: Where a transformers tower's config.json may lie, if its own name leads nowhere.
        shown: What messages call the model.

    Raises:
        ReleaseError: If open_clip cannot build it.
        AssetError: If a transformers tower's configuration cannot be had.
    """
    from open_clip.model import CLIPTextCfg, _build_text_tower

    text_cfg = {**model_cfg["text_cfg"], "hf_model_pretrained": False}
    if text_cfg.get("hf_model_name"):
        text_cfg["hf_model_name"] = str(_hf_folder(str(text_cfg["hf_model_name"]), folder))
    try:
        return _build_text_tower(model_cfg["embed_dim"], CLIPTextCfg(**text_cfg), bool(model_cfg.get("quick_gelu", False)))
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, OSError) as error:
        raise ReleaseError(f"{shown}: open_clip cannot build a text tower from its text_cfg ({error})") from error


def _hf_folder(named: str, folder: Path | None) -> Path:
    """Where the configuration of a transformers tower lies: the folder of that name, the checkpoint's own, or the hub's.

    The checkpoint's own folder stands in where the name is of a place that is not here: a release or an export that was moved.
    """
    own = folder is not None and (folder / "config.json").is_file()
    if named != "." and Path(named).is_dir():
        place = Path(named)
    elif own and (Path(named).is_absolute() or named.startswith(".")):
        assert folder is not None
        place = folder
    else:
        from ...checkpoints.hub import fetch

        place = fetch(named)
    refuse_remote_code(place)
    return place


def _public_cfg(text_cfg: dict[str, Any]) -> dict[str, Any]:
    """Settings of a tower without folders of this machine: `.` stands for the folder the description lies in."""
    named = {key: text_cfg[key] for key in ("hf_model_name", "hf_tokenizer_name") if text_cfg.get(key)}
    hidden = {
        key: "." for key, value in named.items() if Path(value).is_dir() or Path(value).is_absolute() or value.startswith(".")
    }
    return {**text_cfg, **hidden}


def _pad_id(model: Any) -> int:
    return int(model.config.pad_token_id) if hasattr(model, "config") else int(model.pad_id)


def _prefix(config: Any) -> str:
    return str(getattr(config, "prefix", ""))


def _refuse_settings(config: Any) -> None:
    for key in ("pooling", "max_length", "bidirectional", "prompt"):
        if getattr(config, key) is not None:
            raise AssemblyError(f"{config.name}: {key}: an open_clip text tower has its own; leave it out")


def causal_mask(length: int) -> Tensor:
    """(T, T) with -inf above the diagonal, as open_clip's towers add it."""
    return torch.full((length, length), float("-inf")).triu_(1)
