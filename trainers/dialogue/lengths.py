"""How long the conversations of a set are, in tokens, found once and kept beside the shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.features import feature_folder
from modalign.datasets.shards import ShardSet

from ..caches import feature_name, stored
from ..console import track
from .examples import DialogueExample

_CHUNK = 256


def lengths_of(shards: ShardSet, example: DialogueExample) -> np.ndarray:
    """Tokens of every sample's conversation, int64 (N,); where one is drawn among several, of the same one every time.

    Args:
        shards: The set.
        example: What makes conversations of its samples.
    """
    encoder = example.prepare.encoder
    text = repr(
        (encoder.tokenizer.name_or_path, len(encoder.tokenizer), encoder.template.name, encoder.template.system, example.asker)
    )
    layout = repr((example.prepare.layout, encoder.prefix, encoder.max_length))
    about = {"what": hashlib.sha256(f"{text}{layout}".encode()).hexdigest()[:16], "data": shards.fingerprint}
    name = f"lengths of {shards.folder.name}"
    place = feature_folder(shards.folder, feature_name("lengths", about))
    store = stored(place, about, shards.keys, lambda: _batches(shards, example, name), name)
    return np.asarray(store.vectors).reshape(-1)


def _batches(shards: ShardSet, example: DialogueExample, name: str) -> Iterator[np.ndarray]:
    made: list[Any] = []
    for number, raw in enumerate(track(shards.samples(None), len(shards), name)):
        sample = decode_sample(raw, encoded=True)
        dialogue = example.asker.conversation(sample, np.random.default_rng(0))
        made.append(len(example.prepare.encoder(dialogue, [image.size for image in sample.images]).ids))
        if len(made) == _CHUNK or number == len(shards) - 1:
            yield np.array(made, dtype=np.int64)[:, None]
            made = []
