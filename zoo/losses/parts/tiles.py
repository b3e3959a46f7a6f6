"""The arithmetic of `tiled_clip`: log-sum-exps and gradients of a similarity matrix that is never there as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .distributed import world_size
from .exchange import swap


@dataclass
class LogSum:
    """A running log-sum-exp per row, `top + log(total)`.

    Kept in two parts because `top`, being a logit, is exact: differences to it lose nothing, while a logarithm of the size of the logits
    would be rounded by 4e-6 at s = 100.

    Attributes:
        top: (R,) largest logit so far, -inf at the start.
        total: (R,) sum of `exp(logit - top)`.
    """

    top: Tensor
    total: Tensor

    @classmethod
    def empty(cls, rows: int, like: Tensor) -> LogSum:
        """Of nothing yet."""
        return cls(like.new_full((rows,), -torch.inf), like.new_zeros(rows))

    def add(self, rows: slice, top: Tensor, total: Tensor) -> None:
        """Adds another sum over some of the rows, in place."""
        before, sums = self.top[rows], self.total[rows]
        highest = torch.maximum(before, top)
        sums.mul_((before - highest).exp_()).add_(total * (top - highest).exp_())
        before.copy_(highest)


@dataclass
class Side:
    """Rows, or columns, of a block of logits in the backward pass.

    Attributes:
        vectors: (R, D); the logits of a block are `rows.vectors @ columns.vectorsᵀ`.
        top: (R,) of the side's `LogSum`.
        weight: (R,) derivative of the loss with respect to each log-sum-exp, w.
        share: (R,) w / total, so that a probability times w is `exp(logit - top) share`.
        grad: (R, D) of the vectors.
    """

    vectors: Tensor
    top: Tensor
    weight: Tensor
    share: Tensor
    grad: Tensor


class Tiles:
    """Cuts blocks into tiles, and owns the only two buffers of tile size there are.

    Args:
        tile: Rows and columns of a tile.
        like: For dtype and device.
    """

    def __init__(self, tile: int, like: Tensor) -> None:
        self.tile = tile
        self._buffers = like.new_empty(tile * tile), like.new_empty(tile * tile)

    def of(self, rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Every tile of `rows @ columnsᵀ`: (rows, columns, logits, a spare buffer of the same shape). Both may be overwritten."""
        for i in self._spans(len(rows)):
            for j in self._spans(len(columns)):
                shape = i.stop - i.start, j.stop - j.start
                logits, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in self._buffers)
                torch.mm(rows[i], columns[j].T, out=logits)
                yield i, j, logits, spare

    def _spans(self, count: int) -> list[slice]:
        return [slice(start, min(start + self.tile, count)) for start in range(0, count, self.tile)]


def add_log_sums(tiles: Tiles, rows: Tensor, columns: Tensor, of_rows: LogSum, of_columns: LogSum, pairs: Tensor | None) -> None:
    """Adds a block's logits to the running sums of both sides, in place; the order of blocks and tiles does not matter.

    Args:
        tiles: Tile size and buffers.
        rows: (R, D).
        columns: (C, D).
        of_rows: Over columns.
        of_columns: Over rows.
        pairs: (R,) gets the logits of the pairs, if row i belongs to column i of this block.
    """
    for i, j, logits, spare in tiles.of(rows, columns):
        if pairs is not None and i == j:
            pairs[i] = logits.diagonal()
        for running, place, axis in ((of_rows, i, 1), (of_columns, j, 0)):
            top = logits.amax(axis, keepdim=True)  # subtracted, so that no logit is too large to exponentiate
            running.add(place, top.squeeze(axis), torch.sub(logits, top, out=spare).exp_().sum(axis))


def add_gradients(tiles: Tiles, rows: Side, columns: Side, own: bool) -> None:
    """Adds what a block's logits S give to both sides' `grad`, in place: `G @ columns` to the rows, `Gᵀ @ rows` to the columns.

    `G = v softmax(S) + w softmax(Sᵀ)ᵀ`, less v + w where a row meets its own column; v and w are the sides' weights.

    Args:
        tiles: Tile size and buffers.
        rows: One side.
        columns: The other.
        own: Row i belongs to column i of this block.
    """
    for i, j, logits, spare in tiles.of(rows.vectors, columns.vectors):
        torch.sub(logits, rows.top[i, None], out=spare).exp_().mul_(rows.share[i, None])
        logits.sub_(columns.top[None, j]).exp_().mul_(columns.share[None, j]).add_(spare)
        if own and i == j:
            logits.diagonal().sub_(rows.weight[i] + columns.weight[j])
        rows.grad[i].addmm_(logits, columns.vectors[j])
        columns.grad[j].addmm_(logits.T, rows.vectors[i])


def ring(fixed: Sequence[Tensor], summed: Sequence[Tensor]) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor], bool]]:
    """Every rank's block, one after the other: (fixed, summed, whether it is this rank's own).

    `summed` tensors may be changed in place while they are here, travel on as they are then, and are home in the end: the own tensors
    then hold what all ranks added.
    """
    size, here_fixed, here_summed = world_size(), list(fixed), list(summed)
    for step in range(size):
        yield here_fixed, here_summed, step == 0
        if step < size - 1:
            here_fixed = _hand_on(here_fixed)
        if size > 1:
            here_summed = _hand_on(here_summed)
    for own, home in zip(summed, here_summed, strict=True):
        if own is not home:
            own.copy_(home)


def _hand_on(tensors: Sequence[Tensor]) -> list[Tensor]:
    arrived = [torch.empty_like(tensor) for tensor in tensors]
    swap([(tensor, 1) for tensor in tensors], [(tensor, -1) for tensor in arrived])
    return arrived
