"""Mean average precision and nDCG at K of ranked lists, for queries with any number of right answers, graded or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError
from .retrieval import KS
from .rows import check_choice, check_finite
from .top_k import top_rows

Gain = Literal["linear", "exponential"]


@dataclass
class Relevance:
    """Which gallery rows are right for which query.

    Attributes:
        query: (P,) a query of each right pair.
        row: (P,) the gallery row.
        grade: (P,) how right, above 0; None for all 1.
    """

    query: Tensor
    row: Tensor
    grade: Tensor | None = None


def ranked_lists(
    queries: Tensor,
    gallery: Tensor,
    relevant: Relevance,
    ks: Sequence[int] = KS,
    *,
    gain: Gain = "linear",
    chunk: int = 1024,
    over_ranks: bool = False,
) -> dict[str, float]:
    """mAP@K and nDCG@K in percent, mean over the queries that have a right answer.

    `AP@K = sum_{k <= K} precision@k rel_k / min(K, number of right answers)` (rel 0 or 1, whatever the grade);
    `nDCG@K = DCG@K / IDCG@K`, `DCG@K = sum_{k <= K} gain_k / log2(k + 1)`, where the gain is the grade, or `2^grade - 1`
    (`exponential`; the same for grades 0 and 1), and IDCG that of the best possible order.

    Args:
        queries: (Q, D) unit vectors.
        gallery: (G, D) unit vectors.
        relevant: The right pairs, each once.
        ks: The K's; one larger than the gallery counts the whole gallery.
        gain: How a grade counts.
        chunk: Queries at a time.
        over_ranks: Share the queries; a collective over vectors that all ranks have.

    Returns:
        `{"mAP@1": ..., "nDCG@1": ..., ...}`.

    Raises:
        DataError: If there is no right pair, a pair twice, or a grade that is not above 0.
    """
    check_choice("gain", gain, ("linear", "exponential"))
    check_finite("ranked lists", queries, gallery)
    grades = _grades(relevant, len(gallery))
    depth = min(max(ks), len(gallery))
    _, rows = top_rows(queries, gallery, depth, chunk=chunk, over_ranks=over_ranks)
    asked = torch.bincount(relevant.query, minlength=len(queries))
    wanted = asked > 0
    found = _found_grades(rows, relevant, grades, len(gallery))[wanted]
    ideal = _ideal_grades(relevant.query, grades, asked, depth)[wanted]
    answers = asked[wanted]
    result = {f"mAP@{k}": _percent(average_precision(found > 0, answers, k)) for k in ks}
    return result | {f"nDCG@{k}": _percent(ndcg(found, ideal, k, gain)) for k in ks}


def average_precision(hits: Tensor, answers: Tensor, k: int) -> Tensor:
    """AP@K of each query, between 0 and 1; see `ranked_lists`.

    Args:
        hits: (Q, K') whether the k-th best row is right; K' >= K, or the whole gallery.
        answers: (Q,) number of right answers, at least 1.
        k: K.
    """
    hits = hits[:, :k].double()
    places = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    return (hits.cumsum(1) / places * hits).sum(1) / answers.clamp(max=k)


def ndcg(found: Tensor, ideal: Tensor, k: int, gain: Gain = "linear") -> Tensor:
    """nDCG@K of each query, between 0 and 1; see `ranked_lists`.

    Args:
        found: (Q, K') grades of the best rows, in their order.
        ideal: (Q, K') the query's largest grades, falling.
        k: K.
        gain: How a grade counts.
    """
    found, ideal = found[:, :k].double(), ideal[:, :k].double()
    if gain == "exponential":
        found, ideal = torch.exp2(found) - 1, torch.exp2(ideal) - 1
    discount = torch.log2(torch.arange(2, found.shape[1] + 2, device=found.device).double())
    return (found / discount).sum(1) / (ideal / discount).sum(1)


def _grades(relevant: Relevance, gallery: int) -> Tensor:
    keys = relevant.query * gallery + relevant.row
    grades = torch.ones(len(keys), device=keys.device) if relevant.grade is None else relevant.grade
    if not len(keys) or len(keys.unique()) < len(keys) or not bool((grades > 0).all()):
        raise DataError(f"ranked lists need right pairs, each once and with a grade above 0; got {len(keys)} pairs")
    return grades


def _found_grades(rows: Tensor, relevant: Relevance, grades: Tensor, gallery: int) -> Tensor:
    """(Q, K) grade of every listed row; 0 where it is not right."""
    keys, order = (relevant.query * gallery + relevant.row).sort()
    listed = torch.arange(len(rows), device=rows.device)[:, None] * gallery + rows
    place = torch.searchsorted(keys, listed).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == listed, grades[order][place], torch.zeros_like(grades[:1]))


def _ideal_grades(query: Tensor, grades: Tensor, asked: Tensor, depth: int) -> Tensor:
    """(Q, K) the largest grades of each query, falling, then zeros."""
    order = grades.sort(descending=True, stable=True).indices
    order = order[query[order].sort(stable=True).indices]
    query, grades = query[order], grades[order]
    place = torch.arange(len(query), device=query.device) - (asked.cumsum(0) - asked)[query]
    ideal = grades.new_zeros((len(asked), depth))
    inside = place < depth
    ideal[query[inside], place[inside]] = grades[inside]
    return ideal


def _percent(values: Tensor) -> float:
    return round(100.0 * values.double().mean().item(), 4)
