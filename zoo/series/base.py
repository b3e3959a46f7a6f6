"""The contract of a model of time series: what it is given, what it returns, what it must say about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..configure import fill
from ..errors import AssemblyError, RecipeError
from .description import SeriesDescription

SeriesTask = Literal["forecast", "imputation", "anomaly", "classification", "short_term"]


@dataclass
class SeriesModelConfig:
    """Settings that every model of time series has.

    Attributes:
        look_back: L, steps a model sees.
        horizon: H, steps it predicts; of imputation and anomaly detection it is the look-back.
        task: What it predicts: the future (`forecast`, and `short_term` of many short series), the missing values of a window
            (`imputation`), the window itself (`anomaly`), or a class (`classification`).
        series: Columns and scaler of the data it was trained on; set when it is trained, saved with it.
    """

    look_back: int = 96
    horizon: int = 96
    task: SeriesTask = "forecast"
    series: SeriesDescription | None = None

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a length is below one.
        """
        for name in ("look_back", "horizon"):
            if not 1 <= getattr(self, name) <= 2**20:
                raise RecipeError(f"model.{name}: {getattr(self, name)} must be a whole number from 1 to {2**20}")


class SeriesModel(nn.Module):
    """A model of time series.

    `forward` takes a batch of named tensors and returns named outputs:

    - `values` (B, L, C), scaled, missing entries 0; `observed` (B, L, C) bool where something is missing; also `known` (B, L+H, K),
      `static` (B, S). C are the targets, then the past covariates.
    - `prediction` (B, H, C_target) in the same scale; `quantiles` (B, H, C_target, Q) where the head has them; for classification
      `logits` (B, classes).

    Args:
        config: Settings.
        release: Folder of a release that supplies weights and processors; then no pretrained source is loaded.
    """

    family = "series_model"
    data_kind = "series"
    Config: type[Any] = SeriesModelConfig
    #: part name -> parameter prefixes, for `init_from` of a stage
    parts: Mapping[str, tuple[str, ...]] = {}
    #: tasks the family can do
    tasks: tuple[str, ...] = ("forecast",)
    #: roles of columns it makes use of besides targets; others are refused, never ignored
    uses: frozenset[str] = frozenset()

    def __init__(self, config: Any, *, release: Path | None = None) -> None:
        super().__init__()
        self.config: Any = config
        if config.task not in self.tasks:
            raise AssemblyError(f"model.task: {self.family} does {', '.join(self.tasks)}, not {config.task}")

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], where: str = "model", *, release: Path | None = None, preprocess: Any = None
    ) -> Any:
        """Builds from plain values (a recipe's `model` or a release's config)."""
        return cls(fill(cls.Config, settings, where), release=release)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """See the class."""
        raise NotImplementedError

    def role_of(self, parameter: str) -> str:
        """The one role of a parameter, by its name in `named_parameters`."""
        raise NotImplementedError

    def describe(self, description: SeriesDescription) -> None:
        """Takes the columns and the scaler of the data it is trained on.

        Raises:
            AssemblyError: If a column has a role the family makes no use of.
        """
        self.refuse_unused(description)
        self.config.series = description

    def refuse_unused(self, description: SeriesDescription) -> None:
        """Covariates are never silently left out.

        Raises:
            AssemblyError: If a column has a role the family makes no use of.
        """
        for role in ("past", "known", "static"):
            if getattr(description, role) and role not in self.uses:
                raise AssemblyError(
                    f"data.series.{role}: {self.family} makes no use of such columns ({', '.join(getattr(description, role))}); take them "
                    "out, or take a family that does (modalign zoo list)"
                )

    def after_step(self) -> None:
        """What must be kept within bounds after an optimiser step: nothing."""

    def settings(self) -> dict[str, Any]:
        """Everything `from_settings` needs, as plain values."""
        return asdict(self.config)

    def sources(self) -> dict[str, str]:
        """Parameter prefix -> name its pretrained weights came from, for the parts that have one."""
        return {}

    def save_processors(self, folder: Path) -> None:
        """Writes what a release needs besides weights and settings."""

    def quick_gelu(self) -> dict[str, bool]:
        """Parts that may compute QuickGELU: none."""
        return {}

    def adapt_state(self, state: dict[str, Tensor], prefix: str = "") -> None:
        """Brings the weights of an older release into today's shape, in place."""

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device
