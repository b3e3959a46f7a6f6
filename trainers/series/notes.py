"""What a user should know of the data a command opens, though it goes on: said once."""

from __future__ import annotations

from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.series.description import SeriesDescription

from ..console import console, warn

_told: set[tuple[str, str]] = set()


def tell_notes(series: SeriesSet) -> None:
    """Prints what was found out while reading a set: gaps that were filled with missing rows, zones that were taken off.

    Training, validation and test sets are often the same table, opened several times; each sentence is printed once in a process.
    """
    for note in series.notes:
        if (series.name, note) not in _told:
            _told.add((series.name, note))
            console.print(f"{series.name}: {note}")


def other_step(series: SeriesSet, known: SeriesDescription) -> str | None:
    """Says that series have another step than a model was trained on; None if they have not, or one of them has no time."""
    if known.frequency is None or series.frequency is None or series.frequency == known.frequency:
        return None
    return (
        f"{series.name}: its rows are one {series.frequency} apart, the model was trained on rows one {known.frequency} apart; "
        "resample the data, or train a model on data of this step"
    )


def tell_other_step(series: SeriesSet, known: SeriesDescription) -> None:
    """Warns of another step than a model was trained on."""
    if said := other_step(series, known):
        warn(f"{said}; what is measured here is another task than the one it learnt")
