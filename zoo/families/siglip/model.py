"""SigLIP (Zhai et al. 2023, arXiv 2303.15343): a dual encoder whose logits have a trained bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ..dual_encoder import DualEncoder, DualEncoderConfig


@dataclass
class SigLipConfig(DualEncoderConfig):
    """Settings of SigLIP: those of a dual encoder, with the paper's scale and bias to start from.

    Attributes:
        logit_scale_init: Natural log of the initial scale; log 10.
        logit_bias_init: Initial bias; -10, because nearly all pairs of a batch are negative. big_vision's small example has -2.71.
    """

    logit_scale_init: float = math.log(10.0)
    logit_bias_init: float | None = -10.0


class SigLipModel(DualEncoder):
    """A dual encoder with `logit_bias` among its outputs, for the loss `siglip`."""

    family = "siglip"
    Config = SigLipConfig

    def __init__(self, config: SigLipConfig, *, release: Path | None = None, preprocess: dict[str, Any] | None = None) -> None:
        """See `DualEncoder`.

        Raises:
            RecipeError: If the bias is taken out.
        """
        if config.logit_bias_init is None:
            raise RecipeError(
                "model: siglip needs logit_bias_init: without a bias the sigmoid loss starts far off; take family clip"
            )
        super().__init__(config, release=release, preprocess=preprocess)
