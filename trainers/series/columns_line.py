"""Which columns of a table a stage takes, and which not, in a line: what is predicted by default is everything."""

from __future__ import annotations

from collections.abc import Sequence

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.series.description import SeriesDescription

_SHOWN = 12


def columns_line(series: SeriesSet, description: SeriesDescription, config: SeriesConfig, task: str) -> str:
    """One line of columns by role, and of those that are left out.

    Args:
        series: The first training set.
        description: What the model is told of it.
        config: How it is read.
        task: What the model is for.
    """
    first = "read" if task == "classification" else "predicted"
    roles = {first: description.target, "past": description.past, "known": description.known, "static": description.static}
    taken = {column for names in roles.values() for column in names}
    columns = [column for column in (*series.columns, *series.static) if column not in taken]
    roles["left out"] = [*columns, *(name for name in config.ignore if name not in columns)]
    said = "; ".join(f"{role}: {_listed(names)}" for role, names in roles.items() if names)
    return f"{series.name}: columns {said}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
