"""What a stack computes: features, projected features, embeddings with everything in its place, states, logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import AssemblyError
from ..language.encode import IGNORE, IMAGE_PLACEHOLDER, PREFIX_PLACEHOLDER
from .parts import StackParts
from .splice import check_counts, lay_out, splice


class StackComputing(StackParts):
    """The way of a batch through the parts; see `StackModel`."""

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 -> the encoder's features (N, V, D_v), before the projector; what a cache keeps."""
        changing = [hook.pre_image for hook in self.hooks.values() if hook.changes_pictures()]

        def change(images: Tensor) -> Tensor:
            for apply in changing:
                images = apply(images)
            return images

        layers = self.feature_layers
        chosen = layers[0] if len(layers) == 1 else layers
        return self.image.grid_tokens(pixels, chosen, prefix=self.config.keep_prefix, change=change if changing else None)

    def projected(self, batch: Mapping[str, Any]) -> Tensor:
        """Features of a batch's tiles, in the width of the language model (N, V', D)."""
        features = batch["image_features"] if "image_features" in batch else self.features(batch["image"])
        if (weight := next(self.projector.parameters(), None)) is not None and not torch.is_autocast_enabled(
            features.device.type
        ):
            features = features.to(weight.dtype)
        projected = self.projector(features)
        for hook in self.hooks.values():
            projected = hook.post_projector(projected)
        return projected

    def embed(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, T, D): embeddings of the text with everything else in its places.

        Raises:
            AssemblyError: If places and features differ in number; both and the sample are named.
        """
        ids = batch["ids"]
        embeddings = self.embed_ids(ids)
        if "image" not in batch and "image_features" not in batch:
            if bool(((ids == IMAGE_PLACEHOLDER) | (ids == PREFIX_PLACEHOLDER)).any()):
                raise AssemblyError(
                    "the batch has placeholders for pictures or a prefix, but no pictures; prepare it with the model's own collate"
                )
            return embeddings
        tiles = self.projected(batch)
        tokens = self._media_tokens(tiles, batch)
        lengths, rows = batch["image_lengths"].tolist(), batch["image_rows"].tolist()
        check_counts(ids, IMAGE_PLACEHOLDER, lengths, rows, batch.get("row_keys", batch.get("keys", ())), "picture")
        if rows and len(tokens) != sum(lengths):
            raise AssemblyError(
                f"{sum(lengths)} placeholders for picture features, but {len(tokens)} features; ids and pictures must be prepared by the "
                "same model's settings"
            )
        spliced = splice(embeddings, ids, IMAGE_PLACEHOLDER, tokens)
        return self._with_prefix(spliced, embeddings, tiles, batch)

    def embed_ids(self, ids: Tensor, table: Any = None) -> Tensor:
        """(B, T) -> (B, T, D); of placeholders that of the first token, to be replaced.

        Args:
            ids: The ids, of the extra vocabulary too.
            table: The language model's token table, where another one stands in its place.
        """
        embed, known = table or self.language.embed, ids.clamp(min=0)
        beyond = self.extra_vocabulary()
        if beyond is None:
            return embed(known)
        size = self.language.vocabulary
        base = embed(known.clamp(max=size - 1))
        extra = beyond[0][(known - size).clamp(min=0)].to(base.dtype)
        return torch.where((known >= size).unsqueeze(-1), extra, base)

    def extra_vocabulary(self) -> tuple[Tensor, Tensor] | None:
        """Embeddings (E, D) of the hooks' own tokens, whose ids follow the language model's, for input and output; None for none."""
        found = [pair for hook in self.hooks.values() if (pair := hook.extra_vocabulary()) is not None]
        if not found:
            return None
        return torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found])

    def _media_tokens(self, tiles: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """(Σ lengths, D): the tokens of all pictures in reading order; of a batch without one, the blank's, to be put nowhere."""
        sources = [hook for hook in self.hooks.values() if hook.extra_tokens]
        pictures = len(batch["image_rows"])
        beside = [hook.token_source(batch, max(1, pictures)) for hook in sources]
        if not pictures:
            line = [] if self.newline is None else [self.newline[None, None].to(tiles)]
            return torch.cat([part.flatten(0, 1) for part in (tiles, *line, *beside)])
        if self.layout.config.mode != "anyres" and not beside:
            return tiles.flatten(0, 1)
        found: list[Tensor] = []
        for number, own in enumerate(tiles.split(batch["image_tiles"].tolist())):
            found.append(self._one(own, tuple(batch["image_sizes"][number].tolist())))
            found += [part[number].to(own) for part in beside]
        return torch.cat(found)

    def _one(self, tiles: Tensor, size: Any) -> Tensor:
        """The tokens of one picture; whether it stands alone is told by its tiles, for rows may hold several conversations."""
        if self.layout.config.mode != "anyres":
            return tiles[0]
        assert self.layout.grid is not None
        return lay_out(tiles, self.layout.grid, self.layout.map_of(size) if len(tiles) > 1 else None, self.newline)

    def _with_prefix(self, spliced: Tensor, embeddings: Tensor, tiles: Tensor, batch: Mapping[str, Any]) -> Tensor:
        hooks = [hook for hook in self.hooks.values() if hook.prefix_tokens]
        if not hooks:
            return spliced
        vectors = torch.cat([hook.sequence_prefix(batch, embeddings, tiles) for hook in hooks], dim=1)
        places = (batch["ids"] == PREFIX_PLACEHOLDER).sum(1)
        rows = places > 0
        if bool((wrong := rows & (places != vectors.shape[1])).any()):
            row = int(wrong.nonzero()[0])
            raise AssemblyError(
                f"sample {_key(batch, row)!r}: {int(places[row])} placeholders for a prefix of {vectors.shape[1]} vectors; ids must be "
                "prepared by the same model's settings, a conversation in each row"
            )
        chosen = vectors[rows] if bool(rows.any()) else vectors
        return splice(spliced, batch["ids"], PREFIX_PLACEHOLDER, chosen.flatten(0, 1))

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Runs the stack.

        Args:
            batch: Of `StackCollate`: `ids` (B, T), and `mask` (B, T) or, of packed rows, `positions` (B, T); `image` (N, 3, S, S) or
                `image_features` (N, V, D_v), with `image_rows`, `image_tiles`, `image_lengths`, `image_sizes`; perhaps `labels` (B, T).

        Returns:
            With labels: of the K positions that predict a token to be learnt `token_states` (K, D), `token_labels` (K,) and `token_rows`
            (K,), the number of the sample, and `head_weight`, `head_bias` of the output layer; of language models whose logits are more
            than that, `token_logits` (K, V) instead. Without labels: `logits` (B, T, V). And what hooks add.

        Raises:
            AssemblyError: If places and features differ in number, or a text is longer than the model's positions.
        """
        embeddings = self.embed(batch)
        positions = batch.get("positions")
        states = self.language.states(embeddings, None if positions is not None else batch.get("mask"), positions)
        outputs: dict[str, Tensor] = {}
        for hook in self.hooks.values():
            outputs |= hook.aux_heads(states, batch)
        if "labels" not in batch:
            return outputs | {"logits": self.logits(states)}
        return outputs | self._learnt(states, batch["labels"], positions, batch.get("segments"))

    def _learnt(self, states: Tensor, labels: Tensor, positions: Tensor | None, segments: Tensor | None) -> dict[str, Tensor]:
        """What losses read: nothing of positions that predict nothing, such as the last of a sequence before another in a packed row."""
        following = labels[:, 1:]
        wanted = following != IGNORE
        if positions is not None:
            wanted = wanted & (positions[:, 1:] > positions[:, :-1])
        rows, places = wanted.nonzero(as_tuple=True)
        found = {"token_labels": following[rows, places], "token_rows": rows if segments is None else segments[rows, places]}
        chosen = states[rows, places]
        if not self.language.plain_head:
            return found | {"token_logits": self.logits(chosen)}
        weight, bias = self.head()
        found |= {"token_states": chosen, "head_weight": weight}
        return found if bias is None else found | {"head_bias": bias}

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight (V, D) and bias of the output layer, of the extra vocabulary too."""
        weight, bias = self.language.head()
        beyond = self.extra_vocabulary()
        if beyond is None:
            return weight, bias
        extra = None if bias is None else torch.cat([bias, bias.new_zeros(len(beyond[1]))])
        return torch.cat([weight, beyond[1].to(weight.dtype)]), extra

    def logits(self, states: Tensor) -> Tensor:
        """States (…, D) -> logits (…, V), of the extra vocabulary too."""
        return self.language.logits(states, None if self.extra_vocabulary() is None else self.head())


def _key(batch: Mapping[str, Any], row: int) -> Any:
    keys = batch.get("row_keys", batch.get("keys", ()))
    return keys[row] if row < len(keys) else row
