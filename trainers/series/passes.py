"""One pass over the samples of a set: batches as a model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from modalign.datasets.series.loader import WindowEvalLoader
from modalign.zoo.losses.parts.distributed import rank, world_size

from .data import windows_of
from .subject import SeriesSubject
from .tasks import preparation


def on_device(loader: WindowEvalLoader, model: Any) -> Iterator[dict[str, Tensor]]:
    """The tensors of every batch, where the model is."""
    for batch in loader:
        yield {key: value.to(model.device) for key, value in batch.items() if isinstance(value, Tensor)}


def passes(subject: SeriesSubject, windows: Any, batch_size: int, *, shared: bool = True) -> WindowEvalLoader:
    """A loader of some windows for the subject's task.

    Args:
        subject: Model and data.
        windows: The windows.
        batch_size: Windows at a time.
        shared: The ranks share the batches; else every rank gets all, for results that need them in order.
    """
    place = {"rank": rank(), "world_size": world_size()} if shared else {}
    return WindowEvalLoader(windows, batch_size=batch_size, prepare=preparation(subject.model, subject.config), **place)


def part_of(subject: SeriesSubject, part: Any, **settings: Any) -> Any:
    """The samples of a part as the subject's task takes them."""
    return windows_of(subject.series, subject.model, subject.config, part, **settings)


def row_of(errors: Mapping[str, Any]) -> list[str]:
    """MSE and MAE, scaled and in the columns' own units, as a table shows them."""
    own = errors.get("original", {})
    return [f"{errors['mse']:.4f}", f"{errors['mae']:.4f}", *[f"{own[key]:.4g}" if key in own else "-" for key in ("mse", "mae")]]
