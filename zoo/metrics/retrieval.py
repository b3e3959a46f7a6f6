"""Recall at K between images and their captions, both ways, for any number of captions per image.

Conventions (CLIP's paper; specs of the common benchmarks): text to image, each caption has one image; image to text, an image counts
as found if *any* of its captions is in the top K (`hit`). `true` recall is the share of an image's captions in the top K: another
number, never larger. A score equal to the right one ranks before it if it stands at a lower index, so that the result is a function
of the scores and not of a sort's whims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import DataError
from .over_ranks import share, summed
from .rows import check_choice, check_finite

KS = (1, 5, 10)
Recall = Literal["hit", "true"]


def ranks(
    queries: Tensor, gallery: Tensor, target: Tensor, chunk: int = 1024, tile: int = 16384, over_ranks: bool = False
) -> Tensor:
    """Rank (0 is best) of each query's own gallery row: `#{j: s_j > s_own, or s_j = s_own and j < own}`.

    Never holds more than `chunk` x `tile` scores. Over ranks each takes some of the chunks, and the ranks are summed; queries, gallery
    and target are then the same on all ranks, and so is the result, bit for bit that of one process.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        target: (Q,) row of the gallery that belongs to each query.
        chunk: Queries scored at a time.
        tile: Gallery rows scored at a time.
        over_ranks: Share the work; a collective.

    Returns:
        (Q,) int64.

    Raises:
        DataError: If a vector is not finite.
    """
    check_finite("retrieval", queries, gallery)
    found = torch.zeros(len(queries), dtype=torch.int64, device=target.device)
    for rows in share(len(queries), chunk, over_ranks):
        found[rows] = _chunk_ranks(queries[rows], gallery, target[rows], tile)
    return summed(found, over_ranks)


def _chunk_ranks(queries: Tensor, gallery: Tensor, target: Tensor, tile: int) -> Tensor:
    """Scores a tile again rather than keep it; the right score comes from the same product as those it is compared with."""
    own = target[:, None]
    tiles = [slice(start, start + tile) for start in range(0, len(gallery), tile)]
    whole = queries @ gallery.T if len(tiles) == 1 else None
    right = queries.new_zeros((len(queries), 1))
    for rows in tiles:
        inside = (own >= rows.start) & (own < rows.stop)
        if bool(inside.any()):
            scores = queries @ gallery[rows].T if whole is None else whole
            right = torch.where(inside, scores.gather(1, (own - rows.start).clamp(0, scores.shape[1] - 1)), right)
    before = torch.zeros_like(target)
    for rows in tiles:
        scores = queries @ gallery[rows].T if whole is None else whole
        positions = torch.arange(rows.start, rows.start + scores.shape[1], device=gallery.device)
        before += ((scores > right) | ((scores == right) & (positions[None] < own))).sum(1)
    return before


def rank_statistics(found: Tensor) -> dict[str, float]:
    """Mean rank, median rank and mean reciprocal rank.

    Args:
        found: (Q,) ranks from 0, as `ranks` gives them.

    Returns:
        `mean_rank` = mean + 1, `median_rank` = floor(median) + 1 (both from 1; open_clip's convention), `MRR` = 100 mean 1/(rank + 1).

    Raises:
        DataError: If there is no query.
    """
    if not len(found):
        raise DataError("rank statistics need at least one query")
    numbers = found.double().sort().values
    middle = (numbers[(len(numbers) - 1) // 2] + numbers[len(numbers) // 2]) / 2
    return {
        "mean_rank": round(numbers.mean().item() + 1, 4),
        "median_rank": middle.floor().item() + 1,
        "MRR": round(100 * (1 / (numbers + 1)).mean().item(), 4),
    }


def retrieval_recall(
    image: Tensor,
    text: Tensor,
    text_row: Tensor,
    ks: Sequence[int] = KS,
    *,
    recall: Recall = "hit",
    statistics: bool = False,
    chunk: int = 1024,
    over_ranks: bool = False,
) -> dict[str, dict[str, float]]:
    """Recall at K in percent, both directions.

    Args:
        image: (I, D) unit vectors.
        text: (N, D) unit vectors.
        text_row: (N,) the image each caption belongs to.
        ks: The K's.
        recall: `hit`, an image is found if any of its captions is in the top K; `true`, the share of its captions that are. A caption
            has one image, so text to image is the same in both.
        statistics: Add `rank_statistics`; of images, over the rank of their best caption.
        chunk: Queries scored at a time.
        over_ranks: Share the work; a collective over vectors that all ranks have.

    Returns:
        `{"text_to_image": {"R@1": ...}, "image_to_text": {...}}`; images without a caption are not counted as queries.

    Raises:
        DataError: If there is no caption.
    """
    check_choice("recall", recall, ("hit", "true"))
    if not len(text):
        raise DataError("retrieval needs at least one caption; check the languages the evaluation asks for")
    text_ranks = ranks(text, image, text_row, chunk, over_ranks=over_ranks)
    captions = torch.arange(len(text), device=text.device)
    caption_ranks = ranks(image[text_row], text, captions, chunk, over_ranks=over_ranks)
    best = _best_of_each(caption_ranks, text_row, len(image))
    found = {
        "text_to_image": {f"R@{k}": _percent(text_ranks < k) for k in ks},
        "image_to_text": {
            f"R@{k}": _percent(best < k) if recall == "hit" else _percent(_share_of_each(caption_ranks < k, text_row)) for k in ks
        },
    }
    if statistics:
        found = {way: found[way] | rank_statistics(r) for way, r in (("text_to_image", text_ranks), ("image_to_text", best))}
    return found


def _best_of_each(caption_ranks: Tensor, text_row: Tensor, images: int) -> Tensor:
    """Rank of the best of each image's captions, for the images that have one."""
    best = torch.full((images,), len(caption_ranks), dtype=caption_ranks.dtype, device=caption_ranks.device)
    best.scatter_reduce_(0, text_row, caption_ranks, reduce="amin")
    return best[torch.bincount(text_row, minlength=images) > 0]


def _share_of_each(found: Tensor, text_row: Tensor) -> Tensor:
    """Share of each image's captions that were found, for the images that have one."""
    captions = torch.bincount(text_row)
    hits = torch.bincount(text_row, weights=found.double())
    return hits[captions > 0] / captions[captions > 0]


def _percent(hits: Tensor) -> float:
    return round(100.0 * hits.double().mean().item(), 4)


def chance_recall(images: int, k: int) -> float:
    """Percent of text-to-image queries that random scores would answer within the top K."""
    return round(100.0 * min(k, images) / images, 4)


class RetrievalMetric:
    """Collects vectors over batches and computes recall over all of them, in all and by language.

    Batches carry `image_embedding` (B, D), `text_embedding` (N, D), `text_row` (N,) row within the batch and `text_lang` (list of N).

    Args:
        recall: `hit` or `true`, see `retrieval_recall`.
        statistics: Add mean and median rank and the mean reciprocal rank.
        over_ranks: Every rank was given the same batches; share the scoring.
    """

    primary = "text_to_image/R@10"

    def __init__(self, recall: Recall = "hit", statistics: bool = False, over_ranks: bool = False) -> None:
        self.images: list[Tensor] = []
        self.texts: list[Tensor] = []
        self.rows: list[Tensor] = []
        self.languages: list[str] = []
        self.count = 0
        self.settings: dict[str, Any] = {"recall": recall, "statistics": statistics, "over_ranks": over_ranks}

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
        return retrieval_recall(image, text[chosen], rows[chosen], **self.settings)


def _mean(tables: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    first = tables[0]
    return {way: {k: round(sum(t[way][k] for t in tables) / len(tables), 4) for k in first[way]} for way in first}


def flatten(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`{"text_to_image": {"R@1": 3}}` -> `{"text_to_image/R@1": 3}`."""
    return {f"{way}/{name}": value for way, table in metrics.items() for name, value in table.items()}
