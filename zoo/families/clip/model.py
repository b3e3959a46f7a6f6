"""CLIP (Radford et al. 2021): an image encoder and a text encoder, pretrained or not, in one space."""

from __future__ import annotations

from ..dual_encoder import DualEncoder, DualEncoderConfig


class ClipModel(DualEncoder):
    """The dual encoder as it is; LiT is the recipe that freezes its image encoder."""

    family = "clip"
    Config = DualEncoderConfig
