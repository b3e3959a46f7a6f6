"""An open_clip checkpoint as a model of this zoo, with the vectors that open_clip itself computes."""

from __future__ import annotations

from typing import Any

import torch

from ..encoders.open_clip_source import checkpoint_of
from ..encoders.sources import open_source
from ..errors import ReleaseError
from ..registry import FAMILIES


def load_open_clip(name: str) -> Any:
    """Loads a checkpoint: family `coca` if it has a text decoder, `siglip` if it has a logit bias, else `clip`.

    Args:
        name: `open_clip:MODEL/TAG`, or a folder or hub repository with `open_clip_config.json`.

    Returns:
        The model in eval mode; its own projections are its projectors, its preprocessing is the checkpoint's.

    Raises:
        NameGrammarError: If the name is of no model or tag, or the tag's activation is not the model's.
        ReleaseError: If description and weights do not fit each other, or a file is missing or damaged.
        AssetError: If the weights cannot be fetched.
    """
    checkpoint = checkpoint_of(open_source(name), name, weights=True)
    checkpoint.check_names()
    scalars = checkpoint.part("scalars")
    if "logit_scale" not in scalars:
        raise ReleaseError(f"{checkpoint.file()}: has no logit_scale; is it the file of a whole model?")
    family = "coca" if "multimodal_cfg" in checkpoint.model_cfg else "siglip" if "logit_bias" in scalars else "clip"
    source = {"name": name, "kind": "open_clip"}
    settings: dict[str, Any] = {
        "image": source,
        "text_embedder": dict(source),
        "image_projector": None,
        "text_projector": None,
        "embed_dim": int(checkpoint.model_cfg["embed_dim"]),
    }
    if "logit_bias" in scalars and family == "coca":
        settings["logit_bias_init"] = float(scalars["logit_bias"])
    model = FAMILIES.get(family).from_settings(settings, name)
    with torch.no_grad():
        for key, value in scalars.items():
            own = getattr(model, key)
            own.copy_(value.reshape(own.shape))
    return model.eval()
