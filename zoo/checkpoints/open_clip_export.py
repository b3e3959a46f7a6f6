"""A model of this zoo as a folder that open_clip itself loads (`local-dir:FOLDER`), names and all.

What open_clip has no words for is refused with the reason. What was written is loaded again with open_clip's own loader and compared,
so that an export that would give other vectors is never left behind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..encoders.open_clip_source import to_preprocess_cfg
from ..encoders.text.open_clip_tokenize import HfClipTokenize
from ..errors import ReleaseError
from .durable import put_in_place, staging_for
from .open_clip import CONFIG, WEIGHTS
from .open_clip_towers import image_tower, text_tower
from .weights import unshared

TOLERANCE = 1e-6
_PROBE_TEXTS = ("a photo of a red apple", "two birds on a wire")


def export_open_clip(model: Any, folder: str | Path, *, hf_name: str | None = None) -> Path:
    """Writes `open_clip_config.json`, `open_clip_model.safetensors` and, for a transformers text tower, its files.

    Args:
        model: A dual encoder whose towers and projections open_clip has.
        folder: Where; must not exist, or be empty.
        hf_name: Where open_clip shall find the configuration of a transformers text tower; default its hub name, else this folder
            (which then cannot be moved: open_clip takes names and absolute paths only).

    Returns:
        The folder.

    Raises:
        ReleaseError: If the folder is not empty, a part cannot be expressed (the message says which), or open_clip computes other
            vectors from what was written.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ReleaseError(f"{folder} is not empty; give a new folder")
    description, state = describe(model, str(folder.resolve()) if hf_name is None else hf_name, named=hf_name is not None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_for(folder)
    try:
        _write(model, staging, description, state)
        if folder.exists():
            folder.rmdir()
        put_in_place(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    try:
        _compare(model, folder, description["model_cfg"]["text_cfg"].get("hf_model_name"))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def describe(model: Any, hf_place: str, *, named: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """open_clip's description of a model, and its weights under open_clip's names.

    Args:
        model: A dual encoder.
        hf_place: Where a transformers text tower's configuration shall be looked for, if its source is no hub repository.
        named: Whether `hf_place` was given by the user, and counts in any case.

    Raises:
        ReleaseError: If a part cannot be expressed.
    """
    if not hasattr(model, "image_projector"):
        raise ReleaseError(
            f"family {getattr(model, 'family', type(model).__name__)!r} is no dual encoder; open_clip has no such model"
        )
    vision_cfg, image_quick, image_state = image_tower(model.image, model.image_projector)
    text_cfg, text_quick, text_state, custom = text_tower(model.text, model.text_projector, hf_place, named)
    quick = {value for value in (image_quick, text_quick) if value is not None}
    if len(quick) > 1:
        raise ReleaseError("one tower computes QuickGELU and the other GELU; open_clip has one setting for both")
    cfg: dict[str, Any] = {"embed_dim": int(model.config.embed_dim), "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    state = {f"visual.{name}": value for name, value in image_state.items()}
    state |= {f"text.{name}" if custom else name: value for name, value in text_state.items()}
    cfg |= {"quick_gelu": True} if True in quick else {}
    cfg |= {"custom_text": True} if custom else {}
    if hasattr(model, "decoder"):
        cfg |= {"multimodal_cfg": model.decoder_cfg["multimodal_cfg"], "custom_text": True}
        state |= {f"text_decoder.{name}": value for name, value in model.decoder.state_dict().items()}
    state["logit_scale"] = model.logit_scale.detach().reshape(())
    if model.logit_bias is not None:
        state["logit_bias"] = model.logit_bias.detach().reshape(())
        cfg["init_logit_bias"] = float(model.logit_bias.detach())
    return {"model_cfg": cfg, "preprocess_cfg": to_preprocess_cfg(model.image.preprocess)}, state


def _write(model: Any, folder: Path, description: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    quick = "true" if description["model_cfg"].get("quick_gelu") else "false"
    save_file(unshared(state), folder / WEIGHTS, metadata={"format": "pt", "quick_gelu": quick})
    (folder / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    if description["model_cfg"]["text_cfg"].get("hf_model_name"):
        hf_config = getattr(model.text.model, "config")  # noqa: B009
        hf_config.save_pretrained(folder)
    tokenize = model.text.tokenizer()
    inner = tokenize.inner if isinstance(tokenize, HfClipTokenize) else getattr(tokenize, "tokenizer", None)
    if inner is not None and description["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        inner.save_pretrained(folder)


@torch.inference_mode()
def _compare(model: Any, folder: Path, hf_name: str | None) -> None:
    """Loads the folder with open_clip's own loader and compares vectors of two pictures and two texts."""
    if hf_name is not None and not Path(hf_name).is_dir():
        return  # a hub repository, which need not be within reach
    import open_clip

    try:
        theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except Exception as error:
        raise ReleaseError(
            f"open_clip cannot load what was written ({str(error).splitlines()[0][:200]}), so it was removed"
        ) from error
    theirs.eval()
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((70, 50), (40, 90))]
    images = theirs.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
    texts = theirs.encode_text(tokenizer(list(_PROBE_TEXTS)), normalize=True)
    for what, one, other in (
        ("image", images, model.encode_image(pictures)),
        ("text", texts, model.encode_text(list(_PROBE_TEXTS))),
    ):
        difference = float((one.float().cpu() - other).abs().max())
        if not difference <= TOLERANCE:
            raise ReleaseError(
                f"open_clip computes other {what} vectors from what was written ({difference:.1e} apart), so it was removed; "
                "a part of this model works otherwise there"
            )
