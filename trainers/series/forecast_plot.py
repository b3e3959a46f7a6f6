"""A picture of a forecast: the last rows of the history, what follows, and the spread where the model gives one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalign.datasets.series.series_set import Series
from modalign.zoo.errors import DataError
from modalign.zoo.series.predict import Forecast

_PANELS = 12


def plot_forecast(found: Sequence[tuple[Series, Forecast]], path: Path) -> Path:
    """Draws a panel per series and column, at most twelve.

    Args:
        found: Histories and what follows them.
        path: Where to; a name without an ending gets `.png`.

    Returns:
        The file that was written.

    Raises:
        DataError: If the file cannot be written.
    """
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(one, forecast, column) for one, forecast in found for column in range(len(forecast.columns))][:_PANELS]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.2 * columns, 2.4 * rows), squeeze=False)
    for axis, (one, forecast, column) in zip(axes.flat, panels, strict=False):
        _panel(axis, one, forecast, column, many=len(found) > 1)
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the picture cannot be written ({error}); end its name in .png") from None
    finally:
        plt.close(figure)
    return path


def dots(values: Any) -> dict[str, Any]:
    """Settings of a line with missing values: it has gaps there, and a dot shows a value that stands alone between two."""
    return {"marker": "o", "markersize": 1.6} if np.isnan(np.asarray(values)).any() else {}


def _panel(axis: Any, one: Series, forecast: Forecast, column: int, *, many: bool) -> None:
    name, steps = forecast.columns[column], len(forecast.values)
    shown = min(len(one.values), max(2 * steps, 48))
    past = one.values[-shown:, one.columns.index(name)]
    axis.plot(one.times()[-shown:], past, color="0.35", linewidth=0.9, label="history", **dots(past))
    times = one.future(steps)
    axis.plot(times, forecast.values[:, column], color="tab:red", linewidth=1.3, label="forecast")
    if forecast.quantiles is not None and len(forecast.levels) > 1:
        low, high = forecast.quantiles[:, column, 0], forecast.quantiles[:, column, -1]
        label = f"{forecast.levels[0]:g} to {forecast.levels[-1]:g}"
        axis.fill_between(times, low, high, color="tab:red", alpha=0.18, linewidth=0, label=label)
    axis.set_title(f"{one.key}: {name}" if many else name, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
