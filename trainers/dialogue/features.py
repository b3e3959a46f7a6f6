"""Features of a frozen image encoder as they enter the projector, computed once and read again at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from modalign.datasets.decoding.sample import Sample
from modalign.datasets.loading.loader import EvalLoader
from modalign.datasets.shards import ShardSet
from modalign.zoo.checkpoints.hashing import weights_sha256
from modalign.zoo.errors import DataError, RecipeError

from ..caches import KeyedVectors, by_sample, moved
from ..console import track

TOKENS = "tokens"


def check_cacheable(model: Any, trained: Sequence[Any], where: str) -> None:
    """Refuses to keep what changes while a stage trains.

    Raises:
        RecipeError: Naming the part that trains.
    """
    for entry in trained:
        if entry.name.startswith("image."):
            raise RecipeError(f"{where}.cache.image: {entry.name} trains, but a cache fixes the encoder's output; turn one off")
    changing = [name for name, hook in model.hooks.items() if hook.changes_pictures()]
    if changing:
        raise RecipeError(f"{where}.cache.image: the hook {changing[0]} changes pictures before they are encoded; turn one off")
    if model.config.picture.mode == "anyres":
        raise RecipeError(
            f"{where}.cache.image: with picture.mode anyres pictures differ in tiles, which is not kept; turn it off"
        )
    if any(hook.pixels_too for hook in model.hooks.values()):
        raise RecipeError(f"{where}.cache.image: a hook wants pixels of its own of every picture; turn it off")


def token_features(model: Any, sources: Sequence[ShardSet], num_workers: int = 0) -> KeyedVectors:
    """What enters the projector, (V, D_v) for every sample of the sources; computed where it is not kept yet.

    Raises:
        DataError: If a sample has not exactly one picture, or two sources share a key.
    """
    fingerprint = {
        "encoder": weights_sha256(dict(model.image.state_dict())),
        "form": hashlib.sha256(repr(model.image).encode()).hexdigest()[:16],
        "layers": model.feature_layers,
        "prefix": model.config.keep_prefix,
        "preprocess": model.image.preprocess.to_dict(),
    }
    return by_sample(sources, TOKENS, fingerprint, lambda shards, what: _batches(model, shards, num_workers, what))


def _one_picture(layout: Any, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
    if len(sample.images) != 1:
        raise DataError(
            f"field 'image': the sample has {len(sample.images)} pictures, and a cache keeps one; turn cache.image off"
        )
    return {"image": layout(sample.images)[0]}


def _stacked(examples: list[dict[str, Any]]) -> dict[str, Any]:
    return {"image": torch.cat([example["image"] for example in examples])}


def _batches(model: Any, shards: ShardSet, num_workers: int, what: str) -> Iterator[np.ndarray]:
    loader = EvalLoader(
        shards, partial(_one_picture, model.layout), _stacked, batch_size=32, fields=["image"], num_workers=num_workers
    )
    with moved(model), torch.inference_mode():
        for batch in track(loader, len(loader), what):
            yield model.features(batch["image"].to(model.device)).float().cpu().numpy()
    loader.close()
