"""Settings of the detector whose object queries a stack takes, and what of them is read from its sources."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import timm
from torch import Tensor

from ...encoders.image.build import ImageEncoderConfig, build_image_encoder
from ...encoders.image.timm import TimmImageEncoder
from ...encoders.sources import trusted_source
from ...errors import AssemblyError, NameGrammarError, RecipeError, ReleaseError
from ...names import parse_name

_WHERE = "model.hooks.vpp_local.detector"


@dataclass
class BackboneConfig:
    """Settings of the detector's convolutional network.

    Attributes:
        name: `timm:NAME`, or an asset, a folder or a repository in timm's layout.
        pretrained: Start from its weights; False starts from random ones.
        network: Timm's name of the network; found from `name`.
    """

    name: str = "timm:resnet101"
    pretrained: bool = False
    network: str | None = None


@dataclass
class DetectorConfig:
    """Settings of a DETR.

    Attributes:
        name: `hf:ORG/NAME`, an asset or a folder of transformers with a DETR, whose sizes and weights are taken; default random weights.
        backbone: The network below it, unless `name` brings one.
        width: d of a query.
        queries: Object queries: the tokens of a picture.
        encoder_layers: Transformer layers over the picture.
        decoder_layers: Transformer layers over the queries.
        heads: Of their attention.
        ffn: Hidden units of their feed-forward layers.
        dropout: While it trains.
        dilation: Keep the backbone's last stage at stride 16 (DC5), for four times the memory tokens; weights are the same either way.
    """

    name: str | None = None
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    width: int = 256
    queries: int = 100
    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    ffn: int = 2048
    dropout: float = 0.1
    dilation: bool = False

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a number is out of range.
        """
        counts = ("width", "queries", "encoder_layers", "decoder_layers", "heads", "ffn")
        if wrong := next((name for name in counts if getattr(self, name) < 1), None):
            raise RecipeError(f"{_WHERE}.{wrong}: {getattr(self, wrong)} must be 1 or more")
        if self.width % 4 or self.width % self.heads:
            raise RecipeError(f"{_WHERE}.width: {self.width} must be a multiple of 4 and of heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"{_WHERE}.dropout: {self.dropout:g} must be at least 0 and below 1")


def with_network(config: DetectorConfig) -> tuple[DetectorConfig, dict[str, Tensor] | None]:
    """The settings with the backbone's network found, and its weights where they are wanted.

    Raises:
        AssemblyError: If the backbone is no network of timm.
        NameGrammarError: If its name is wrong.
        ReleaseError: If a file is missing or damaged.
    """
    backbone = config.backbone
    if not backbone.pretrained and parse_name(backbone.name).scheme == "timm":
        return replace(config, backbone=replace(backbone, network=known_network(parse_name(backbone.name).rest))), None
    encoder = build_image_encoder(ImageEncoderConfig(backbone.name, pretrained=backbone.pretrained))
    if not isinstance(encoder, TimmImageEncoder):
        raise AssemblyError(
            f"{_WHERE}.backbone: {backbone.name} is no network of timm, which DETR's backbone is; name one in timm's layout"
        )
    network = known_network(encoder.trunk.pretrained_cfg["architecture"])
    found = replace(config, backbone=replace(backbone, network=network))
    return found, dict(encoder.trunk.state_dict()) if backbone.pretrained else None


def known_network(name: str) -> str:
    """A name that timm builds a network by, and nothing that it would fetch or read.

    Raises:
        NameGrammarError: If timm has no such network.
    """
    if ":" in name or not timm.is_model(name):
        raise NameGrammarError(f"{_WHERE}.backbone: timm has no network {name!r}; see timm.list_models()")
    return name


def as_published(config: DetectorConfig) -> DetectorConfig:
    """The settings with the sizes of the DETR that `name` names; dilation stays as it was set, for weights do not depend on it.

    Raises:
        ReleaseError: If the folder holds no DETR on a network of timm.
    """
    from transformers import AutoConfig

    try:
        found: Any = AutoConfig.from_pretrained(trusted_source(config.name or "").files(), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ReleaseError(f"{config.name}: its configuration cannot be used ({error}); get the folder again") from error
    below: Any = getattr(found, "backbone_config", None)
    if found.model_type != "detr" or getattr(below, "model_type", "") != "timm_backbone":
        raise ReleaseError(
            f"{config.name}: a {found.model_type} is no DETR on a network of timm; take one such as facebook/detr-resnet-101"
        )
    if (found.position_embedding_type, found.activation_function) != ("sine", "relu"):
        raise ReleaseError(
            f"{config.name}: a DETR with other positions than sines, or another activation than relu; take another"
        )
    if (found.encoder_attention_heads, found.encoder_ffn_dim) != (found.decoder_attention_heads, found.decoder_ffn_dim):
        raise ReleaseError(f"{config.name}: a DETR whose encoder and decoder differ in heads or hidden units; take another")
    return replace(
        config,
        backbone=BackboneConfig(f"timm:{below.backbone}", False, known_network(below.backbone)),
        width=found.d_model,
        queries=found.num_queries,
        encoder_layers=found.encoder_layers,
        decoder_layers=found.decoder_layers,
        heads=found.encoder_attention_heads,
        ffn=found.encoder_ffn_dim,
        dropout=found.dropout,
    )
