"""From a decoded sample to an example of a conversation: the code that runs in data workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modalign.datasets.decoding.sample import Sample
from modalign.zoo.encoders.image.random_view import is_encoded
from modalign.zoo.errors import DataError
from modalign.zoo.stack.prepare import StackCollate, StackPrepare

from .asking import Asker


@dataclass
class DialogueExample:
    """Makes a training example of a sample.

    Attributes:
        prepare: The model's own.
        asker: What is asked.
        pixels: Off where features are kept already.
        levels: Key -> alignment level, for models that read one.
    """

    prepare: StackPrepare
    asker: Asker
    pixels: bool = True
    levels: dict[str, int] | None = None
    takes_encoded: ClassVar[bool] = True  # where features are kept, a picture's size is all that is wanted of it

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """Returns what `StackPrepare` makes, and the `level` of the sample where there are levels."""
        dialogue = self.asker.conversation(sample, rng)
        images = [image.decoded() if self.pixels and is_encoded(image) else image for image in sample.images]
        example = self.prepare(sample.key, dialogue, images, pixels=self.pixels)
        if self.levels is not None:
            if sample.key not in self.levels:
                raise DataError(
                    "data.dialogue.levels: the file has no level of this sample; make it anew with modalign data levels"
                )
            example["level"] = self.levels[sample.key]
        return example


@dataclass
class DialogueCollate:
    """Makes a batch of examples.

    Attributes:
        collate: The model's own.
        features: Kept features by sample key, (N, V, D_v) for N keys; None computes them.
        any_key: A key that has features.
    """

    collate: StackCollate
    features: Callable[[Sequence[str]], Tensor] | None = None
    any_key: str = ""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns what `StackCollate` makes, with `image_features` and `level` where there are some."""
        batch = self.collate(examples)
        if self.features is not None:
            keys = batch["picture_keys"]
            # of a batch without pictures those of any sample, to be put nowhere: encoder and projector are reached on every rank
            batch["image_features"] = self.features(keys or [self.any_key])
        if "level" in examples[0]:
            batch["level"] = torch.tensor([example["level"] for example in examples], dtype=torch.long)
        return batch
