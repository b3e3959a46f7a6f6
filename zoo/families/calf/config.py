"""Settings of CALF."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...errors import RecipeError
from ...heads.quantile import LEVELS, check_levels
from ...language.loading import LanguageModelConfig, LanguageSwitch
from ...language.lora import LoraSettings
from ...series.base import SeriesModelConfig


@dataclass
class CalfConfig(SeriesModelConfig):
    """Settings of CALF.

    Attributes:
        language: The causal language model, and how many of its blocks are kept.
        llm: What stands in its place: itself (`pretrained`), the same with `random` weights, one `attention` layer, or `none`; the word
            dictionary stays that of the pretrained model.
        lora: Adapters on the query, key and value projections of the temporal branch; null for none.
        heads: Attention heads over channels and over the word dictionary; they divide the language model's width.
        ffn: Hidden width of the channel transformer.
        dropout: Of the channel transformer; the language model's own is in its configuration.
        dictionary: K, principal word embeddings.
        head: `linear`, or `quantile` for forecasts with quantiles (loss `pinball`).
        quantiles: Levels of the quantile head.
        strict_reference: Follow the official code where it differs from its description: the last feature holds the residual; the match
            module's attention projections are of role `aux`, as the code's second optimiser has them; what is missing counts as zero in
            the mean of imputation, and padding in all statistics of short series.
        last_feature_with_residual: The last compared feature is `norm(h_N) + tokens` and not `norm(h_N)`; default as `strict_reference`.
        inference_only: Only the temporal branch, as `export_inference` makes it.
    """

    language: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    llm: LanguageSwitch = "pretrained"
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    heads: int = 12
    ffn: int = 2048
    dropout: float = 0.1
    dictionary: int = 500
    head: Literal["linear", "quantile"] = "linear"
    quantiles: list[float] = field(default_factory=lambda: list(LEVELS))
    strict_reference: bool = False
    last_feature_with_residual: bool | None = None
    inference_only: bool = False

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: Naming the setting.
        """
        super().__post_init__()
        for name in ("heads", "ffn", "dictionary"):
            if getattr(self, name) < 1:
                raise RecipeError(f"model.{name}: {getattr(self, name)} must be 1 or more")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"model.dropout: {self.dropout} must be within [0, 1)")
        if self.head == "quantile":
            if self.task == "classification":
                raise RecipeError("model.head: quantile has no meaning for classification; take linear")
            check_levels(self.quantiles)

    @property
    def steps(self) -> int:
        """Steps of a prediction: the window itself is predicted in imputation and anomaly detection."""
        return self.look_back if self.task in ("imputation", "anomaly") else self.horizon

    @property
    def residual_in_last(self) -> bool:
        """`last_feature_with_residual`, resolved."""
        return self.strict_reference if self.last_feature_with_residual is None else self.last_feature_with_residual
