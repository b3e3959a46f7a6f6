"""Boxes that a model names for expressions: intersection over union (IoU), and the share of queries where it is large enough.

The protocol of the RefCOCO sets: one box per query, IoU of at least 0.5 counts, and all queries are in the denominator, also those whose
answer holds no box (`box_text.py` reads answers). Beside every result belongs what no model is needed for (`grounding_baselines.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import AssemblyError, DataError
from .keyed import check_keys, mean


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Area of the intersection over area of the union, row by row, in float64.

    Args:
        first: (N, 4) `x1, y1, x2, y2`; a box with x2 <= x1 or y2 <= y1 is empty, its IoU is 0.
        second: (N, 4), in the same unit.

    Returns:
        (N,) between 0 and 1; 0 where both are empty.

    Raises:
        DataError: If the shapes do not fit.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[-1] != 4:
        raise DataError(f"IoU compares boxes (N, 4) row by row; got {tuple(first.shape)} and {tuple(second.shape)}")
    first, second = first.double(), second.double()
    start, end = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = (end - start).clamp(min=0).prod(1)
    union = _area(first) + _area(second) - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def grounding_scores(
    predictions: Mapping[str, Sequence[float] | None],
    targets: Mapping[str, Sequence[float]],
    thresholds: Sequence[float] = (0.5,),
) -> dict[str, float]:
    """Accuracy at thresholds of IoU and mean IoU, over all queries.

    Args:
        predictions: Query -> box, or None where the answer held none; such a query has IoU 0.
        targets: Query -> box, in the same unit.
        thresholds: An IoU of at least this is right.

    Returns:
        `accuracy@0.5` and so on, `mean_iou`, as shares; `unparsed` and `queries`, as numbers.

    Raises:
        DataError: If the queries differ, or a box is not four finite numbers, or a target is empty.
        AssemblyError: If a threshold is not above 0 and at most 1.
    """
    check_keys("grounding", predictions, targets)
    if wrong := [threshold for threshold in thresholds if not 0 < threshold <= 1]:
        raise AssemblyError(f"grounding: a threshold of IoU lies above 0 and at most at 1, {wrong[0]} does not")
    found = _ious(predictions, targets)
    scores: dict[str, float] = {f"accuracy@{t:g}": mean(float(iou >= t) for iou in found) for t in thresholds}
    unparsed = sum(box is None for box in predictions.values())
    return scores | {"mean_iou": mean(found), "unparsed": unparsed, "queries": len(found)}


def _ious(predictions: Mapping[str, Sequence[float] | None], targets: Mapping[str, Sequence[float]]) -> list[float]:
    """IoU of every query; an answer without a box is an empty one."""
    said, right = [], []
    for key, target in targets.items():
        box = predictions[key]
        right.append(_checked("target", key, target))
        said.append((0.0,) * 4 if box is None else _checked("prediction", key, box))
        if not (target[0] < target[2] and target[1] < target[3]):
            raise DataError(
                f"grounding: the target {list(target)} of {key!r} is empty; a box is x1, y1, x2, y2 with x1 < x2, y1 < y2"
            )
    rows: list[float] = box_iou(torch.tensor(said, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)).tolist()
    return rows


def _checked(what: str, key: str, box: Sequence[float]) -> tuple[float, ...]:
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise DataError(
            f"grounding: the {what} of {key!r} is {list(box)!r:.60}; a box is four finite numbers, or None for an answer without"
        )
    return tuple(map(float, box))
