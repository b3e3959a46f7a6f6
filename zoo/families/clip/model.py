"""CLIP (Radford et al. 2021): an image encoder and a text encoder, pretrained or not, in one space."""

from __future__ import annotations

from ..dual_encoder import DualEncoder, DualEncoderConfig


class ClipModel(DualEncoder):
    """Two encoders, two projections, one joint space, a learned scale: the plain CLIP."""

    family = "clip"
    Config = DualEncoderConfig
