"""A DETR of transformers without its heads: pictures in, states of its object queries out.

Source: "End-to-End Object Detection with Transformers" (arXiv 2005.12872); VPP-LLaVA (arXiv 2503.15426) takes the last decoder layer's
states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.hf_loading import load_checked
from ...encoders.sources import trusted_source
from ...errors import AssemblyError, ReleaseError
from .detector_config import DetectorConfig, as_published, known_network, with_network

_SMALL = 64  # pixels
_WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))


class Detector(nn.Module):
    """Object queries of pictures.

    Batch norms are buffers that never change, as in DETR; nothing of a padded picture is masked, as in VPP-LLaVA's code.

    Args:
        config: Settings with the backbone's network found; `build_detector` finds it.
        detr: The model.
    """

    def __init__(self, config: DetectorConfig, detr: Any) -> None:
        super().__init__()
        self.config = config
        self.detr = detr

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures (M, 3, H, W) -> states of the last decoder layer (M, queries, width)."""
        return self.detr(pixel_values=images.to(self.detr.input_projection.weight.dtype)).last_hidden_state


def build_detector(config: DetectorConfig, release: Path | None = None) -> Detector:
    """Builds a detector.

    Args:
        config: Settings.
        release: A release that supplies the weights; then no source is read.

    Raises:
        AssemblyError: If the backbone does not suit.
        NameGrammarError: If a name is wrong.
        ReleaseError: If a file is missing or damaged.
    """
    if release is not None:
        return Detector(config, _shape(config))
    if config.name is not None:
        return Detector(found := as_published(config), _published(found))
    found, weights = with_network(config)
    detr = _shape(found)
    if weights is not None:
        _fill_backbone(detr.backbone.model, weights, config.backbone.name)
    return Detector(found, detr)


def detr_config(config: DetectorConfig) -> Any:
    """Transformers' configuration of it.

    The batch norms of timm's newer networks hold the activation as well, which `DetrModel` would lose when it freezes them; so timm
    freezes them itself.
    """
    from transformers import DetrConfig, TimmBackboneConfig

    sizes: dict[str, Any] = {
        "d_model": config.width,
        "num_queries": config.queries,
        "dropout": config.dropout,
        "dilation": config.dilation,
    }
    for part, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        sizes |= {f"{part}_layers": layers, f"{part}_attention_heads": config.heads, f"{part}_ffn_dim": config.ffn}
    below: dict[str, Any] = {"backbone": known_network(config.backbone.network or ""), "out_indices": [-1]}
    below |= {"freeze_batch_norm_2d": True, "output_stride": 16 if config.dilation else None}
    return DetrConfig(backbone_config=TimmBackboneConfig(**below), **sizes)


def _shape(config: DetectorConfig) -> Any:
    from transformers import AutoModel

    try:
        detr = AutoModel.from_config(detr_config(config), dtype=torch.float32).eval()
        _try_backbone(detr)
    except (RuntimeError, NotImplementedError, TypeError, AssertionError, AttributeError) as error:
        raise AssemblyError(
            f"model.hooks.vpp_local.detector.backbone: {config.backbone.network} gives DETR no grid of features for pictures of any size "
            f"({' '.join(str(error).split())[:150]}); take a convolutional network such as resnet50"
        ) from error
    return detr


@torch.no_grad()
def _try_backbone(detr: Any) -> None:
    """Some networks take one size of picture alone, or give channels last; a small picture tells."""
    features = detr.backbone.model(torch.zeros(1, 3, _SMALL, _SMALL))[-1]
    if features.shape[1:2] != (detr.input_projection.in_channels,) or features.ndim != 4:
        raise RuntimeError(f"features of shape {tuple(features.shape)}")


def _published(config: DetectorConfig) -> Any:
    from transformers import DetrModel

    folder = trusted_source(config.name or "").with_weights(_WEIGHTS).files()
    return load_checked(DetrModel, folder, str(config.name), {"config": detr_config(config)}).eval()


def _fill_backbone(network: nn.Module, weights: dict[str, Tensor], shown: str) -> None:
    """Puts the weights of a whole network into the part of it that DETR takes."""
    wanted = network.state_dict()
    lacking = [name for name, tensor in wanted.items() if name not in weights or weights[name].shape != tensor.shape]
    if lacking:
        raise ReleaseError(f"{shown}: its weights lack {lacking[0]}; they are of another network than it says")
    network.load_state_dict({name: weights[name] for name in wanted})
