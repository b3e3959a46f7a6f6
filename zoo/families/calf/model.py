"""CALF: a temporal and a textual branch of one language model, tied layer by layer and in their outputs.

Source: "CALF: Aligning LLMs for Time Series Forecasting via Cross-modal Fine-Tuning" (arXiv 2403.07300) and its official code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.series.channel_tokens import ChannelTokens
from ...encoders.series.instance_norm import InstanceNorm, SeriesStatistics
from ...errors import AssemblyError
from ...heads.linear import ClassHead, LinearHead
from ...heads.quantile import QuantileHead
from ...language.backbone import Backbone
from ...language.word_dictionary import WordDictionary
from ...projectors.cross_match import CrossMatch
from ...series.base import SeriesModel
from ...series.description import SeriesDescription
from ...series.window import check_window
from .branches import build_branches, share_frozen
from .config import CalfConfig

_TEXT_PARTS = ("text_language", "match", "dictionary", "series_features", "text_features")


class CalfModel(SeriesModel):
    """CALF: time series through a language model, every channel a token; forecasts, gaps, anomalies, classes, short series.

    Every channel is one token. The temporal branch runs the tokens through the adapted language model; the textual branch rewrites
    them as mixtures of principal word embeddings and runs those through the pretrained one. Both end in one head. In use the temporal
    branch alone is computed; in training mode, or with `both_branches`, the other one too.

    Past covariates are further tokens, known-future ones too, from the look-back and the horizon together, and a series' static numbers
    are one more; all of them stand before the targets.

    Roles: `encoder` (channel tokens), `projector` (match with the dictionary), `adapter` (LoRA), `language` (the temporal branch's norms
    and positions, the textual branch's positions, an attention layer in their place), `frozen` (all other weights of the language
    model), `head`, and `aux` (the bias-free maps before the layers are compared; with `strict_reference` also the attention
    projections of channel tokens and match). Where there is no LoRA, or no language model, there is no such role.

    Args:
        config: Settings.
        release: Folder of a release that supplies weights; then no pretrained source is read.

    Attributes:
        both_branches: Compute the textual branch in eval mode too.

    Raises:
        AssemblyError: If widths do not fit, or the language model does not suit.
    """

    family = "calf"
    Config = CalfConfig
    parts = {
        "encoder": ("tokens.",),
        "match": ("match.", "dictionary."),
        "language": ("pretrained.", "language.", "text_language."),
        "features": ("series_features.", "text_features."),
        "head": ("head.",),
    }
    tasks = ("forecast", "imputation", "anomaly", "classification", "short_term")
    uses = frozenset({"past", "known", "static"})
    _roles = {
        "tokens": "encoder",
        "match": "projector",
        "pretrained": "frozen",
        "series_features": "aux",
        "text_features": "aux",
        "head": "head",
    }

    def __init__(self, config: CalfConfig, *, release: Path | None = None) -> None:
        super().__init__(config, release=release)
        built = build_branches(config, release)
        self.both_branches = False
        self.hf_config = built.hf_config
        width = built.series.width
        self.norm = InstanceNorm(mean_over="all" if config.strict_reference and config.task == "imputation" else "observed")
        self.tokens = ChannelTokens(config.look_back, width, config.heads, config.ffn, config.dropout)
        self.pretrained = built.frozen  # before the branches, so that it gives shared parameters their names
        self.language: Backbone = built.series
        self.text_language: Backbone | None = built.text
        self.match: CrossMatch | None = None
        self.dictionary: WordDictionary | None = None
        self.series_features: nn.ModuleList | None = None
        self.text_features: nn.ModuleList | None = None
        if built.dictionary is not None:
            self.match = CrossMatch(width, config.heads)
            self.dictionary = WordDictionary(built.dictionary)
            self.series_features, self.text_features = (self._feature_maps(built.series) for _ in range(2))
        self.head = self._head(width)
        if config.series is not None:
            self._fit(config.series)
        self._freeze()

    @staticmethod
    def _feature_maps(backbone: Backbone) -> nn.ModuleList:
        width = backbone.width
        return nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(backbone.num_blocks + 1))

    def _head(self, width: int) -> nn.Module | None:
        if self.config.task == "classification":
            return None  # its size depends on the data: see `_fit`
        if self.config.head == "quantile":
            return QuantileHead(width, self.config.steps, self.config.quantiles)
        return LinearHead(width, self.config.steps)

    def _freeze(self) -> None:
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.role_of(name) != "frozen")

    def describe(self, description: SeriesDescription) -> None:
        """Takes columns and scaler, and builds what depends on them: the maps of known-future and static ones, the head of classification.

        Static numbers stay scaled as they were when it was first trained: other series have other values, not another scale of them.

        Raises:
            AssemblyError: If a column's role is of no use, there are more channels than positions, or the data do not fit what is built.
        """
        before = self.config.series
        if before is not None and before.static and before.static == description.static:
            description = replace(description, static_scale=before.static_scale)
        super().describe(description)
        self._fit(description)

    def _fit(self, description: SeriesDescription) -> None:
        channels, known = len(description.channels), len(description.known)
        self.language.check(channels + known + bool(description.static), "channels")
        if known and self.config.task not in ("forecast", "short_term"):
            raise AssemblyError(f"data.series.known: {self.config.task} has no future; take {description.known[0]} out")
        if known and self.tokens.known is None:
            self.tokens.add_known(self.config.look_back + self.config.horizon)
            self.tokens.to(self.device)
        elif not known and self.tokens.known is not None:
            raise AssemblyError("data.series.known: the model was trained with known-future columns; name those of this data")
        self._fit_static(description)
        if self.config.task == "classification":
            self._fit_classes(channels, len(description.labels))

    def _fit_static(self, description: SeriesDescription) -> None:
        names, built = description.static, self.tokens.static
        if names and self.config.task not in ("forecast", "short_term"):
            raise AssemblyError(f"data.series.static: {self.config.task} makes no use of static numbers; take {names[0]} out")
        for name in names:
            if description.static_scale.get(name, [0.0, 1.0])[1] == 0:
                raise AssemblyError(
                    f"data.series.static: {name} is {description.static_scale[name][0]:g} in every training series, so there is nothing to "
                    "learn from it; take it out"
                )
        if names and built is None:
            self.tokens.add_static(len(names))
            self.tokens.to(self.device)
        elif built is not None and built.in_features != len(names):
            raise AssemblyError(
                f"data.series.static: the model was trained with {built.in_features} static numbers, these data name {len(names)}; name "
                "as many"
            )

    def _fit_classes(self, channels: int, classes: int) -> None:
        if classes < 2:
            raise AssemblyError(f"classification needs two classes or more, the data have {classes}; name the column of labels")
        if not isinstance(self.head, ClassHead):
            self.head = ClassHead(self.language.width, channels, classes).to(self.device)
        elif (self.head.channels, self.head.classes) != (channels, classes):
            raise AssemblyError(
                f"the model was trained for {self.head.channels} channels and {self.head.classes} classes, the data have {channels} and "
                f"{classes}; train one for them"
            )

    def role_of(self, parameter: str) -> str:
        """See the class."""
        part = parameter.split(".")[0]
        if part in ("language", "text_language"):
            return "adapter" if ".lora_" in parameter else "language"
        in_match = part in ("tokens", "match") and "_proj" in parameter  # the official code's own criterion
        return "aux" if in_match and self.config.strict_reference else self._roles[part]

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predicts.

        Args:
            batch: `values` (B, L, C) and, where something is missing, `observed` (B, L, C); `known` (B, L + H, K) if the model was trained
                with known-future covariates, `static` (B, S), in their own units, if with static numbers.

        Returns:
            `prediction` (B, H, C_target) in the scale of the batch (H = L for imputation and anomaly detection); with a quantile head
            also `quantiles` (B, H, C_target, Q), whose median is the prediction, and their `quantile_levels` (Q,); for classification
            `logits` (B, classes) instead. Of both branches also `text_prediction` or `text_logits`, `series_layers` and `text_layers`
            (B, N + 1, tokens, D).

        Raises:
            AssemblyError: If a window or its covariates do not fit the model.
        """
        values = batch["values"]
        check_window(values, self.config.look_back, self.family)
        targets = values.shape[2] if self.config.series is None else len(self.config.series.target)
        values, statistics = self._normalised(values, batch.get("observed"), targets)
        tokens = self.tokens(values, targets, self._known(batch), self._static(batch, values))
        last, states = self._run(self.language, tokens)
        outputs = self._predict(last, statistics, targets)
        if self.text_language is not None and (self.training or self.both_branches):
            outputs |= self._text(tokens, states, statistics, targets)
        return outputs

    def _known(self, batch: Mapping[str, Any]) -> Tensor | None:
        if self.tokens.known is None:
            return None
        if "known" not in batch:
            columns = ", ".join(self.config.series.known) if self.config.series is not None else "see its data set"
            raise AssemblyError(
                f"the model needs its known-future columns ({columns}) for the look-back and the horizon; give them"
            )
        return batch["known"]

    def _static(self, batch: Mapping[str, Any], values: Tensor) -> Tensor | None:
        """(B, S) the series' static numbers, scaled, in the type of the values."""
        series = self.config.series
        if self.tokens.static is None or series is None:
            return None
        if "static" not in batch:
            raise AssemblyError(f"the model needs the static numbers of every series ({', '.join(series.static)}); give them")
        return series.scaled_static(batch["static"].float()).to(values.dtype)

    def _normalised(self, values: Tensor, observed: Tensor | None, targets: int) -> tuple[Tensor, SeriesStatistics | None]:
        """Windows at mean 0 and deviation 1, and the targets' statistics; classification sees windows as they are."""
        if self.config.task == "classification":
            return values, None
        if self.config.strict_reference and self.config.task == "short_term":
            observed = None
        values, (mean, std) = self.norm(values, observed)
        return values, SeriesStatistics(mean[..., :targets], std[..., :targets])

    def _run(self, language: Backbone, tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A branch's result with the residual of its tokens, and its N + 1 states."""
        states = language(tokens)
        last = states[-1] + tokens
        return last, (*states[:-1], last if self.config.residual_in_last else states[-1])

    def _predict(self, last: Tensor, statistics: SeriesStatistics | None, targets: int) -> dict[str, Tensor]:
        if self.head is None:
            raise AssemblyError("the model does not know its channels and classes yet; describe the data to it first")
        if statistics is None:
            return {"logits": self.head(last)}
        predicted = self.norm.inverse(self.head(last[:, -targets:]), statistics)
        if not isinstance(self.head, QuantileHead):
            return {"prediction": predicted}
        return {
            "prediction": predicted[..., self.head.median],
            "quantiles": predicted,
            "quantile_levels": self.head.levels,
        }

    def _text(
        self, tokens: Tensor, states: tuple[Tensor, ...], statistics: SeriesStatistics | None, targets: int
    ) -> dict[str, Tensor]:
        """What the textual branch adds; no gradient is stopped, so it trains the channel tokens too."""
        assert self.match is not None and self.dictionary is not None and self.text_language is not None
        last, text_states = self._run(self.text_language, self.match(tokens, self.dictionary()))
        predicted = self._predict(last, statistics, targets)
        name = "logits" if statistics is None else "prediction"
        return {
            f"text_{name}": predicted[name],
            "series_layers": _mapped(self.series_features, states),
            "text_layers": _mapped(self.text_features, text_states),
        }

    def export_inference(self) -> CalfModel:
        """A copy with the temporal branch alone: no dictionary, no textual branch, no feature maps; the same predictions, bit by bit."""
        dropped = [getattr(self, part) for part in (*_TEXT_PARTS, "pretrained")]
        slim: CalfModel = copy.deepcopy(self, {id(part): None for part in dropped if part is not None})
        slim.config = replace(slim.config, inference_only=True)
        slim.both_branches = False
        slim.pretrained = share_frozen(slim.language, None)
        return slim.eval()

    def save_processors(self, folder: Path) -> None:
        """Writes the language model's configuration, which gives a release its shape."""
        self.hf_config.save_pretrained(folder / "language")

    def sources(self) -> dict[str, str]:
        """The frozen weights of the language model, where they are pretrained."""
        name = self.config.language.name
        return (
            {"pretrained.": name} if self.config.llm == "pretrained" and name is not None and self.pretrained is not None else {}
        )

    @classmethod
    def part_from_source(cls, config: CalfConfig, prefix: str) -> nn.Module:
        """The frozen weights, from the language model itself."""
        found = build_branches(config, words=False).frozen
        assert found is not None
        return found


def _mapped(maps: nn.ModuleList | None, states: tuple[Tensor, ...]) -> Tensor:
    """(B, N + 1, tokens, D): every state through its own map."""
    assert maps is not None
    return torch.stack([apply(state) for apply, state in zip(maps, states)], 1)
