"""PatchTST: every channel alone is cut into patches that a small transformer reads (Nie et al. 2023), through transformers' own class.

The end of the window is repeated for one stride more, so there are `floor((L - size) / stride) + 2` patches; each window is normalised
by its own mean and standard deviation, and the forecast brought back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import AssemblyError, RecipeError
from ...series.base import SeriesModel, SeriesModelConfig
from ...series.window import check_window, filled


@dataclass
class PatchTstConfig(SeriesModelConfig):
    """Settings of PatchTST; the defaults are the authors' for all but their smallest data sets.

    Attributes:
        patch_size: Steps of a patch.
        stride: Steps from one patch to the next.
        width: D of the transformer.
        layers: Its layers.
        heads: Heads of its attention.
        ffn: Width of its feed-forward layers.
        dropout: Of positions, in feed-forward layers and on residual branches; the authors have none on attention weights.
        head_dropout: Before the last linear layer.
        pre_norm: Normalise before each layer (as transformers does) or after it (as the authors do).
    """

    patch_size: int = 16
    stride: int = 8
    width: int = 128
    layers: int = 3
    heads: int = 16
    ffn: int = 256
    dropout: float = 0.2
    head_dropout: float = 0.0
    pre_norm: bool = False

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a size is below one, the width is no multiple of the heads, or a dropout is no share.
        """
        super().__post_init__()
        for name in ("patch_size", "stride", "width", "layers", "heads", "ffn"):
            if not 1 <= getattr(self, name) <= 2**16:
                raise RecipeError(f"model.{name}: {getattr(self, name)} must be a whole number from 1 to {2**16}")
        if self.width % self.heads or self.width % 2:
            raise RecipeError(f"model.width: {self.width} must be even and a multiple of model.heads, {self.heads}")
        for name in ("dropout", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"model.{name}: {getattr(self, name)} must be from 0 to below 1")


class PatchTstModel(SeriesModel):
    """PatchTST: time series as patches through a small transformer, one set of weights for all channels, so any number can be forecast.

    A missing value is left out of the window's mean and standard deviation and is then taken to be the last one observed before it
    (`series/window.py`). Past, known-future and static columns are refused.

    Args:
        config: Settings.
        release: Not needed: nothing is pretrained.

    Raises:
        AssemblyError: If the look-back is not longer than a patch.
    """

    family = "patchtst"
    Config = PatchTstConfig
    parts = {"encoder": ("body.model.",), "head": ("body.head.",)}
    tasks = ("forecast", "short_term")

    def __init__(self, config: PatchTstConfig, *, release: Path | None = None) -> None:
        super().__init__(config, release=release)
        if config.look_back < config.patch_size:
            raise AssemblyError(
                f"model.look_back: {config.look_back} steps are fewer than a patch of {config.patch_size} (model.patch_size); take a "
                "longer look-back or smaller patches"
            )
        self.body = _body(config)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Forecasts every channel by itself.

        Args:
            batch: `values` (B, L, C) and, where something is missing, `observed` (B, L, C).

        Returns:
            `prediction` (B, H, C).

        Raises:
            AssemblyError: If the window is not as long as the look-back.
        """
        values, observed = batch["values"], batch.get("observed")
        check_window(values, self.config.look_back, self.family)
        known = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        # transformers cuts no padded patch of its own; the mask keeps the repeated steps out of mean and standard deviation
        rows = F.pad(_by_channel(filled(values, observed)), (0, self.config.stride), mode="replicate")
        mask = F.pad(_by_channel(known), (0, self.config.stride), value=False)
        found = self.body(past_values=rows.transpose(1, 2), past_observed_mask=mask.transpose(1, 2)).prediction_outputs
        return {"prediction": found.reshape(len(values), values.shape[2], self.config.horizon).transpose(1, 2)}

    def role_of(self, parameter: str) -> str:
        """`head` for the last linear layer, `encoder` for everything else."""
        return "head" if parameter.startswith("body.head.") else "encoder"


def _by_channel(values: Tensor) -> Tensor:
    """(B, L, C) -> (B C, 1, L): one row for each channel of each window."""
    return values.transpose(1, 2).reshape(-1, 1, values.shape[1])


def _body(config: PatchTstConfig) -> Any:
    from transformers import PatchTSTConfig, PatchTSTForPrediction

    settings = PatchTSTConfig(
        num_input_channels=1,
        context_length=config.look_back + config.stride,
        prediction_length=config.horizon,
        patch_length=config.patch_size,
        patch_stride=config.stride,
        d_model=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        ffn_dim=config.ffn,
        ff_dropout=config.dropout,
        path_dropout=config.dropout,
        positional_dropout=config.dropout,
        head_dropout=config.head_dropout,
        pre_norm=config.pre_norm,
        scaling="std",
        pooling_type=None,  # flatten, as the authors do
        do_mask_input=False,
    )
    return PatchTSTForPrediction(settings)
