"""What grounding scores without looking: the box in the middle, and the mean box of a training set.

Objects are mostly large and in the middle, so these are not 0, and differ from set to set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import DataError
from .grounding import grounding_scores
from .keyed import check_keys, mean

#: covers half of each side, a quarter of the picture
CENTRE = (0.25, 0.25, 0.75, 0.75)
#: width and height of a picture, in pixels
Size = tuple[float, float]


def relative_box(box: Sequence[float], size: Size) -> list[float]:
    """From pixels to shares of width and height (of the picture itself, not of the padded square).

    Args:
        box: `[x1, y1, x2, y2]` in pixels.
        size: Width and height in pixels.
    """
    return [value / side for value, side in zip(box, size * 2, strict=True)]


def scaled_box(box: Sequence[float], size: Size) -> list[float]:
    """From shares of width and height to pixels, the inverse of `relative_box`.

    Args:
        box: `[x1, y1, x2, y2]`, relative.
        size: Width and height in pixels.
    """
    return [value * side for value, side in zip(box, size * 2, strict=True)]


def mean_box(boxes: Mapping[str, Sequence[float]], sizes: Mapping[str, Size]) -> list[float]:
    """Mean of relative boxes, corner by corner; take those of a training set.

    Args:
        boxes: Query -> box in pixels.
        sizes: Query -> width and height of its picture.

    Returns:
        `[x1, y1, x2, y2]`, relative.

    Raises:
        DataError: If the queries differ, or there is none.
    """
    check_keys("mean box", boxes, sizes)
    relative = [relative_box(box, sizes[key]) for key, box in boxes.items()]
    return [mean(corner) for corner in zip(*relative, strict=True)]


def grounding_baselines(
    targets: Mapping[str, Sequence[float]],
    sizes: Mapping[str, Size],
    train_mean: Sequence[float] | None = None,
    thresholds: Sequence[float] = (0.5,),
) -> dict[str, dict[str, float]]:
    """`grounding_scores` of boxes that are the same for every query.

    Args:
        targets: Query -> box in pixels.
        sizes: Query -> width and height of its picture.
        train_mean: `mean_box` of a training set; None leaves this baseline out.
        thresholds: See `grounding_scores`.

    Returns:
        `centre`, and `mean_box` where it was given -> scores.

    Raises:
        DataError: If the queries differ, or a mean box is not four numbers.
    """
    check_keys("grounding baselines", sizes, targets)
    fixed: dict[str, Sequence[float]] = {"centre": CENTRE}
    if train_mean is not None:
        fixed["mean_box"] = train_mean
    if any(len(box) != 4 for box in fixed.values()):
        raise DataError(f"grounding baselines: the mean box has four relative numbers, got {list(train_mean or ())!r:.60}")
    return {
        name: grounding_scores({key: scaled_box(box, sizes[key]) for key in targets}, targets, thresholds)
        for name, box in fixed.items()
    }
