"""Any model of this zoo for clip-benchmark: (model, transform, tokenizer) as its tasks want them.

In Python, `clip_benchmark_model(MODEL)` gives the three for `clip_benchmark.metrics`. On the command line,
`python -m modalign.zoo.checkpoints.clip_benchmark eval --model_type modalign --model modalign --pretrained MODEL …` is clip-benchmark's
own command with the model type `modalign` added; all other options are clip-benchmark's.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AssemblyError


class BenchmarkModel(nn.Module):
    """`encode_image` and `encode_text` over tensors, from a dual encoder.

    Args:
        model: A dual encoder.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 from `transform` -> unit vectors (B, D)."""
        return self.model({"image": images})["image_embedding"]

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, 2, T) ids and masks from `BenchmarkTokenizer` -> unit vectors (N, D)."""
        return self.model({"text_ids": tokens[:, 0], "text_mask": tokens[:, 1]})["text_embedding"]


class BenchmarkTokenizer:
    """Strings -> one tensor (N, 2, T) with ids and masks, which is what clip-benchmark moves to the device.

    Args:
        tokenize: A text encoder's tokenizer.
    """

    def __init__(self, tokenize: Any) -> None:
        self.tokenize = tokenize

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """One string or several."""
        tokens = self.tokenize([texts] if isinstance(texts, str) else list(texts))
        return torch.stack((tokens["ids"], tokens["mask"]), 1)


def clip_benchmark_model(name: str | Path, device: str | torch.device = "cpu") -> tuple[BenchmarkModel, Any, BenchmarkTokenizer]:
    """(model, transform, tokenizer) of a release or of any name `zoo.load` takes.

    Args:
        name: The model.
        device: Where to compute.

    Returns:
        The model in eval mode, a picture -> (3, H, W) uint8 function, and the tokenizer.

    Raises:
        AssemblyError: If the model does not embed pictures and texts.
    """
    from .release import load

    repair_accuracy()
    model = load(name, device)
    if not hasattr(model, "text_projector"):
        raise AssemblyError(f"{name}: family {model.family!r} does not embed pictures and texts, which clip-benchmark measures")
    return BenchmarkModel(model).eval(), model.image.preprocess, BenchmarkTokenizer(model.text.tokenizer())


def repair_accuracy() -> None:
    """Lets clip-benchmark count its hits with numpy 2.4 and later; does nothing where it is not installed or can.

    clip-benchmark 1.6.2 turns an array of one element into a number, which numpy no longer does. The count put in its place is the same.
    """
    if find_spec("clip_benchmark") is None:
        return
    from clip_benchmark.metrics import zeroshot_classification

    try:
        zeroshot_classification.accuracy(torch.eye(2), torch.arange(2))
    except TypeError:
        zeroshot_classification.accuracy = _accuracy


def _accuracy(output: Tensor, target: Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    """Share of rows whose target is among the k largest outputs, for each k."""
    hits = output.topk(max(topk), 1).indices.eq(target.view(-1, 1))
    return [hits[:, :k].any(1).float().mean().item() for k in topk]


def register() -> None:
    """Adds the model type `modalign` to clip-benchmark's table, for its command line."""
    from clip_benchmark import models

    repair_accuracy()

    def load_modalign(model_name: str, pretrained: str = "", cache_dir: str | None = None, device: str = "cpu") -> Any:
        return clip_benchmark_model(pretrained or model_name, device)

    models.TYPE2FUNC["modalign"] = load_modalign
    if "modalign" not in models.MODEL_TYPES:
        models.MODEL_TYPES.append("modalign")


def main() -> None:
    """clip-benchmark's own command line, with `--model_type modalign`."""
    register()
    from clip_benchmark.cli import main as their_main

    their_main()


if __name__ == "__main__":
    main()
