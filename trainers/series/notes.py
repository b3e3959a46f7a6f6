"""What a user should know of the data a command opens, though it goes on: said once in a process."""

from __future__ import annotations

from collections.abc import Callable

from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.series.description import SeriesDescription

from ..console import console, warn
from .seasons import skipped_starts

_told: set[str] = set()  # training, validation and test sets are often one table, which is opened several times


def _once(text: str, say: Callable[[str], None]) -> None:
    if text not in _told:
        _told.add(text)
        say(text)


def tell_notes(series: SeriesSet) -> None:
    """Prints what was found out while reading a set: gaps that were filled with missing rows, zones that were taken off."""
    for note in series.notes:
        _once(f"{series.name}: {note}", console.print)


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
        _once(f"{said}; what is measured here is another task than the one it learnt", warn)


def tell_skipped_starts(series: SeriesSet, stride: int) -> None:
    """Warns of training windows that begin at some hours of the day only, or at some places of another season."""
    if said := skipped_starts(stride, series.frequency):
        _once(said, warn)
