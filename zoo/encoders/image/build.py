"""Image encoders by name: settings, and the factory that finds out which library's model a name or folder holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import AssemblyError, NameGrammarError
from ...registry import ENCODERS
from ..sources import Source, trusted_source
from .base import OUTPUT, ImageEncoder
from .preprocess import MAX_SIDE, ImagePreprocess

__all__ = ["OUTPUT", "ImageEncoder", "ImageEncoderConfig", "build_image_encoder"]


@dataclass
class ImageEncoderConfig:
    """Settings of an image encoder.

    Attributes:
        name: `timm:NAME`, `open_clip:MODEL/TAG`, `hf:ORG/NAME`, `asset:NAME`, or a folder; of the last three, the files say whether
            they are timm's, transformers' or open_clip's.
        image_size: Side of the input; default the checkpoint's own. Position tables are resampled.
        pretrained: Load the checkpoint's weights; False starts from random ones.
        drop_path: Stochastic depth rate while training.
        patch_dropout: Share of the patches left out while training; default what the checkpoint's settings say.
        pooling: For transformers' models: `cls` or `mean` instead of the model's own pooling.
        kind: `timm`, `transformers`, `open_clip` or a registered kind, where a folder holds several.
        options: Settings of a registered kind of one's own.
    """

    name: str = "timm:vit_small_patch16_224"
    image_size: int | None = None
    pretrained: bool = True
    drop_path: float = 0.0
    patch_dropout: float | None = None
    pooling: Literal["cls", "mean"] | None = None
    kind: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def build_image_encoder(
    config: ImageEncoderConfig,
    *,
    load_weights: bool = True,
    preprocess: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> ImageEncoder:
    """Builds an image encoder.

    Args:
        config: Its settings.
        load_weights: False builds the shape only, for weights that come from a release.
        preprocess: Saved preprocessing that stands for the checkpoint's.
        folder: A release's folder to take the network's shape from instead of the name (see `ImageEncoder.save_processor`).

    Raises:
        NameGrammarError: If the name is wrong, or the folder holds no image encoder that is known, or several.
        AssemblyError: If a setting does not go with the encoder.
        ReleaseError: If a file is missing or damaged.
    """
    source = trusted_source(config.name, folder)
    _check_size(config)
    cls: type[ImageEncoder] = ENCODERS.get(f"image.{kind_of(source, config.kind, 'image', config.name)}")
    if cls.__module__.startswith(f"{__package__}."):
        refuse_settings(config, "an encoder of this zoo, only for a registered kind of one's own", options={})
    saved = None if preprocess is None else ImagePreprocess.from_dict(preprocess)
    return cls.build(config, source, load_weights=load_weights, preprocess=saved)


def kind_of(source: Source, stated: str | None, modality: str, shown: str) -> str:
    """Which registered encoder of a modality a source is for: stated, or found from its files.

    Raises:
        NameGrammarError: If none recognises the folder, or several do.
    """
    kinds = [name.removeprefix(f"{modality}.") for name in ENCODERS.names() if name.startswith(f"{modality}.")]
    if stated is not None:
        ENCODERS.get(f"{modality}.{stated}")  # an unknown kind names the nearest
        return stated
    if source.folder is None:
        if source.name.scheme in kinds:
            return source.name.scheme
        raise NameGrammarError(f"{shown}: {'an' if modality == 'image' else 'a'} {modality} encoder is {_FORMS[modality]}")
    found = [kind for kind in kinds if ENCODERS.get(f"{modality}.{kind}").recognises(source.folder)]
    if not found:
        raise NameGrammarError(f"{shown}: {source.folder.name} holds no {modality} encoder; looked for {_LOOKED[modality]}")
    if len(found) > 1:
        raise NameGrammarError(f"{shown}: {source.folder.name} holds a model for {' and for '.join(found)}; say which with kind")
    return found[0]


def _check_size(config: ImageEncoderConfig) -> None:
    if config.image_size is not None and not 1 <= config.image_size <= MAX_SIDE:
        raise AssemblyError(f"{config.name}: image_size: {config.image_size} must be a whole number from 1 to {MAX_SIDE}")


_FORMS = {
    "image": "timm:NAME, open_clip:MODEL/TAG, asset:NAME, hf:ORG/NAME or a folder",
    "text": "asset:NAME, hf:ORG/NAME, open_clip:MODEL/TAG or a folder",
}
_LOOKED = {
    "image": "config.json (timm's or a transformers vision model's) and open_clip_config.json",
    "text": "modules.json (sentence-transformers), config.json (a transformers model) and open_clip_config.json",
}


def refuse_settings(config: ImageEncoderConfig, what: str, **defaults: Any) -> None:
    """Refuses settings that an encoder cannot follow.

    Args:
        config: The settings.
        what: What cannot follow them.
        defaults: Setting -> the value that asks for nothing.

    Raises:
        AssemblyError: Naming the setting.
    """
    for key, default in defaults.items():
        if getattr(config, key) != default:
            raise AssemblyError(f"{config.name}: {key}: {getattr(config, key)!r} has no meaning for {what}; leave it out")
