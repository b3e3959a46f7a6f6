"""A stack as a folder that transformers loads as LLaVA, LLaVA-NeXT or LLaVA-OneVision, and so whatever reads those."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.image.hf import HuggingFaceImageEncoder
from ...errors import AssemblyError
from ...language.lora import merge_lora
from ...language.quantized import refuse_quantized
from ..durable import put_in_place, staging_for
from .names import runtime_name

IMAGE_TOKEN = "<image>"
_KINDS = {"own": "llava", "pad": "llava", "squash": "llava", "anyres": "llava_next"}


def export_transformers(model: Any, out: str | Path) -> Path:
    """Writes a folder that `AutoModelForImageTextToText` and `AutoProcessor` load.

    LoRA is folded in; the picture's place becomes a token of its own, with a row in the table where there is room for none.

    Args:
        model: A stack.
        out: The folder; new or empty.

    Raises:
        AssemblyError: If transformers' LLaVA models have no place for a part of it; it says which.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AssemblyError(f"{folder} exists and is not empty; choose another folder")
    _check(model)
    refuse_quantized(model.language, "export --to transformers")
    merge_lora(model.language)
    staging = staging_for(folder)
    try:
        theirs, tokenizer = _hf_model(model)
        theirs.save_pretrained(staging)
        _processor(model, theirs.config, tokenizer).save_pretrained(staging)
        put_in_place(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return folder


def _check(model: Any) -> None:
    """Refuses what transformers' LLaVA models cannot hold.

    Raises:
        AssemblyError: Naming the part.
    """
    if not isinstance(model.image, HuggingFaceImageEncoder):
        raise AssemblyError(
            f"export --to transformers: its image encoder is {model.config.image.name}, which is no transformers model; LLaVA there holds "
            "encoders of transformers alone"
        )
    if len(model.hooks):
        raise AssemblyError(f"export --to transformers: {', '.join(model.hooks)} has no place in transformers' LLaVA")
    projector = model.projector
    plain = type(projector).__name__ == "MlpProjector" and len(projector.layers) == 4 and projector.skip is None
    if not plain or isinstance(projector.norm, torch.nn.LayerNorm):
        raise AssemblyError(
            "export --to transformers: its projector is not LLaVA's (mlp of depth 2 without norm and skip), and no other has a place there"
        )


def _hf_model(model: Any) -> tuple[Any, Any]:
    """Transformers' model with the stack's weights, and its tokenizer, which knows the picture's place."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    tokenizer, image_id = _tokenizer(model)
    text = type(model.language.model.config).from_dict(model.language.model.config.to_dict())
    rows = max(model.language.vocabulary, image_id + 1)
    text.vocab_size, text.use_cache = rows, True
    kind = _kind(model)
    config = AutoConfig.for_model(
        kind,
        vision_config=model.image.model.config.to_dict(),
        text_config=text.to_dict(),
        image_token_index=image_id,
        vision_feature_layer=_layer(model),
        vision_feature_select_strategy="default" if model.image.prefix_tokens and not model.config.keep_prefix else "full",
        tie_word_embeddings=bool(text.tie_word_embeddings),
        **_tiles(model, kind),
    )
    theirs = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    report = theirs.load_state_dict(_state(model, rows), strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if report.unexpected_keys or set(report.missing_keys) - tied:
        raise AssemblyError(
            f"export --to transformers: weights do not fit (missing {report.missing_keys[:3]}, unexpected {report.unexpected_keys[:3]})"
        )
    theirs.tie_weights()
    return theirs.eval(), tokenizer


def _kind(model: Any) -> str:
    if model.config.picture.mode == "anyres" and model.config.picture.most is not None:
        return "llava_onevision"
    return _KINDS[model.config.picture.mode]


def _layer(model: Any) -> int | list[int]:
    layers = model.feature_layers
    if layers == [None]:
        raise AssemblyError(
            "export --to transformers: LLaVA there takes a hidden state by number, and this stack takes the encoder's output behind its "
            "final norm; train it with feature_layer, such as -2"
        )
    return layers[0] if len(layers) == 1 else layers


def _tiles(model: Any, kind: str) -> dict[str, Any]:
    if kind == "llava":
        return {"image_seq_length": model.layout.tokens_per_tile}
    side, picture = model.image.preprocess.size, model.config.picture
    found: dict[str, Any] = {"image_grid_pinpoints": [[rows * side, columns * side] for columns, rows in picture.grids]}
    if kind == "llava_onevision":
        found["vision_aspect_ratio"] = f"anyres_max_{picture.most}"
    return found


def _tokenizer(model: Any) -> tuple[Any, int]:
    import copy

    tokenizer = copy.deepcopy(model.language.tokenizer)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    return tokenizer, int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))


def _state(model: Any, rows: int) -> dict[str, Tensor]:
    """The stack's weights by transformers' names; tables grown to `rows` by zeros, which no text reaches."""
    body, state = model.language.model.base_model_prefix, {}
    for name, tensor in model.state_dict().items():
        own = runtime_name(name, body)
        if own is None:
            raise AssemblyError(f"export --to transformers: {name} has no place in transformers' LLaVA")
        state[own] = tensor
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        if name in state and len(state[name]) < rows:
            grown = state[name].new_zeros(rows, state[name].shape[1])
            grown[: len(state[name])] = state[name]
            state[name] = grown
    return state


def _processor(model: Any, config: Any, tokenizer: Any) -> Any:
    """Transformers' processor for it: the same pixels, and placeholders counted alike."""
    import transformers

    preprocess, kind = model.image.preprocess, config.model_type
    common: dict[str, Any] = {
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "resample": {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[preprocess.interpolation],
    }
    side = preprocess.size
    square = {"height": side, "width": side}
    if kind == "llava" and model.config.picture.mode == "pad":
        images: Any = transformers.LlavaImageProcessor(size={"shortest_edge": side}, crop_size=square, do_pad=True, **common)
    elif kind == "llava" and preprocess.resize_mode == "squash":
        images = transformers.CLIPImageProcessor(size=square, do_center_crop=False, **common)
    elif kind == "llava":
        images = transformers.CLIPImageProcessor(size={"shortest_edge": preprocess.resized_side}, crop_size=square, **common)
    elif kind == "llava_next":
        images = transformers.LlavaNextImageProcessor(
            size={"shortest_edge": side}, crop_size=square, image_grid_pinpoints=config.image_grid_pinpoints, **common
        )
    else:
        images = transformers.LlavaOnevisionImageProcessor(
            size=square, image_grid_pinpoints=config.image_grid_pinpoints, **common
        )
    settings: dict[str, Any] = {
        "image_processor": images,
        "tokenizer": tokenizer,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "chat_template": getattr(tokenizer, "chat_template", None),
        "image_token": IMAGE_TOKEN,
    }
    extra = model.image.prefix_tokens
    if kind == "llava":
        return transformers.LlavaProcessor(
            patch_size=model.image.model.config.patch_size, num_additional_image_tokens=extra, **settings
        )
    if kind == "llava_next":
        return transformers.LlavaNextProcessor(
            patch_size=model.image.model.config.patch_size, num_additional_image_tokens=extra, **settings
        )
    video = transformers.LlavaOnevisionVideoProcessor(size=square, **common)
    return transformers.LlavaOnevisionProcessor(
        num_image_tokens=model.layout.tokens_per_tile,
        vision_aspect_ratio=config.vision_aspect_ratio,
        video_processor=video,
        **settings,
    )
