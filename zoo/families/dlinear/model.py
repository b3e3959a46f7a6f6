"""DLinear: a window is split into a moving average and the rest, each goes through one linear layer over time (Zeng et al. 2023).

`y = W_s (x - A x) + b_s + W_t (A x) + b_t` for every channel alike, A the moving average of `kernel` steps with the ends repeated.
The honest baseline of every table of forecasts: about 19,000 numbers, trained in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import AssemblyError, RecipeError
from ...series.base import SeriesModel, SeriesModelConfig
from ...series.description import SeriesDescription
from ...series.window import check_window, filled


@dataclass
class DLinearConfig(SeriesModelConfig):
    """Settings of DLinear.

    Attributes:
        kernel: Steps of the moving average, odd.
        individual: A pair of linear layers for each channel instead of one for all.
    """

    kernel: int = 25
    individual: bool = False

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a length is below one, or the kernel is even: then no step would be its middle.
        """
        super().__post_init__()
        if not 1 <= self.kernel < 2**20 or self.kernel % 2 == 0:
            raise RecipeError(f"model.kernel: {self.kernel} must be an odd number of steps, 1 or more (25 is usual)")


def moving_average(values: Tensor, kernel: int) -> Tensor:
    """Mean over `kernel` steps around each step, the first and the last value repeated beyond the ends.

    Args:
        values: (B, C, L).
        kernel: Odd number of steps.

    Returns:
        (B, C, L).
    """
    half = kernel // 2
    return F.avg_pool1d(F.pad(values, (half, half), mode="replicate"), kernel, stride=1)


class DLinearModel(SeriesModel):
    """DLinear: time series by one linear layer for the trend and one for the rest, weights starting at 1/L as its authors wrote it.

    A missing value is taken to be the last one observed before it, or the window's mean if there is none (`series/window.py`): the
    linear layers have a weight for every step and cannot leave one out. Past, known-future and static columns are refused.

    Args:
        config: Settings.
        release: Not needed: nothing is pretrained.
    """

    family = "dlinear"
    Config = DLinearConfig
    parts = {"layers": ("seasonal.", "trend.")}
    tasks = ("forecast", "short_term")

    def __init__(self, config: DLinearConfig, *, release: Path | None = None) -> None:
        super().__init__(config, release=release)
        self.seasonal: nn.ModuleList | None = None
        self.trend: nn.ModuleList | None = None
        if not config.individual:
            self._build(1)
        elif config.series is not None:
            self._build(len(config.series.channels))

    def _build(self, count: int) -> None:
        """`count` pairs of layers: one for all channels, or one for each."""
        self.seasonal, self.trend = (nn.ModuleList(self._layer() for _ in range(count)) for _ in range(2))

    def _layer(self) -> nn.Linear:
        layer = nn.Linear(self.config.look_back, self.config.horizon)
        nn.init.constant_(layer.weight, 1 / self.config.look_back)
        return layer

    def describe(self, description: SeriesDescription) -> None:
        """Takes columns and scaler; with `individual`, also builds a pair of layers for each channel.

        Raises:
            AssemblyError: If there are columns DLinear cannot use, or not as many channels as there are layers already.
        """
        self.refuse_unused(description)  # first: other layers would not help
        count = len(description.channels)
        if self.config.individual and self.seasonal is not None and len(self.seasonal) != count:
            raise AssemblyError(
                f"model.individual: this model has layers for {len(self.seasonal)} channels, the data have {count}; take a model with "
                "individual: false, whose layers serve any channel"
            )
        super().describe(description)
        if self.seasonal is None:
            self._build(count)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Forecasts every channel.

        Args:
            batch: `values` (B, L, C) and, where something is missing, `observed` (B, L, C).

        Returns:
            `prediction` (B, H, C).

        Raises:
            AssemblyError: If the window is not as long as the look-back, or layers of channels do not fit the channels.
        """
        values = batch["values"]
        check_window(values, self.config.look_back, self.family)
        series = filled(values, batch.get("observed")).transpose(1, 2)
        average = moving_average(series, self.config.kernel)
        predicted = self._layered(self.seasonal, series - average) + self._layered(self.trend, average)
        return {"prediction": predicted.transpose(1, 2)}

    def _layered(self, layers: nn.ModuleList | None, series: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, H)."""
        if not self.config.individual and layers is not None:
            return layers[0](series)
        if layers is None or len(layers) != series.shape[1]:
            raise AssemblyError(
                f"model.individual: there are layers for {len(layers or ())} channels, the window has {series.shape[1]}; tell the "
                "model its columns first (describe), or set individual: false"
            )
        return torch.stack([layer(series[:, channel]) for channel, layer in enumerate(layers)], 1)

    def role_of(self, parameter: str) -> str:
        """Everything is `head`."""
        return "head"
