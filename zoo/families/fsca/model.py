"""FSCA: patches of a series and prompts in one sequence, aligned by two graphs around a frozen language model (Hu et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.series.instance_norm import InstanceNorm
from ...encoders.series.patch_tokens import PatchTokens, patch_count
from ...errors import AssemblyError
from ...graphs.context_graph import Node
from ...heads.flatten import FlattenClassHead, FlattenHead
from ...language.backbone import Backbone
from ...language.build import build_language
from ...language.frozen_store import FrozenStore, leave_to_store
from ...series.base import SeriesModel
from ...series.description import SeriesDescription
from ...series.window import check_window, filled
from .alignment import DualScaleAlignment
from .config import FscaConfig
from .sequence import class_count, read_positions, sequence_nodes, shape
from .words import embedded, settle_words

_ROLES = {
    "tokens": "encoder",
    "norm": "encoder",
    "pretrained": "frozen",
    "backbone": "language",
    "alignment": "projector",
    "head": "head",
}


class FscaModel(SeriesModel):
    """Context-Alignment: time series as patches between prompts inside a language model, tied by two graphs (FSCA, first DECA, and VCA).

    Forecasting: every channel alone is instance-normalised, cut into patch tokens, split into segments and interleaved with a prompt;
    all segments but the last, each with the prompt behind it, are examples. Classification: all channels of a step go into one patch, and
    the examples are labelled series in front of the one in question.

    Roles: `encoder` patch convolution and instance norm, `language` norms and positions of the language model (with `llm: attention`
    all of that layer), `projector` graph convolutions and the linear layers of coarse nodes, `head` the last layer, `frozen` the language
    model's matrices. The prompt is a buffer of frozen token embeddings.

    A missing value is left out of the instance norm and then taken to be the last one observed before it (`series/window.py`). Past,
    known-future and static columns are refused.

    Args:
        config: Settings. Classification depends on channels and classes: without `series` in them the model is built by `describe`.
        release: Folder of a release that supplies weights; then no pretrained source is loaded.
    """

    family = "fsca"
    Config = FscaConfig
    parts = {
        "tokens": ("tokens.", "norm."),
        "alignment": ("alignment.", "prompt", "labels", "demonstrations"),
        "language": ("pretrained.", "backbone."),
        "head": ("head.",),
    }
    tasks = ("forecast", "short_term", "classification")
    prompt: Tensor
    labels: Tensor
    demonstrations: Tensor

    def __init__(self, config: FscaConfig, *, release: Path | None = None) -> None:
        super().__init__(config, release=release)
        self._release, self._built = release, False
        if config.task != "classification" or config.series is not None:
            self._build()

    def describe(self, description: SeriesDescription) -> None:
        """Takes columns, classes and scaler; a classifier is built now if it was not, for it depends on them.

        Raises:
            AssemblyError: If there are columns FSCA cannot use, or other channels or classes than it was built for.
        """
        known = self.config.series
        super().describe(description)
        if not self._built:
            self._build()
        elif self.config.task == "classification" and shape(known) != shape(description):
            self.config.series = known
            raise AssemblyError(
                f"model: it tells {', '.join(known.labels)} apart in {len(known.channels)} channels; the data have the classes "
                f"{', '.join(description.labels)} in {len(description.channels)} channels: train a model for them"
            )

    def _build(self) -> None:
        config: FscaConfig = self.config
        patches, classes = patch_count(config.look_back, config.patch_size, config.stride), class_count(config)
        if config.task == "classification" and classes < 2:
            raise AssemblyError(f"model.task: classification needs two classes or more, the data name {classes}")
        settle_words(config)
        language = build_language(config.language, config.llm, release=self._release, table=True)
        self.pretrained = _store(language.backbone)  # before the backbone, so that it gives shared parameters their names
        self.backbone, self._hf_config, width = language.backbone, language.hf_config, language.backbone.width
        self._check_widths(width)
        nodes = sequence_nodes(config, patches, classes)
        length = sum(node.tokens for node in nodes)
        self.backbone.check(length, f"tokens ({patches} patches a series, prompts and labels)")
        channels = len(config.series.channels) if classes and config.series is not None else 1
        self.tokens = PatchTokens(
            config.look_back, config.patch_size, config.stride, config.patch_width or width, channels, config.in_dropout
        )
        self.alignment = self._alignment(nodes, width)
        self._add_words(language.table, width, classes, channels)
        self._nodes, self._read = nodes, read_positions(config, nodes, patches)
        self.norm: InstanceNorm | None = None
        self.head: nn.Module
        if classes:
            self.head = FlattenClassHead(width, config.read_width, length, classes)
        else:
            self.norm = InstanceNorm(affine="shared" if config.revin else "none")
            self.head = FlattenHead(
                width, config.read_width, self._read.stop - self._read.start, config.horizon, config.out_dropout
            )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.role_of(name) != "frozen")
        self._built = True

    def _check_widths(self, width: int) -> None:
        for name in ("patch_width", "read_width", "coarse_width"):
            if (getattr(self.config, name) or 1) > width:
                asked = getattr(self.config, name)
                raise AssemblyError(f"model.{name}: {asked} is more than the language model's width; take {width} or less")

    def _alignment(self, nodes: list[Node], width: int) -> DualScaleAlignment:
        config: FscaConfig = self.config
        last = self.backbone.num_blocks  # 1 in an ablation: what stood between blocks then stands behind the only one
        return DualScaleAlignment(
            nodes,
            width,
            config.coarse_width,
            config.coarse_weight,
            sorted({min(point, last) for point in config.fine_points}),
            sorted({min(point, last) for point in config.coarse_points}),
            strict=config.strict_reference and config.task != "classification" and config.segments > 1,
            normalised=not (config.strict_reference and config.task == "short_term"),
        )

    def _add_words(self, table: Tensor | None, width: int, classes: int, channels: int) -> None:
        config: FscaConfig = self.config
        self.register_buffer("prompt", embedded(config.prompt_ids or [], table, width, "model.prompt_ids"))
        if not (classes and config.demonstrations):
            return
        if len(config.label_ids or ()) != classes:
            raise AssemblyError(f"model.label_ids: {len(config.label_ids or ())} ids for {classes} classes; give one for each")
        self.register_buffer("labels", embedded(config.label_ids or [], table, width, "model.label_ids"))
        self.register_buffer("demonstrations", torch.zeros(classes, config.look_back, channels))

    def take_demonstrations(self, values: Tensor, keys: Sequence[str], observed: Tensor | None = None) -> None:
        """Takes the labelled series that stand in front of every series to classify; they must be left out of training.

        Args:
            values: (classes, L, C), scaled, one training series of each class in the order of the classes.
            keys: Their keys.
            observed: The same shape as `values`; None means that everything was.

        Raises:
            AssemblyError: If the model takes none, or they have another shape.
        """
        wanted = tuple(self.demonstrations.shape) if self._built and self.config.demonstrations else None
        if wanted is None or tuple(values.shape) != wanted or len(keys) != wanted[0]:
            raise AssemblyError(
                f"demonstrations: {len(keys)} series {tuple(values.shape)} were given, the model takes {wanted or 'none'}"
            )
        self.demonstrations = filled(values, observed).to(self.demonstrations)
        self.config.demonstration_keys = list(keys)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Forecasts or classifies.

        Args:
            batch: `values` (B, L, C) and, where something is missing, `observed` (B, L, C).

        Returns:
            `prediction` (B, H, C), or `logits` (B, classes).

        Raises:
            AssemblyError: If the window is not as long as the look-back, or a classifier lacks its demonstrations.
        """
        values, observed = batch["values"], batch.get("observed")
        check_window(values, self.config.look_back, self.family)
        if self.norm is None:
            return {"logits": self.head(self._states(filled(values, observed).transpose(1, 2)))}
        scaled, statistics = self.norm(values, observed)
        rows = filled(scaled, observed).transpose(1, 2).flatten(0, 1)[:, None]  # (B C, 1, L)
        found = self.head(self._states(rows)[:, self._read])
        prediction = found.unflatten(0, (len(values), values.shape[2])).transpose(1, 2)
        return {"prediction": self.norm.inverse(prediction, statistics)}

    def _states(self, series: Tensor) -> Tensor:
        """Series (R, M, L) -> last states of the language model (R, T, D)."""
        return self.alignment(self.sequence(series), self.prompt, self.backbone)

    def sequence(self, series: Tensor) -> Tensor:
        """Patch tokens, prompts and labels in order, without positions.

        Args:
            series: (R, M, L), normalised, nothing missing.

        Returns:
            (R, T, D).

        Raises:
            AssemblyError: If a classifier lacks its demonstrations.
        """
        tokens = self._patches(series)
        parts = {"prompt": [self.prompt] * len(self._nodes)}
        if self.config.demonstrations:
            if self.config.demonstration_keys is None:
                raise AssemblyError(
                    "model.demonstrations: none were chosen yet; give one series of each class (take_demonstrations)"
                )
            examples = self._patches(self.demonstrations.transpose(1, 2))
            parts |= {"label": [label[None] for label in self.labels], "segment": [*examples, tokens]}
        else:
            parts["segment"] = list(tokens.split([node.tokens for node in self._nodes if node.kind == "segment"], 1))
        streams = {kind: iter(stream) for kind, stream in parts.items()}
        pieces = [next(streams[node.kind]) for node in self._nodes]
        return torch.cat(
            [piece if piece.ndim == 3 else piece.to(tokens.dtype).expand(len(tokens), -1, -1) for piece in pieces], 1
        )

    def _patches(self, series: Tensor) -> Tensor:
        """Patch tokens (R, N, D), zeros behind narrow ones."""
        tokens = self.tokens(series)
        return nn.functional.pad(tokens, (0, self.backbone.width - tokens.shape[2]))

    def role_of(self, parameter: str) -> str:
        """See the class. With `strict_reference` the graph convolutions of other tasks than forecasting are frozen, as officially."""
        part, _, rest = parameter.partition(".")
        if self.config.strict_reference and self.config.task != "forecast" and rest.split(".")[0] in ("fine", "coarse"):
            return "frozen"
        return _ROLES[part]

    def sources(self) -> dict[str, str]:
        """The frozen matrices of the language model, where they are pretrained."""
        return {"pretrained.": self.config.language.name} if self.config.llm == "pretrained" else {}

    @classmethod
    def part_from_source(cls, config: FscaConfig, prefix: str) -> nn.Module:
        """The frozen matrices, from the language model itself."""
        found = _store(build_language(config.language, config.llm).backbone)
        assert found is not None
        return found

    def save_processors(self, folder: Path) -> None:
        """Writes the language model's configuration, from which a release builds its shape."""
        self._hf_config.save_pretrained(folder / "language")


def _store(backbone: Backbone) -> FrozenStore | None:
    """The matrices of a language model, by its own names and out of the backbone's state; None where there are none."""
    names = [name for name, kind in backbone.kinds().items() if kind == "matrix"]
    leave_to_store(backbone, names)
    return FrozenStore({name.removeprefix("model."): backbone.get_parameter(name) for name in names}) if names else None
