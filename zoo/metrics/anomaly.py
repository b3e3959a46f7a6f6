"""Anomaly detection in series: threshold from the scores, point adjustment, precision, recall and F1.

The protocol of Anomaly Transformer and the Time-Series-Library: the threshold is a percentile of the scores of training and test steps
together, and an anomalous stretch counts as found when any of its steps is. Point adjustment flatters (a random score does well on long
stretches), so the unadjusted numbers are returned beside the adjusted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError


def anomaly_score(prediction: Tensor, target: Tensor, observed: Tensor | None = None) -> Tensor:
    """Mean over channels of the squared error of reconstruction (B, L); 0 where no channel was observed.

    Args:
        prediction: (B, L, C).
        target: (B, L, C).
        observed: (B, L, C) bool; None means that everything was.
    """
    error = (prediction - target).double().square()
    if observed is None:
        return error.mean(-1)
    return error.masked_fill(~observed, 0).sum(-1) / observed.sum(-1).clamp(min=1)


def anomaly_threshold(train: Tensor, test: Tensor, ratio: float) -> float:
    """The (100 - ratio)th percentile of the scores of training and test steps together, interpolated linearly.

    Args:
        train: Scores of the training steps, any shape.
        test: Scores of the test steps.
        ratio: Share of steps that are taken to be anomalous, in percent.

    Raises:
        DataError: If there is no score, or the ratio is not between 0 and 100.
    """
    scores = torch.cat([train.reshape(-1), test.reshape(-1)]).double()
    if not len(scores) or not 0 < ratio < 100:
        raise DataError(
            f"anomaly threshold: needs scores (there are {len(scores)}) and a ratio between 0 and 100 percent, not {ratio}"
        )
    ordered = scores.sort().values
    place = (1 - ratio / 100) * (len(ordered) - 1)  # torch.quantile has a limit of elements
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def point_adjusted(found: Tensor, truth: Tensor, begins: Sequence[int] = ()) -> Tensor:
    """Marks a whole stretch of anomalous steps as found if any step of it is.

    Args:
        found: (T,) bool, what was flagged.
        truth: (T,) bool, what is anomalous.
        begins: First steps of further series: a stretch does not go on from one series into the next.

    Returns:
        (T,) bool; flags outside anomalous stretches stay as they are.
    """
    if not len(truth):
        return found.clone()
    before = torch.cat([truth.new_zeros(1), truth[:-1]])
    before[list(begins)] = False
    starts = truth & ~before
    stretch = starts.cumsum(0) * truth  # 0 outside, else the number of the stretch
    hits = torch.zeros(int(stretch.max()) + 1, dtype=torch.bool, device=truth.device)
    hits[stretch[found & truth]] = True
    return found | (hits[stretch] & truth)


def precision_recall_f1(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Precision, recall, F1 and accuracy as shares; 0 where nothing was flagged or nothing is anomalous.

    Args:
        found: (T,) bool.
        truth: (T,) bool.
    """
    right = float((found & truth).sum())
    precision = right / max(float(found.sum()), 1.0)
    recall = right / max(float(truth.sum()), 1.0)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "accuracy": float((found == truth).double().mean())}


def anomaly_detection(
    train: Tensor, test: Tensor, truth: Tensor, ratio: float = 1.0, begins: Sequence[int] = ()
) -> dict[str, float]:
    """Precision, recall and F1 of steps whose score is above a percentile of training and test scores together, after point adjustment.

    Args:
        train: Scores of the training steps, any shape.
        test: (T,) scores of the test steps.
        truth: (T,) bool or 0/1, which test steps are anomalous.
        ratio: Share of steps that are taken to be anomalous, in percent.
        begins: First test steps of further series.

    Returns:
        `threshold`; `precision`, `recall`, `f1`, `accuracy` after point adjustment; the same with `unadjusted_` in front.

    Raises:
        DataError: If scores and labels are not of the same number.
    """
    if test.shape != truth.shape or test.ndim != 1:
        raise DataError(
            f"anomaly detection: {tuple(test.shape)} scores and {tuple(truth.shape)} labels must be two equal rows of steps"
        )
    threshold = anomaly_threshold(train, test, ratio)
    found, wrong = test > threshold, truth.bool()
    plain = precision_recall_f1(found, wrong)
    adjusted = precision_recall_f1(point_adjusted(found, wrong, begins), wrong)
    return {"threshold": threshold, **adjusted, **{f"unadjusted_{name}": value for name, value in plain.items()}}
