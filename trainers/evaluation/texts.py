"""Text vectors of a model, each distinct text embedded once, whichever task asks for it, before and after the projector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..caches import KeyedVectors
from .dealing import embed_over_ranks

PROJECTED_AT_ONCE = 4096


class TextVectors:
    """Texts -> vectors, remembered.

    Args:
        model: A dual encoder.
        cached: What its text encoder gives, for texts that were embedded before.
        over_ranks: Every rank embeds its share; then `features` and `vectors` are collectives.
    """

    def __init__(self, model: Any, cached: KeyedVectors | None = None, over_ranks: bool = False) -> None:
        self.model, self.cached, self.over_ranks = model, cached, over_ranks
        self._rows: dict[str, int] = {}
        self._features = torch.empty(0, 0)

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], keep: bool = True) -> Tensor:
        """(N, D) unit vectors on the CPU, after the projector.

        Args:
            texts: The texts; the same on all ranks.
            keep: Remember their features.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return torch.empty(0, self.model.config.embed_dim)
        features = self.features(distinct, keep)
        starts = range(0, len(distinct), PROJECTED_AT_ONCE)
        found = torch.cat([self.model.project_text(features[start : start + PROJECTED_AT_ONCE]) for start in starts])
        where = {text: row for row, text in enumerate(distinct)}
        return found[[where[text] for text in texts]]

    @torch.inference_mode()
    def features(self, texts: Sequence[str], keep: bool = True) -> Tensor:
        """(N, D_text) float32 on the CPU: what the text encoder gives, before the projector.

        Args:
            texts: The texts; the same on all ranks.
            keep: Remember them.
        """
        distinct = list(dict.fromkeys(texts))
        missing = [text for text in distinct if text not in self._rows]
        made = self._made(missing) if missing else None
        if not keep and made is not None:
            return _looked_up(texts, self._rows | {t: len(self._rows) + i for i, t in enumerate(missing)}, self._joined(made))
        if made is not None:
            self._features = self._joined(made)
            self._rows |= {text: len(self._rows) + row for row, text in enumerate(missing)}
        return _looked_up(texts, self._rows, self._features)

    def _joined(self, made: Tensor) -> Tensor:
        return torch.cat((self._features, made)) if len(self._features) else made

    def _made(self, texts: list[str]) -> Tensor:
        cached = [text for text in texts if self.cached is not None and text in self.cached]
        if self.cached is not None and len(cached) == len(texts):
            return self.cached.take(texts)
        new = [text for text in texts if self.cached is None or text not in self.cached]
        self.model.eval()
        made = embed_over_ranks(self.model.text, new) if self.over_ranks else self.model.text.embed(new)
        if not cached:
            return made
        assert self.cached is not None
        where = {text: row for row, text in enumerate([*new, *cached])}
        return torch.cat((made, self.cached.take(cached)))[[where[text] for text in texts]]


def _looked_up(texts: Sequence[str], rows: dict[str, int], features: Tensor) -> Tensor:
    return features[[rows[text] for text in texts]]
