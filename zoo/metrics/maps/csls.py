"""Translation by nearest neighbour, against hubs: CSLS (Lample et al. 2018) and the inverted softmax (Smith et al. 2017).

`CSLS(x, y) = 2 cos(Rx, y) - r_T(Rx) - r_S(y)`: r_T the mean cosine of Rx to its k nearest targets, r_S that of y to its k nearest mapped
sources. r_T is the same for all candidates of a query, so the answer does not depend on it, and fastText leaves it out.
`invsm`: `exp(beta cos_ij) / sum_i' exp(beta cos_i'j)`, normalised over the sources, which a hub must share among many.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..rows import check_choice, check_finite, real, unit
from ..top_k import mean_top, top_rows

Method = Literal["nn", "csls", "invsm"]
METHODS = ("nn", "csls", "invsm")


def csls(source: Tensor, target: Tensor, k: int = 10) -> Tensor:
    """All CSLS scores (S, T), for small sets; `translate` needs no such matrix.

    Args:
        source: (S, D) mapped source vectors.
        target: (T, D) target vectors.
        k: Size of a neighbourhood; as many as there are, if there are fewer.
    """
    source, target = unit(real(source)), unit(real(target))
    return 2 * source @ target.T - mean_top(source, target, k)[:, None] - mean_top(target, source, k)[None]


def translate(
    source: Tensor,
    target: Tensor,
    query: Tensor | None = None,
    *,
    method: Method = "csls",
    count: int = 10,
    k: int = 10,
    beta: float = 30.0,
    chunk: int = 256,
) -> Tensor:
    """The best targets of source vectors, best first; equal scores in the order of the rows.

    Args:
        source: (S, D) all mapped source vectors: what CSLS and the inverted softmax look at besides the queries.
        target: (T, D) all target vectors.
        query: (Q,) rows of `source` that are asked for; None asks for all.
        method: `nn` plain cosine, `csls`, or `invsm`.
        count: How many targets; as many as there are, if there are fewer.
        k: CSLS's neighbourhood; MUSE's and fastText's 10.
        beta: Inverse temperature of the inverted softmax; MUSE's 30.
        chunk: Rows at a time: the largest matrix is chunk x max(S, T).

    Returns:
        (Q, count) rows of `target`.
    """
    check_choice("method", method, METHODS)
    check_finite("translation", source, target)
    source, target = unit(real(source)), unit(real(target))
    scale = {"nn": 1.0, "csls": 2.0, "invsm": beta}[method]
    asked = source if query is None else source[query]
    penalty = _penalty(source, target, method, k, beta, chunk)
    return top_rows(asked, target, min(count, len(target)), scale=scale, penalty=penalty, chunk=chunk)[1]


def _penalty(source: Tensor, target: Tensor, method: Method, k: int, beta: float, chunk: int) -> Tensor | None:
    """(T,) what a method takes off each target's scaled cosine."""
    if method == "nn":
        return None
    if method == "csls":
        return mean_top(target, source, k, chunk)
    parts = [(beta * target[start : start + chunk] @ source.T).logsumexp(1) for start in range(0, len(target), chunk)]
    return torch.cat(parts)
