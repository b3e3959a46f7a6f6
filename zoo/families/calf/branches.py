"""CALF's two language models: one set of frozen matrices, adapters and trained norms in one branch, the pretrained model in the other."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...language.backbone import Backbone, DecoderBackbone
from ...language.build import build_language
from ...language.frozen_store import FrozenStore, leave_to_store
from ...language.lora import add_lora
from ...language.word_dictionary import word_dictionary
from .config import CalfConfig


@dataclass
class Branches:
    """What `build_branches` returns.

    Attributes:
        series: The temporal branch: adapters, norms and positions train.
        text: The textual branch: only its positions train; None for inference.
        frozen: Everything in both that does not train; None where everything does.
        dictionary: (K, D); None for inference.
        hf_config: The language model's transformers configuration.
    """

    series: Backbone
    text: Backbone | None
    frozen: FrozenStore | None
    dictionary: Tensor | None
    hf_config: Any


def build_branches(config: CalfConfig, release: Path | None = None, *, words: bool = True) -> Branches:
    """Builds both branches and the dictionary, or their shapes where a release brings the weights.

    Args:
        config: Settings of the model.
        release: Folder of a release.
        words: Fill the dictionary; otherwise it is zeros of its shape.
    """
    both = not config.inference_only
    built = build_language(config.language, config.llm, release=release, table=both and words)
    series, text, dictionary = built.backbone, None, None
    if both:
        text = _twin(series)
        empty = torch.zeros(config.dictionary, series.width)
        dictionary = empty if built.table is None else word_dictionary(built.table, config.dictionary)
    if config.lora is not None and isinstance(series, DecoderBackbone):
        add_lora(series.model, config.lora, config.language.shown)
    return Branches(series, text, share_frozen(series, text), dictionary, built.hf_config)


def _twin(series: Backbone) -> Backbone:
    """A copy with norms and positions of its own, and the same large matrices."""
    kinds = series.kinds()
    shared = {id(parameter): parameter for name, parameter in series.named_parameters() if kinds[name] == "matrix"}
    return copy.deepcopy(series, shared)


def share_frozen(series: Backbone, text: Backbone | None) -> FrozenStore | None:
    """Puts what does not train into a store, by the names of the pretrained model, and out of the states of both branches."""
    frozen: dict[str, nn.Parameter] = {}
    for branch, trains in ((series, ("lora", "norm", "position", "attention")), (text, ("position", "attention"))):
        if branch is None:
            continue
        names = [name for name, kind in branch.kinds().items() if kind not in trains]
        for name in names:
            frozen[name.removeprefix("model.").replace(".base_layer.", ".")] = branch.get_parameter(name)
        leave_to_store(branch, names)
    return FrozenStore(frozen) if frozen else None
