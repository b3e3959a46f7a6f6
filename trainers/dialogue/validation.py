"""The loss of a stack on a validation set."""

from __future__ import annotations

import math
from typing import Any

import torch

from modalign.datasets.loading.loader import EvalLoader
from modalign.datasets.shards import ShardSet
from modalign.zoo.losses.next_token import next_token_sum
from modalign.zoo.losses.parts.distributed import rank, world_size
from modalign.zoo.metrics.over_ranks import summed
from modalign.zoo.stack.generate import to_device

from ..caches import KeyedVectors
from .asking import Asker
from .examples import DialogueCollate, DialogueExample


@torch.no_grad()
def measured_loss(
    model: Any,
    *,
    shards: ShardSet,
    asker: Asker,
    features: KeyedVectors | None,
    batch_size: int,
    levels: dict[str, int] | None = None,
) -> dict[str, float]:
    """Mean loss over all tokens to be learnt, and its exponential; conversations drawn at random are the same every time.

    Args:
        model: The stack.
        shards: The set.
        asker: What is asked.
        features: Kept features of its pictures.
        batch_size: Samples at a time.
        levels: Key -> alignment level.
    """
    model.eval()
    example = DialogueExample(model.prepare(), asker, features is None, levels)
    collate = DialogueCollate(model.collate(pixels=features is None), None if features is None else features.take, shards.keys[0])
    loader = EvalLoader(shards, example, collate, batch_size=batch_size, rank=rank(), world_size=world_size())
    found = torch.zeros(2, dtype=torch.float64)
    for batch in loader:
        outputs = model(to_device(batch, model.device))
        found += torch.tensor([float(next_token_sum(outputs)), float(len(outputs["token_labels"]))], dtype=torch.float64)
    loader.close()
    total, count = summed(found).tolist()
    loss = total / max(count, 1.0)
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
