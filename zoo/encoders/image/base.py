"""The image encoder contract: pixels -> tokens and one vector, cut where features are cached, numbered where rates decay.

A new encoder is one file with a subclass of `ImageEncoder` and one line in `zoo/registry.py` (table ENCODERS, name `image.KIND`), or
the same through the entry-point group `modalign.encoders`. Its kind is found from the files of the folder it is loaded from, never
from the spelling of a path: `recognises` says whether a folder is in its layout.

What the trainers use: `preprocess` (in data workers), `pooled` and `forward` (on the device), `cuts`, `below`, `above`, `lies_below`
(feature caches), `layer_of` and `num_layers` (layer-wise rates), `split_projection` (roles), `set_grad_checkpointing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import AssemblyError, nearest
from ..sources import Source
from .preprocess import ImagePreprocess

OUTPUT = "output"


class ImageEncoder(nn.Module):
    """Maps pictures to token features and to one pooled vector each.

    Attributes:
        width: D of the pooled vector.
        token_width: D of the tokens; some networks pool through a wider layer.
        preprocess: What turns pictures into its input; saved with it.
        prefix_tokens: How many of the tokens stand in front of those of the picture's grid: class tokens, registers.
    """

    prefix_tokens: int = 0
    width: int
    token_width: int
    preprocess: ImagePreprocess
    mean: Tensor
    std: Tensor

    def __init__(self, config: Any, preprocess: ImagePreprocess) -> None:
        """Keeps settings and preprocessing; subclasses add the network.

        Args:
            config: An `ImageEncoderConfig`.
            preprocess: What turns pictures into its input.
        """
        super().__init__()
        self.config = config
        self.preprocess = preprocess
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder holds a model in this encoder's layout."""
        raise NotImplementedError

    @classmethod
    def build(cls, config: Any, source: Source, *, load_weights: bool, preprocess: ImagePreprocess | None) -> ImageEncoder:
        """Builds the encoder from where its files are.

        Args:
            config: An `ImageEncoderConfig`.
            source: The files, or a name that the encoder's own library knows.
            load_weights: False builds the shape only, for weights that come from a release.
            preprocess: Saved preprocessing that stands for the checkpoint's own.
        """
        raise NotImplementedError

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float in the scale the weights were trained with: `(x / 255 - mean) / std`.

        In the order of torchvision's transforms, so that the result is theirs to the last bit; computed in float32.
        """
        scaled = pixels.to(torch.float32, copy=True).div_(255)  # in place: a batch of pixels is large, and memory costs time
        return scaled.sub_(self.mean.float()).div_(self.std.float()).to(self.mean.dtype)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) uint8 -> token features (B, V, token_width) and their mask (B, V), all True for square inputs.

        Args:
            pixels: The pictures.
            mask: Not used by encoders of square inputs.
        """
        features = self.tokens(pixels)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> token features (B, V, token_width)."""
        raise NotImplementedError

    def tokens_of(self, images: Tensor, layer: int | None = None) -> Tensor:
        """Normalised pictures (B, 3, H, W) -> token features (B, prefix + V, token_width), of the output or of one layer.

        Args:
            images: The pictures, as `normalise` gives them.
            layer: As transformers numbers hidden states: 0 enters the first block, -1 leaves the last, without the final norm; None is
                what `tokens` gives.

        Raises:
            AssemblyError: If the encoder gives its output alone.
        """
        raise AssemblyError(
            f"image encoder {self.config.name} gives no tokens of a layer or of changed pictures; leave out feature_layer and methods "
            "that change pictures, or take another encoder"
        )

    def layers_of(self, images: Tensor, layers: Sequence[int | None]) -> list[Tensor]:
        """`tokens_of` for several layers; encoders that know all of them from one pass say so here."""
        return [self.tokens_of(images, layer) for layer in layers]

    def grid_tokens(
        self,
        pixels: Tensor,
        layer: int | Sequence[int | None] | None = None,
        *,
        prefix: bool = False,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(B, 3, H, W) uint8 -> the tokens of the picture's grid (B, V, token_width), row by row.

        Args:
            pixels: The pictures.
            layer: See `tokens_of`; of several the features stand side by side.
            prefix: Keep the tokens in front of them.
            change: Applied to the normalised pictures.

        Raises:
            AssemblyError: See `tokens_of`.
        """
        if layer is None and change is None:
            tokens = self.tokens(pixels)
        else:
            images = self.normalise(pixels)
            layers = [layer] if layer is None or isinstance(layer, int) else list(layer)
            found = self.layers_of(images if change is None else change(images), layers)
            tokens = found[0] if len(found) == 1 else torch.cat(found, dim=-1)
        return tokens if prefix else tokens[:, self.prefix_tokens :]

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, width), pooled as the checkpoint's own head would."""
        raise NotImplementedError

    def num_tokens(self, input_shape: tuple[int, int]) -> int:
        """V for an input of (H, W) pixels, found by one pass over a blank picture; nothing of the encoder changes by it."""
        device, training = next(self.parameters()).device, {module: module.training for module in self.modules()}
        self.eval()  # batch norms would take the blank into their statistics
        try:
            with torch.no_grad():
                return self.tokens(torch.zeros(1, 3, *input_shape, dtype=torch.uint8, device=device)).shape[1]
        finally:
            for module, mode in training.items():
                module.training = mode

    def cuts(self) -> list[str]:
        """The places it can be cut at, input side first; `output` is the pooled vector and always there."""
        return [OUTPUT]

    def below(self, pixels: Tensor, cut: str) -> Tensor:
        """What enters the cut: (B, 3, H, W) uint8 -> features. The cut `output` is the pooled vector itself.

        Raises:
            AssemblyError: If the encoder cannot be cut there.
        """
        self.check_cut(cut)
        return self.pooled(pixels) if cut == OUTPUT else self._below(self.normalise(pixels), cut)

    def above(self, hidden: Tensor, cut: str) -> Tensor:
        """From what enters the cut to the pooled vector (B, width).

        Raises:
            AssemblyError: If the encoder cannot be cut there.
        """
        self.check_cut(cut)
        return hidden if cut == OUTPUT else self._above(hidden.to(self.mean.dtype), cut)

    def lies_below(self, parameter: str, cut: str) -> bool:
        """Whether a parameter (named as in `named_parameters`) works below the cut.

        Raises:
            AssemblyError: If the encoder cannot be cut there.
        """
        self.check_cut(cut)
        return cut == OUTPUT or self._lies_below(parameter, cut)

    def check_cut(self, cut: str) -> None:
        """Raises `AssemblyError` naming the nearest cut where there is no such one."""
        if cut not in self.cuts():
            raise AssemblyError(f"image encoder {self.config.name} cannot be cut at {cut!r}{nearest(cut, self.cuts())}")

    def _below(self, images: Tensor, cut: str) -> Tensor:
        raise NotImplementedError

    def _above(self, hidden: Tensor, cut: str) -> Tensor:
        raise NotImplementedError

    def _lies_below(self, parameter: str, cut: str) -> bool:
        raise NotImplementedError

    @property
    def num_layers(self) -> int:
        """Number of layers for layer-wise rates: blocks, and one before and one after them."""
        raise NotImplementedError

    def layer_of(self, parameter: str) -> int:
        """Layer of a parameter (named as in `named_parameters`): 0 nearest the input, `num_layers - 1` nearest the output."""
        raise NotImplementedError

    def split_projection(self) -> nn.Module | None:
        """Takes the checkpoint's own projection into a joint space off the encoder and returns it; None if it has none.

        A family that has no projector of its own calls this, so that the projection gets the role of a head, and features can be
        cached below it. From then on `width` is the width of what the projection takes.
        """
        return None

    @property
    def quick_gelu(self) -> bool:
        """Whether its network computes OpenAI's approximation of GELU; weights trained with one are wrong with the other."""
        return uses_quick_gelu(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes activations in the backward pass instead of keeping them.

        Raises:
            AssemblyError: If the network cannot.
        """
        raise AssemblyError(
            f"image encoder {self.config.name} cannot recompute activations (gradient checkpointing); turn it off"
        )

    def save_processor(self, folder: Path) -> None:
        """Writes the network's shape into a release's folder, so that it is built without the source it started from."""
        raise NotImplementedError


def uses_quick_gelu(module: nn.Module) -> bool:
    """Whether any part of a network is a QuickGELU, open_clip's or transformers'."""
    return any("QuickGELU" in type(part).__name__ for part in module.modules())
