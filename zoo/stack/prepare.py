"""From a conversation with pictures to an example, and from examples to a batch; it runs in data workers and for chat alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ..encoders.image.preprocess import ImagePreprocess
from ..language.encode import IGNORE, DialogueEncoder
from ..language.turns import Dialogue
from .packing import packed
from .pictures import PictureLayout

#: pictures -> their pixels
Pixels = Mapping[str, ImagePreprocess]


@dataclass
class StackPrepare:
    """Makes examples.

    Attributes:
        encoder: Writes conversations.
        layout: Cuts pictures into tiles.
        more: Field of the batch -> preprocessing of further pixels that a hook wants of every picture.
    """

    encoder: DialogueEncoder
    layout: PictureLayout
    more: Pixels = field(default_factory=dict)

    def __call__(
        self, key: str, dialogue: Dialogue, images: Sequence[Image.Image], *, prompt: bool = False, pixels: bool = True
    ) -> dict[str, Any]:
        """A conversation -> an example.

        Args:
            key: Name of the sample.
            dialogue: The conversation.
            images: The sample's pictures.
            prompt: The conversation ends with the user's turn, to be answered.
            pixels: Off where features are kept already, and pictures need not be prepared.

        Returns:
            `key`, `ids`, `labels`, `instruction` (lists), of its pictures `lengths`, `tiles` and `sizes`, and as far as wanted `image`
            (tiles, 3, S, S) and further pixels.

        Raises:
            DataError: See `DialogueEncoder`.
        """
        encoded = self.encoder(dialogue, [image.size for image in images], prompt=prompt)
        shown = [images[number] for number in encoded.pictures]
        sizes = [image.size for image in shown]
        example: dict[str, Any] = {
            "key": key,
            "ids": encoded.ids,
            "labels": encoded.labels,
            "instruction": encoded.instruction,
            "lengths": encoded.lengths,
            "sizes": sizes,
            "tiles": self.layout.tiles(sizes),
            "pictures": encoded.pictures,
        }
        if pixels and shown:
            example["image"] = torch.cat(self.layout(shown))
            example |= {name: torch.stack([make(image) for image in shown]) for name, make in self.more.items()}
        return example


@dataclass
class StackCollate:
    """Makes batches of examples.

    Attributes:
        pad_id: Id of padding; its embedding is never attended to.
        side: Where padding stands: `right` to learn, `left` to go on from.
        blank: A tile (3, S, S) of nothing, for batches without a picture: their encoder and projector run too, so that no rank waits for
            another. None leaves pictures out.
        more: Field -> a blank of further pixels.
        packs: Several conversations in a row (`packing.py`), instead of a row and padding for each.
    """

    pad_id: int
    side: Literal["right", "left"] = "right"
    blank: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)
    packs: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Examples -> a batch.

        Returns:
            `ids`, `labels`, `mask`, `instruction` (B, T), or packed `ids`, `labels`, `instruction`, `positions` and `segments` (R, T);
            `image` (N, 3, S, S) uint8, the tiles of all pictures; of the M pictures `image_rows`, `image_tiles`, `image_lengths` (M,) and
            `image_sizes` (M, 2), (width, height).
        """
        if self.packs:
            return self._packed(examples)
        batch: dict[str, Any] = {
            "ids": self._padded([example["ids"] for example in examples], self.pad_id, torch.long),
            "labels": self._padded([example["labels"] for example in examples], IGNORE, torch.long),
            "instruction": self._padded([example["instruction"] for example in examples], False, torch.bool),
            "mask": self._padded([[True] * len(example["ids"]) for example in examples], False, torch.bool),
            "keys": [example["key"] for example in examples],
        }
        return batch | pictures_of(examples) | self._pixels(examples)

    def _packed(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        texts, order = packed(examples, self.pad_id)
        batch: dict[str, Any] = dict(texts)
        row_of = {int(number): row for row, numbers in enumerate(batch["segments"]) for number in numbers.unique().tolist()}
        ordered = [examples[number] for number in order]
        batch |= {**pictures_of(ordered), "keys": [example["key"] for example in examples]}
        rows = [row_of[number] for number, example in zip(order, ordered, strict=True) for _ in example["sizes"]]
        batch["image_rows"] = torch.tensor(rows, dtype=torch.long)
        batch["row_keys"] = [
            "+".join(str(examples[number]["key"]) for number in numbers.unique().tolist() if number >= 0)
            for numbers in batch["segments"]
        ]
        return batch | self._pixels(ordered)

    def _pixels(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        if self.blank is None:
            return {}
        found = {}
        for name, blank in {"image": self.blank, **self.more}.items():
            stacks = [example[name] for example in examples if name in example]
            found[name] = torch.cat(stacks) if stacks else blank[None]
        return found

    def _padded(self, rows: Sequence[Sequence[Any]], value: Any, dtype: torch.dtype) -> Tensor:
        longest = max(len(row) for row in rows)
        padded = torch.full((len(rows), longest), value, dtype=dtype)
        for number, row in enumerate(rows):
            place = slice(0, len(row)) if self.side == "right" else slice(longest - len(row), longest)
            padded[number, place] = torch.tensor(row, dtype=dtype)
        return padded


def pictures_of(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a batch says of its M pictures."""
    rows = [row for row, example in enumerate(examples) for _ in example["sizes"]]
    return {
        "image_rows": torch.tensor(rows, dtype=torch.long),
        "image_tiles": torch.tensor([n for example in examples for n in example["tiles"]], dtype=torch.long),
        "image_lengths": torch.tensor([n for example in examples for n in example["lengths"]], dtype=torch.long),
        "image_sizes": torch.tensor([s for example in examples for s in example["sizes"]], dtype=torch.long).view(-1, 2),
        "picture_keys": [example["key"] for example in examples for _ in example["sizes"]],
    }
