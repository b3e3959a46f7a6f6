"""MEXA of every layer of a text encoder: where in the network do languages meet?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modalign.zoo.errors import AssemblyError
from modalign.zoo.metrics.mexa import mexa_by_layer, over_layers
from modalign.zoo.metrics.sentence_vectors import position_weighted

from .parallel_captions import Parallel
from .task import Subject


@torch.inference_mode()
def layer_vectors(text: Any, texts: Sequence[str], batch_size: int = 32) -> Tensor:
    """(L + 1, N, D) position-weighted sentence vectors of every layer, the embedding layer first; float32 on the CPU.

    Texts get the encoder's own prefix and are cut where it cuts them.

    Args:
        text: A text encoder on a transformers model.
        texts: The texts.
        batch_size: Texts at a time.

    Raises:
        AssemblyError: If the encoder has no layers to look at.
    """
    body = getattr(text, "model", None)
    if body is None or not hasattr(getattr(body, "config", None), "num_hidden_layers"):
        raise AssemblyError("layers: only text encoders on a transformers model give their layers; leave layers out")
    tokenize, device, parts = text.tokenizer(), next(text.parameters()).device, []
    text.eval()
    for start in range(0, len(texts), batch_size):
        tokens = tokenize(list(texts[start : start + batch_size]))
        ids, mask = tokens["ids"].to(device), tokens["mask"].to(device)
        states = body(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        parts.append(torch.stack([position_weighted(layer.float(), mask) for layer in states]).cpu())
    return torch.cat(parts, 1)


def mexa_of_layers(subject: Subject, made: Parallel, most: int) -> dict[str, Any]:
    """MEXA in percent of every layer on the first pairs, with the mean and the best.

    Args:
        subject: Whose text encoder.
        made: The pairs.
        most: How many.
    """
    pairs = made.one_to_one()[:most]
    source = layer_vectors(subject.model.text, [made.source[row] for row in pairs[:, 0].tolist()])
    pivot = layer_vectors(subject.model.text, [made.target[row] for row in pairs[:, 1].tolist()])
    scores = [round(100 * score, 4) for score in mexa_by_layer(pivot, source)]
    return {
        "n": len(pairs),
        "mexa": {str(layer): score for layer, score in enumerate(scores)},
        **{name: round(over_layers(scores, name), 4) for name in ("mean", "max")},
    }
