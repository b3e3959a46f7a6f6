"""The best K rows of a gallery for each query, in tiles: what neighbours, translations and ranked lists are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError
from .over_ranks import share, summed


def top_rows(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    scale: float = 1.0,
    penalty: Tensor | None = None,
    exclude_self: bool = False,
    chunk: int = 1024,
    tile: int = 16384,
    over_ranks: bool = False,
) -> tuple[Tensor, Tensor]:
    """The K best gallery rows of each query by `scale * q.g - penalty_g`; equal scores in the order of their rows.

    Never holds more than `chunk` x `tile` scores.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        k: How many.
        scale: Factor of the inner products.
        penalty: (G,) taken off each gallery row's score.
        exclude_self: Query i is gallery row i and not its own neighbour.
        chunk: Queries at a time.
        tile: Gallery rows at a time.
        over_ranks: Share the queries; a collective over vectors that all ranks have.

    Returns:
        Scores (Q, K) and rows (Q, K), best first.

    Raises:
        DataError: If there are fewer than K rows to choose from.
    """
    available = len(gallery) - exclude_self
    if not 1 <= k <= available:
        raise DataError(f"there are {available} rows to choose the best {k} from; ask for between 1 and {available}")
    scores = queries.new_zeros((len(queries), k))
    rows = torch.zeros((len(queries), k), dtype=torch.int64, device=queries.device)
    for part in share(len(queries), chunk, over_ranks):
        own = torch.arange(part.start, part.stop, device=queries.device) if exclude_self else None
        scores[part], rows[part] = _best_of_chunk(queries[part], gallery, k, scale, penalty, own, tile)
    return summed(scores, over_ranks), summed(rows, over_ranks)


def mean_top(queries: Tensor, gallery: Tensor, k: int, chunk: int = 1024, tile: int = 16384) -> Tensor:
    """Mean score of each query's K best gallery rows, (Q,): how crowded it is around a vector.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        k: How many; as many as there are, if there are fewer.
        chunk: Queries at a time.
        tile: Gallery rows at a time.
    """
    return top_rows(queries, gallery, min(k, len(gallery)), chunk=chunk, tile=tile)[0].mean(1)


def _best_of_chunk(
    queries: Tensor, gallery: Tensor, k: int, scale: float, penalty: Tensor | None, own: Tensor | None, tile: int
) -> tuple[Tensor, Tensor]:
    """Merges the best of each tile with the best so far; both stand in the order (score, row), so a stable sort keeps it."""
    best = queries.new_empty((len(queries), 0))
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(gallery), tile):
        scores = scale * (queries @ gallery[start : start + tile].T)
        if penalty is not None:
            scores = scores - penalty[start : start + tile]
        if own is not None:
            inside = (own >= start) & (own < start + scores.shape[1])
            scores[inside.nonzero()[:, 0], own[inside] - start] = float("-inf")
        values, places = ordered_top(scores, min(k, scores.shape[1]))
        best, rows = torch.cat((best, values), 1), torch.cat((rows, places + start), 1)
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, rows = best[:, :k], rows.gather(1, order[:, :k])
    return best, rows


def ordered_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`topk` with a rule for ties: equal scores in the order of their columns.

    Args:
        scores: (Q, G).
        k: At most G.

    Returns:
        Values (Q, K) and columns (Q, K), best first.
    """
    values, columns = scores.topk(k, dim=1)
    last = values[:, -1:]
    unclear = (scores == last).sum(1) > (values == last).sum(1)  # more columns tie for the last places than are wanted
    if bool(unclear.any()):
        columns[unclear] = scores[unclear].sort(dim=1, descending=True, stable=True).indices[:, :k]
    columns = columns.sort(1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
