"""The places of a stack where a method adds something of its own.

| place | what it is given and gives back | who uses it |
|---|---|---|
| `pre_image` | normalised pictures (N, 3, S, S) -> the same | an overlay on the picture |
| `post_projector` | features (N, V, D) of the tiles -> (N, V', D) | packing, pooling |
| `token_source` | the batch -> (M, K, D), placed behind each picture's own tokens | queries of a detector |
| `sequence_prefix` | the batch and its text embeddings -> (B, K, D), placed behind the start token | a vector for the pair |
| `extra_vocabulary` | embeddings (E, D) beside the token table, and beside the output layer | coordinates |
| `aux_heads` | states (B, T, D) and the batch -> named tensors, for losses | masks |

A hook is a module; what it does not define is left out, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..configure import fill
from ..encoders.image.preprocess import ImagePreprocess
from ..registry import HOOKS


@dataclass(frozen=True)
class Surroundings:
    """What a hook is told of the stack it is built into.

    Attributes:
        width: D of the language model.
        preprocess: Of the image encoder, for one tile.
        tokens: V' of a tile after the projector.
        release: Folder of a release that supplies weights; then a hook reads no source.
    """

    width: int
    preprocess: ImagePreprocess
    tokens: int
    release: Path | None = None


class StackHook(nn.Module):
    """What a method adds to a stack.

    Args:
        around: The stack it is built into.

    Attributes:
        extra_tokens: K of `token_source`.
        prefix_tokens: K of `sequence_prefix`.
        prefix_always: Whether rows without a picture get the prefix too.
        pixels_too: Field of the batch with further pixels of every picture, prepared by `prepare`; None for none.
    """

    extra_tokens: int = 0
    prefix_tokens: int = 0
    prefix_always: bool = False
    pixels_too: str | None = None

    def __init__(self, around: Surroundings) -> None:
        super().__init__()
        self.around = around

    def role_of(self, parameter: str) -> str:
        """The role of one of its parameters: `aux` unless it says otherwise."""
        return "aux"

    def pre_image(self, images: Tensor) -> Tensor:
        """Normalised pictures (N, 3, S, S) -> the same."""
        return images

    def post_projector(self, features: Tensor) -> Tensor:
        """Features of the tiles (N, V, D) -> (N, V', D)."""
        return features

    def num_tokens(self, tokens: int) -> int:
        """V' for V tokens of a tile."""
        return tokens

    def token_source(self, batch: Mapping[str, Any], pictures: int) -> Tensor:
        """(M, K, D) for the M pictures of a batch; called only where `extra_tokens` is above 0."""
        raise NotImplementedError

    def sequence_prefix(self, batch: Mapping[str, Any], embeddings: Tensor, features: Tensor) -> Tensor:
        """(B, K, D), of which the rows that have placeholders for it are taken; called only where `prefix_tokens` is above 0.

        Args:
            batch: The batch.
            embeddings: Token embeddings (B, T, D), placeholders not yet filled.
            features: Projected features of the tiles (N, V, D).
        """
        raise NotImplementedError

    def extra_vocabulary(self) -> tuple[Tensor, Tensor] | None:
        """Embeddings (E, D) of ids beyond the table, for the input and for the output; None for none."""
        return None

    def aux_heads(self, states: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Named tensors for losses, made of the states (B, T, D)."""
        return {}

    def changes_pictures(self) -> bool:
        """Whether `pre_image` does anything."""
        return type(self).pre_image is not StackHook.pre_image

    def after_step(self) -> None:
        """What must be kept within bounds after an optimiser step."""

    def meet(self, hooks: Mapping[str, StackHook]) -> None:
        """Is shown all hooks of the stack once they are built, itself among them, so that it may use what another one has."""

    def resolved(self) -> dict[str, Any]:
        """Settings that were read from sources, as plain values: they take their place in the stack's, for a release has no sources."""
        return {}


def build_hooks(settings: dict[str, dict[str, Any]], around: Surroundings) -> nn.ModuleDict:
    """The hooks that settings name, in their order.

    Args:
        settings: Name of the registry -> its settings; what hooks read from sources is put into it.
        around: The stack.

    Raises:
        AssemblyError: If there is no such hook, or it does not fit the stack.
        RecipeError: If a setting is wrong.
    """
    built: dict[str, Any] = {
        name: fill(HOOKS.get(name), dict(own or {}), f"model.hooks.{name}", around=around) for name, own in settings.items()
    }
    for name, hook in built.items():
        hook.meet(built)
        settings[name] = {**(settings[name] or {}), **hook.resolved()}
    return nn.ModuleDict(built)
