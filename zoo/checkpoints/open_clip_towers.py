"""Encoders and projectors of this zoo in open_clip's words: a configuration, and weights under its names."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..encoders.image.base import ImageEncoder
from ..encoders.image.open_clip import OpenClipImageEncoder
from ..encoders.image.timm import TimmImageEncoder
from ..encoders.projection import MatrixProjection
from ..encoders.text.base import TextEncoder
from ..encoders.text.embedder import TextEmbedder
from ..encoders.text.long_text import LongTextTower
from ..encoders.text.open_clip import OpenClipTextEncoder
from ..errors import ReleaseError
from ..projectors.linear import LinearProjector
from ..projectors.mlp import MlpProjector

State = dict[str, Tensor]
_POOLERS = {"mean": "mean_pooler", "cls": "cls_last_hidden_state_pooler"}


def image_tower(encoder: ImageEncoder, projector: nn.Module) -> tuple[dict[str, Any], bool | None, State]:
    """(vision_cfg, quick_gelu, weights) of an image encoder with its projector; quick_gelu None where open_clip ignores it.

    Raises:
        ReleaseError: If open_clip has no such tower or projection.
    """
    if isinstance(encoder, OpenClipImageEncoder):
        cfg = copy.deepcopy(encoder.model_cfg["vision_cfg"])
        quick = None if encoder.tower == "timm" else bool(encoder.model_cfg.get("quick_gelu", False))
        return (
            cfg,
            quick,
            _own(encoder.model) | _rejoined(projector, "proj" if encoder.tower == "vit" else "head.", "image_projector"),
        )
    if not isinstance(encoder, TimmImageEncoder):
        raise ReleaseError(f"open_clip has no image tower of the kind {type(encoder).__name__} ({encoder.config.name})")
    if encoder.width != encoder.token_width:
        raise ReleaseError(f"open_clip cannot put a projection on {encoder.config.name}, which pools through a wider layer")
    cfg = {
        "image_size": encoder.preprocess.size,
        "timm_model_name": encoder.trunk.pretrained_cfg["architecture"],
        "timm_pool": "",
        **_timm_projection(projector, encoder),
    }
    state = {f"trunk.{name}": value for name, value in encoder.trunk.state_dict().items()}
    return cfg, None, state | _timm_head(projector)


def _own(model: nn.Module) -> State:
    return dict(model.state_dict())


def _rejoined(projector: nn.Module, prefix: str, where: str) -> State:
    """A projection that was split off its tower, under its old name; nothing for a tower that still has it."""
    if isinstance(projector, nn.Identity):
        return {}
    if isinstance(projector, MatrixProjection):
        return {prefix: projector.weight.detach()}
    if isinstance(projector, LinearProjector | MlpProjector) or hasattr(projector, "width_in"):
        raise ReleaseError(f"{where}: open_clip has no further projection after a tower's own ({type(projector).__name__})")
    return {f"{prefix}{name}": value for name, value in projector.state_dict().items()}


def _timm_projection(projector: nn.Module, encoder: TimmImageEncoder) -> dict[str, Any]:
    if isinstance(projector, nn.Identity):
        pool = getattr(encoder.trunk, "global_pool", "avg")
        return {"timm_proj": "none", "timm_pool": pool if isinstance(pool, str) else str(getattr(pool, "pool_type", "avg"))}
    if isinstance(projector, LinearProjector) and isinstance(projector.norm, nn.Identity):
        return {"timm_proj": "linear", "timm_proj_bias": projector.linear.bias is not None}
    if isinstance(projector, MlpProjector) and _is_timms_mlp(projector):
        return {"timm_proj": "mlp", "timm_proj_bias": True}
    raise ReleaseError(
        "image_projector: open_clip has one linear map (without norm), or an mlp of depth 2 whose hidden width is twice the joint width; "
        f"not this {type(projector).__name__}"
    )


def _is_timms_mlp(projector: MlpProjector) -> bool:
    maps = [layer for layer in projector.layers if isinstance(layer, nn.Linear)]
    plain = projector.skip is None and isinstance(projector.norm, nn.Identity)
    return plain and len(maps) == 2 and maps[0].out_features == 2 * projector.width_out


def _timm_head(projector: nn.Module) -> State:
    if isinstance(projector, LinearProjector):
        return {f"head.proj.{name}": value for name, value in projector.linear.state_dict().items()}
    if not isinstance(projector, MlpProjector):
        return {}
    first, second = (layer for layer in projector.layers if isinstance(layer, nn.Linear))
    layers = {"fc1": first, "fc2": second}
    return {f"head.mlp.{place}.{name}": value for place, layer in layers.items() for name, value in layer.state_dict().items()}


def text_tower(
    encoder: TextEncoder, projector: nn.Module, hf_place: str, named: bool
) -> tuple[dict[str, Any], bool | None, State, bool]:
    """(text_cfg, quick_gelu, weights, whether it is a CustomTextCLIP's) of a text encoder with its projector.

    Args:
        encoder: The encoder.
        projector: Its projector.
        hf_place: Where a transformers tower's configuration shall be looked for, if its source is no hub repository.
        named: Whether `hf_place` counts in any case.

    Raises:
        ReleaseError: If open_clip has no such tower or projection.
    """
    if getattr(encoder, "prefix", "") or getattr(encoder.config, "prefix", ""):
        raise ReleaseError("open_clip's tokenizers put nothing before a text, and this model's prefix would be lost")
    if isinstance(encoder, OpenClipTextEncoder):
        return _own_text(encoder, projector, hf_place, named)
    if not isinstance(encoder, TextEmbedder):
        raise ReleaseError(f"open_clip has no text tower of the kind {type(encoder).__name__}")
    return _hf_text(encoder, projector, hf_place, named)


def _own_text(
    encoder: OpenClipTextEncoder, projector: nn.Module, hf_place: str, named: bool
) -> tuple[dict[str, Any], bool | None, State, bool]:
    hf = not hasattr(encoder.model, "token_embedding")
    cfg = encoder.plain_cfg() if isinstance(encoder, LongTextTower) else copy.deepcopy(encoder.model_cfg)
    text_cfg, quick = cfg["text_cfg"], None if hf else bool(cfg.get("quick_gelu", False))
    if hf:
        text_cfg["hf_model_name"] = _hf_name(str(text_cfg["hf_model_name"]), hf_place, named)
    if text_cfg.get("hf_tokenizer_name"):
        text_cfg["hf_tokenizer_name"] = _hf_name(str(text_cfg["hf_tokenizer_name"]), hf_place, named)
    state = _own(encoder.model)
    if isinstance(encoder, LongTextTower):
        state["positional_embedding"] = encoder.positions().detach()
    linear = isinstance(projector, nn.Linear)
    state |= _rejoined(projector, "proj." if hf else "text_projection." if linear else "text_projection", "text_projector")
    return text_cfg, quick, state, bool(cfg.get("custom_text", True)) or hf


def _hf_text(
    encoder: TextEmbedder, projector: nn.Module, hf_place: str, named: bool
) -> tuple[dict[str, Any], bool | None, State, bool]:
    from open_clip.hf_configs import arch_dict

    kind = encoder.model.config.model_type
    if kind not in arch_dict:
        raise ReleaseError(f"open_clip has no text tower for models of type {kind!r} (it has {', '.join(arch_dict)})")
    if encoder.pooling not in _POOLERS or len(encoder.head) or encoder._lower:
        what = f"pooling {encoder.pooling!r}" if encoder.pooling not in _POOLERS else "layers after the pooling, or lower case"
        raise ReleaseError(f"open_clip's text towers have no {what}; they pool by {' or '.join(_POOLERS)}")
    if encoder.model.config.pad_token_id is None:
        raise ReleaseError("open_clip finds padding by the configuration's pad_token_id, and this model has none")
    name = encoder.config.name.removeprefix("hf:") if encoder.config.name.startswith("hf:") else hf_place
    text_cfg = {
        "hf_model_name": hf_place if named else name,
        "hf_tokenizer_name": hf_place if named else name,
        "hf_pooler_type": _POOLERS[encoder.pooling],
        "hf_proj_type": "linear",
        "context_length": encoder.max_length,
    }
    if (
        not isinstance(projector, LinearProjector)
        or not isinstance(projector.norm, nn.Identity)
        or projector.linear.bias is not None
    ):
        raise ReleaseError(
            "text_projector: after a transformers tower open_clip has one linear map without bias or norm (its mlp has no biases either); "
            f"not this {type(projector).__name__}"
        )
    state = {f"transformer.{key}": value for key, value in encoder.model.state_dict().items()}
    return text_cfg, None, state | {"proj.weight": projector.linear.weight.detach()}, True


def _hf_name(stated: str, hf_place: str, named: bool) -> str:
    """A hub name stays; a folder of some machine becomes the export's own."""
    is_path = stated == "." or stated.startswith((".", "/", "~")) or Path(stated).is_dir()
    return hf_place if named or is_path else stated
