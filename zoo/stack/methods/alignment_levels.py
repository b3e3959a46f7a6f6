"""The alignment levels of AlignGPT: one vector behind the start token that says how well picture and text fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...errors import AssemblyError, RecipeError
from ...language.encode import PREFIX_PLACEHOLDER
from ..hooks import StackHook, Surroundings
from .level_gate import LevelGate, combined_level, mean_embedding


class AlignmentLevels(StackHook):
    """A table H (N, D) of levels, Xavier-uniform, and a gate that weighs them.

    The batch decides what a row gets. With `level` (pairs whose level is known: pre-training) it is that row of H; without (tuning and
    use) it is H[N-1] and the others weighed by the gate. Rows without a picture get no vector.

    Source: AlignGPT (arXiv 2405.14129) and its official code.

    Args:
        around: The stack.
        levels: N; level N - 1 is the best aligned.
        hidden: Width of the gate.
        gate_text: Whose words the gate reads: `instruction`, the user's (the paper), or `all` tokens of the conversation behind the
            vector, answers too (the official code, which at use has the prompt alone).
        several: A row with several pictures or tiles is refused, for the paper has one, or their products are averaged.
        insert: False leaves the vector out, to the bit.

    Raises:
        RecipeError: If a number is out of range.
    """

    def __init__(
        self,
        around: Surroundings,
        levels: int = 8,
        hidden: int = 256,
        gate_text: Literal["instruction", "all"] = "instruction",
        several: Literal["refuse", "average"] = "refuse",
        insert: bool = True,
    ) -> None:
        super().__init__(around)
        if levels < 2 or hidden < 1:
            raise RecipeError(
                f"model.hooks.alignment_levels: levels {levels} must be 2 or more, hidden {hidden} must be 1 or more"
            )
        self.gate_text, self.several = gate_text, several
        self.prefix_tokens = 1 if insert else 0
        self.table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(levels, around.width)))
        self.gate = LevelGate(around.tokens, levels, hidden)

    def sequence_prefix(self, batch: Mapping[str, Any], embeddings: Tensor, features: Tensor) -> Tensor:
        """(B, 1, D), see `StackHook.sequence_prefix`.

        Raises:
            AssemblyError: If a level is not in the table, a row has several pictures and they are refused, or rows are packed.
        """
        if "mask" not in batch:
            raise AssemblyError("alignment_levels: a packed row has several conversations, but gets one vector; do not pack rows")
        if "level" in batch:
            return self._known(batch)[:, None]
        return combined_level(self.table, self.weights(batch, embeddings, features))[:, None]

    def weights(self, batch: Mapping[str, Any], embeddings: Tensor, features: Tensor) -> Tensor:
        """The weights alpha (B, N - 1) of a batch; arguments as in `sequence_prefix`."""
        text = mean_embedding(embeddings, self._words(batch)).to(features.dtype)
        return self.gate(self._products(batch, text, features))

    def _known(self, batch: Mapping[str, Any]) -> Tensor:
        level = batch["level"]
        wrong = ((level < 0) | (level >= len(self.table))).nonzero().flatten().tolist()
        if wrong:
            raise AssemblyError(
                f"sample {_name(batch, wrong[0])}: level {int(level[wrong[0]])} is none of the {len(self.table)} there are; make "
                f"levels with --levels {len(self.table)}, or set model.hooks.alignment_levels.levels"
            )
        return self.table[level]

    def _words(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, T), True for the tokens whose embeddings are averaged."""
        ids, there = batch["ids"], batch["mask"]
        if self.gate_text == "instruction":
            return batch["instruction"] & there
        behind = (ids == PREFIX_PLACEHOLDER).cumsum(1) > 0  # without the start token
        return there & behind & (ids >= 0)

    def _products(self, batch: Mapping[str, Any], text: Tensor, features: Tensor) -> Tensor:
        """The d (B, V): products of a row's picture tokens with its text; zero for rows without a picture.

        A batch without any picture has a blank one, which counts for its first row, so that the gate is in every graph.
        """
        if features.shape[1] != self.around.tokens:
            raise AssemblyError(
                f"alignment_levels: the gate is made for {self.around.tokens} tokens of a tile, but another hook makes them "
                f"{features.shape[1]}; take that hook out"
            )
        rows = self._tile_rows(batch, len(features))
        products = torch.einsum("nvd,nd->nv", features, text[rows])
        counts = torch.bincount(rows, minlength=len(text))
        if self.several == "refuse" and bool((counts > 1).any()):
            first = int((counts > 1).nonzero()[0])
            raise AssemblyError(
                f"sample {_name(batch, first)}: {int(counts[first])} pictures or tiles share one conversation, and the gate of "
                "alignment_levels is made for one; show one, or set model.hooks.alignment_levels.several: average"
            )
        summed = products.new_zeros(len(text), products.shape[1]).index_add(0, rows, products)
        return summed / counts.clamp(min=1).unsqueeze(1)

    @staticmethod
    def _tile_rows(batch: Mapping[str, Any], tiles: int) -> Tensor:
        if not len(batch["image_rows"]):
            return batch["ids"].new_zeros(tiles)
        return batch["image_rows"].repeat_interleave(batch["image_tiles"])


def _name(batch: Mapping[str, Any], row: int) -> str:
    keys = batch.get("keys", ())
    return repr(keys[row]) if row < len(keys) else str(row)
