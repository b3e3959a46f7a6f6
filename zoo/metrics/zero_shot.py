"""Zero-shot classification: classes are texts, a picture belongs to the class whose text is nearest (Radford et al. 2021).

`w_c = unit(mean_t unit(f(template_t(c))))`, logits `100 x.w_c`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError
from .retrieval import ranks
from .rows import check_finite, unit


def class_vectors(prompts: Tensor) -> Tensor:
    """One unit vector per class from its prompts: the mean of their unit vectors, made a unit vector again.

    Args:
        prompts: (C, T, D) vectors of T prompts per class, of any length.

    Returns:
        (C, D).
    """
    return unit(unit(prompts).mean(1))


def logits(image: Tensor, classes: Tensor, scale: float = 100.0) -> Tensor:
    """(I, C) `scale * x.w`.

    Args:
        image: (I, D) unit vectors.
        classes: (C, D) from `class_vectors`.
        scale: CLIP's 100.
    """
    return scale * image @ classes.T


def zero_shot_accuracy(
    image: Tensor,
    classes: Tensor,
    label: Tensor,
    ks: Sequence[int] = (1, 5),
    chunk: int = 1024,
    over_ranks: bool = False,
) -> dict[str, float]:
    """Accuracy in percent: `top1`, `top5`, and `mean_per_class`, the mean over classes of each class's own top-1.

    Mean per class is what Caltech101, Pets, Aircraft and Flowers are reported in. Of equal scores the class with the lower number wins.

    Args:
        image: (I, D) unit vectors.
        classes: (C, D) unit vectors.
        label: (I,) class of each picture; a class without a picture is not averaged over.
        ks: The K's of `topK`.
        chunk: Pictures at a time.
        over_ranks: Share the pictures; a collective over vectors that all ranks have.

    Raises:
        DataError: If there is no picture, or a label is no class.
    """
    check_finite("zero-shot classification", image, classes)
    if not len(image) or int(label.min()) < 0 or int(label.max()) >= len(classes):
        raise DataError(
            f"zero-shot classification needs pictures with labels from 0 to {len(classes) - 1}; got {len(image)} pictures"
        )
    found = ranks(image, classes, label, chunk, over_ranks=over_ranks)
    result = {f"top{k}": round(100 * (found < k).double().mean().item(), 4) for k in ks}
    pictures = torch.bincount(label)
    hits = torch.bincount(label, weights=(found == 0).double())
    return result | {"mean_per_class": round(100 * (hits[pictures > 0] / pictures[pictures > 0]).mean().item(), 4)}


def chance_accuracy(classes: int, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """What guessing gives, in percent."""
    return {f"top{k}": round(100 * min(k, classes) / classes, 4) for k in ks} | {"mean_per_class": round(100 / classes, 4)}
