"""Recall at K between images and their captions, both ways, for any number of captions per image.

Conventions (CLIP's paper; specs of the common benchmarks): text to image, each caption has one image; image to text, an image counts
as found if *any* of its captions is in the top K. A score equal to the right one ranks before it
if it stands at a lower index, so that the result is a function of the scores and not of a sort's whims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError

KS = (1, 5, 10)


def ranks(queries: Tensor, gallery: Tensor, target: Tensor, chunk: int = 1024) -> Tensor:
    """Rank (0 is best) of each query's own gallery row; never holds more than `chunk` rows of scores.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        target: (Q,) row of the gallery that belongs to each query.
        chunk: Queries scored at a time.

    Returns:
        (Q,) int64.
    """
    if not (torch.isfinite(queries).all() and torch.isfinite(gallery).all()):
        raise DataError("retrieval: some vectors are not finite numbers; the model is broken (did its training diverge?)")
    positions = torch.arange(len(gallery), device=gallery.device)
    out = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ gallery.T
        own = target[start : start + chunk, None]
        right = scores.gather(1, own)
        before = (scores > right) | ((scores == right) & (positions[None] < own))
        out.append(before.sum(1))
    return torch.cat(out) if out else target.new_zeros(0)


def retrieval_recall(image: Tensor, text: Tensor, text_row: Tensor, ks: Sequence[int] = KS) -> dict[str, dict[str, float]]:
    """Recall at K in percent, both directions, hit-style.

    Args:
        image: (I, D) unit vectors.
        text: (N, D) unit vectors.
        text_row: (N,) the image each caption belongs to.
        ks: The K's.

    Returns:
        `{"text_to_image": {"R@1": ...}, "image_to_text": {...}}`; images without a caption are not counted as queries.

    Raises:
        DataError: If there is no caption.
    """
    if not len(text):
        raise DataError("retrieval needs at least one caption; check the languages the evaluation asks for")
    text_ranks = ranks(text, image, text_row)
    image_ranks = _best_caption_ranks(image, text, text_row)
    return {
        "text_to_image": {f"R@{k}": _percent(text_ranks < k) for k in ks},
        "image_to_text": {f"R@{k}": _percent(image_ranks < k) for k in ks},
    }


def _best_caption_ranks(image: Tensor, text: Tensor, text_row: Tensor) -> Tensor:
    """Rank of the best of each image's captions, for the images that have one."""
    caption_ranks = ranks(image[text_row], text, torch.arange(len(text), device=text.device))
    best = torch.full((len(image),), len(text), dtype=caption_ranks.dtype, device=caption_ranks.device)
    best.scatter_reduce_(0, text_row, caption_ranks, reduce="amin")
    return best[torch.bincount(text_row, minlength=len(image)) > 0]


def _percent(hits: Tensor) -> float:
    return round(100.0 * hits.double().mean().item(), 4)


def chance_recall(images: int, k: int) -> float:
    """Percent of text-to-image queries that random scores would answer within the top K."""
    return round(100.0 * min(k, images) / images, 4)


class RetrievalMetric:
    """Collects vectors over batches and computes recall over all of them, in all and by language.

    Batches carry `image_embedding` (B, D), `text_embedding` (N, D), `text_row` (N,) row within the batch and `text_lang` (list of N).
    """

    primary = "text_to_image/R@10"

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.texts: list[Tensor] = []
        self.rows: list[Tensor] = []
        self.languages: list[str] = []
        self.count = 0

    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds one batch."""
        self.images.append(outputs["image_embedding"].detach().float().cpu())
        self.texts.append(outputs["text_embedding"].detach().float().cpu())
        self.rows.append(batch["text_row"].cpu() + self.count)
        self.languages += batch["text_lang"]
        self.count += len(outputs["image_embedding"])

    def compute(self) -> dict[str, Any]:
        """Returns `{"metrics": recalls over all captions, "by_language": {lang: recalls}}`."""
        image, text, rows = torch.cat(self.images), torch.cat(self.texts), torch.cat(self.rows)
        languages = list(dict.fromkeys(self.languages))
        if not languages:
            raise DataError("retrieval needs captions, and there is none in the languages asked for")
        by_language = {lang: self._of_language(image, text, rows, lang) for lang in languages}
        overall = by_language[languages[0]] if len(languages) == 1 else _mean(list(by_language.values()))
        return {"metrics": overall, "by_language": by_language}

    def _of_language(self, image: Tensor, text: Tensor, rows: Tensor, lang: str) -> dict[str, dict[str, float]]:
        chosen = torch.tensor([i for i, name in enumerate(self.languages) if name == lang])
        return retrieval_recall(image, text[chosen], rows[chosen])


def _mean(tables: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    first = tables[0]
    return {way: {k: round(sum(t[way][k] for t in tables) / len(tables), 4) for k in first[way]} for way in first}


def flatten(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`{"text_to_image": {"R@1": 3}}` -> `{"text_to_image/R@1": 3}`."""
    return {f"{way}/{name}": value for way, table in metrics.items() for name, value in table.items()}
