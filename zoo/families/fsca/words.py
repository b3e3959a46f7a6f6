"""The words of a sequence: prompt and class names as frozen token embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...encoders.sources import trusted_source
from ...encoders.text.hf_tokenize import load_tokenizer
from ...errors import AssemblyError
from .config import FscaConfig

FORECAST_PROMPT = "Predict future sequences using previous data:"
CLASS_PROMPT = "Predict category({classes} in total) using previous data:"


def settle_words(config: FscaConfig) -> None:
    """Fills in `prompt_ids` and, for classification, `label_ids`, with the language model's own tokenizer.

    They are settings from then on, so that a release needs no tokenizer.

    Raises:
        AssemblyError: If there is no tokenizer and ids are not given, or a text has no token.
    """
    labels = config.series.labels if config.task == "classification" and config.series is not None else []
    wants_labels = config.demonstrations and config.label_ids is None
    if config.prompt_ids is not None and not wants_labels:
        return
    tokenizer = _tokenizer(config)
    if config.prompt_ids is None:
        default = CLASS_PROMPT.format(classes=len(labels)) if config.task == "classification" else FORECAST_PROMPT
        config.prompt_ids = _ids(tokenizer, default if config.prompt is None else config.prompt, "model.prompt")
    if wants_labels:
        config.label_ids = [_ids(tokenizer, label, "data.series: class name")[0] for label in labels]


def _tokenizer(config: FscaConfig) -> Any:
    name = config.language.name
    if name is None:
        raise AssemblyError(
            "model.prompt_ids: an architecture alone has no tokenizer; give the token ids of the prompt (and label_ids of the classes)"
        )
    return load_tokenizer(trusted_source(name).files(), name)


def _ids(tokenizer: Any, text: str, what: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise AssemblyError(f"{what}: {text!r} has no token; write something")
    return [int(number) for number in ids]


def embedded(ids: list[int], table: Tensor | None, width: int, what: str) -> Tensor:
    """Rows of the token table, copied; zeros where there is no table, as when weights come from a release.

    Args:
        ids: Token ids.
        table: (V, D), or None.
        width: D.
        what: What messages call the setting.

    Returns:
        (number of ids, D).

    Raises:
        AssemblyError: If an id is not in the table.
    """
    if table is None:
        return torch.zeros(len(ids), width)
    if wrong := [number for number in ids if not 0 <= number < len(table)]:
        raise AssemblyError(f"{what}: {wrong[0]} is no token of the language model, which has {len(table)}")
    return table[torch.tensor(ids)].clone()
