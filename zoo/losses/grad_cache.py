"""GradCache: the exact gradient of a loss over a large batch with the activations of a small one.

Source: Gao et al. 2021 (arXiv 2101.06983). A contrastive loss needs all vectors at once, but only the vectors: encode chunk by
chunk without a graph, take the loss and its gradient with respect to the vectors, then encode each chunk again, with the same random
draws, and send the cached gradient through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import AssemblyError
from .parts.replay import Circumstances

Forward = Callable[[Any], Mapping[str, Any]]
SHARED = ("logit_scale", "logit_bias", "caption_head")


def cached_forward(
    forward: Forward,
    chunks: Sequence[Any],
    keys: Collection[str] | None = None,
    *,
    shared: Collection[str] = SHARED,
    parameters: Iterable[nn.Parameter] | None = None,
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Tensor]:
    """Outputs of the whole batch whose backward pass runs the model again, chunk by chunk.

    The outputs behave like those of `forward(whole batch)`: any loss may be computed from them, over ranks too, and its `backward()`
    leaves on the parameters the exact gradient of the whole batch. Peak memory is that of one chunk, plus the outputs; the price is one
    more forward pass. It is exact for whatever treats samples independently: batch norm in training mode does not (its statistics are
    the chunk's, and are updated twice).

    Entries that do not depend on the chunk (`shared`, and whatever has no dimension) are taken from the last chunk and get their gradient
    there, once. Differentiable once.

    Args:
        forward: The model: chunk -> named outputs; whatever is no tensor is left out.
        chunks: The batch in pieces; see `split_rows`.
        keys: Entries that are wanted, besides the shared ones; others are not kept. Default: all.
        shared: Names of entries that do not depend on the chunk.
        parameters: If given, gradients reach these parameters through the graph, each once and summed over the chunks, so that hooks
            on them (DistributedDataParallel's) run once, as for a plain step; nothing else has to be done, inside or outside of the
            wrapper's forward. Other parameters get none.
            If not given, each chunk's backward pass accumulates into `.grad` by itself: for FSDP2, whose parameters are only there
            during the forward pass, and for loops that wrap the model by hand.
        no_sync: Without `parameters`: entered around all chunks but the last, so that gradients are exchanged once
            (`ddp_model.no_sync`, with `forward=ddp_model`).

    Returns:
        Name -> (rows of all chunks, ...) tensor, or the shared tensor. Without gradient mode: the same values, without a graph.

    Raises:
        AssemblyError: If there are no chunks, or if their outputs do not fit together.
    """
    if not chunks:
        raise AssemblyError("cached_forward got no chunks; an empty batch has no outputs")
    taken = None if parameters is None else [parameter for parameter in parameters if parameter.requires_grad]
    passes = _Passes(forward, chunks, None if keys is None else {*keys, *shared}, shared, taken, no_sync)
    handle = torch.empty(0, requires_grad=True)  # so that the outputs have a graph even where no parameter is named
    values = _Cached.apply(passes, handle, *(taken or ()))
    return dict(zip(passes.names, values, strict=True))


class _Passes:
    """The first pass, without a graph, and the second, with one."""

    def __init__(
        self,
        forward: Forward,
        chunks: Sequence[Any],
        wanted: Collection[str] | None,
        shared: Collection[str],
        parameters: list[nn.Parameter] | None,
        no_sync: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.forward, self.chunks, self.wanted, self.shared = forward, chunks, wanted, shared
        self.parameters, self.no_sync = parameters, no_sync
        self.circumstances: list[Circumstances] = []
        self.names: list[str] = []
        self.rows: dict[str, list[int]] = {}  # of each chunk, for entries that have rows

    def first(self) -> tuple[Tensor, ...]:
        """Outputs of all chunks together; remembers how each was made."""
        parts: list[dict[str, Tensor]] = []
        for chunk in self.chunks:
            self.circumstances.append(Circumstances(chunk))
            parts.append(self._tensors(self.forward(chunk)))
        self.names = list(parts[0])
        return tuple(self._joined(name, parts) for name in self.names)

    def _tensors(self, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        wanted = self.wanted
        return {n: v for n, v in outputs.items() if isinstance(v, Tensor) and (wanted is None or n in wanted or v.ndim == 0)}

    def _joined(self, name: str, parts: Sequence[Mapping[str, Tensor]]) -> Tensor:
        have = [part.get(name) for part in parts]
        tensors = [tensor for tensor in have if tensor is not None]
        if len(tensors) < len(have) or any(len(part) != len(parts[0]) for part in parts):
            raise AssemblyError(
                f"the chunks have different outputs ({', '.join(sorted(parts[0]))} in the first); give all the same entries"
            )
        if name in self.shared or tensors[0].ndim == 0:
            return tensors[-1].clone()
        if len({tensor.shape[1:] for tensor in tensors}) > 1:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise AssemblyError(
                f"entry {name!r} has the shapes {shapes} in the chunks; pad the batch to one length before it is cut"
            )
        self.rows[name] = [len(tensor) for tensor in tensors]
        return torch.cat(tensors)

    def second(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Runs every chunk again and sends its part of the outputs' gradients through; returns the parameters' gradients."""
        parts = [
            grad.split(self.rows[name]) if grad is not None and name in self.rows else grad for name, grad in self._named(grads)
        ]
        totals: list[Tensor | None] = [None] * len(self.parameters or ())
        for number, chunk in enumerate(self.chunks):
            last = number == len(self.chunks) - 1
            with nullcontext() if last else self.no_sync():
                with torch.enable_grad(), self.circumstances[number].again():
                    outputs = self._tensors(self.forward(chunk))
                self._send(outputs, [self._of_chunk(part, number, last) for part in parts], totals)
        return totals

    def _named(self, grads: Sequence[Tensor | None]) -> Iterable[tuple[str, Tensor | None]]:
        return zip(self.names, grads, strict=True)

    @staticmethod
    def _of_chunk(part: Tensor | tuple[Tensor, ...] | None, number: int, last: bool) -> Tensor | None:
        """A chunk's own rows; of a shared entry everything, in the last chunk only, so that it counts once."""
        if isinstance(part, tuple):
            return part[number]
        return part if last else None

    def _send(self, outputs: Mapping[str, Tensor], grads: Sequence[Tensor | None], totals: list[Tensor | None]) -> None:
        """Backward pass of one chunk."""
        ends = [(outputs[name], grad) for name, grad in self._named(grads) if grad is not None and outputs[name].requires_grad]
        if not ends:
            return
        tensors, given = [tensor for tensor, _ in ends], [grad for _, grad in ends]
        if self.parameters is None:
            torch.autograd.backward(tensors, given)
            return
        for place, found in enumerate(torch.autograd.grad(tensors, self.parameters, given, allow_unused=True)):
            if found is not None:
                before = totals[place]
                totals[place] = found if before is None else before + found


class _Cached(torch.autograd.Function):
    """Values of the first pass; the backward pass is the second."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, handle: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.passes = passes
        ctx.set_materialize_grads(False)
        values = passes.first()
        ctx.mark_non_differentiable(*(value for value in values if not value.is_floating_point()))
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.passes.second(grads)
