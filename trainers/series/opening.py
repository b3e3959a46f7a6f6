"""Data that a command names, opened for a model: columns, split and step as the model was trained, unless said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalign.datasets.remote.access import Remote, remote_of
from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.configure import fill
from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.series.description import SeriesDescription

from .data import config_for_task, table_settings, tell_columns
from .notes import other_step, tell_notes
from .subject import SeriesSubject
from .table_words import table_words


def series_subject(
    model: Any, name: str, data: str, settings: Mapping[str, Any], allow_remote: list[str] | None, *, over_ranks: bool = False
) -> SeriesSubject:
    """A model and a set of series to measure it on.

    Args:
        model: The model.
        name: What results call it.
        data: A table or shards.
        settings: What the command said of columns, split and table; plain values.
        allow_remote: Where shards may be read from.
        over_ranks: Whether ranks share the work.

    Raises:
        AssemblyError: If the model was told of no data, or cannot read these columns.
        DataError: If the data cannot be read.
    """
    known = model.config.series
    if known is None:
        raise AssemblyError(f"this {model.family} was never trained on data; train it first")
    config = config_for(known, settings)
    series = open_for(known, data, table_settings(config), remote_of(allow_remote))
    tell_notes(series)
    _choose_columns(config, series, known, settings)
    config = config_for_task(config, model.config.task)
    tell_columns(model, series, config)
    return SeriesSubject(model, name, series, data, config, over_ranks)


def open_for(known: SeriesDescription, data: str, tables: Mapping[str, Any], remote: Remote | None = None) -> SeriesSet:
    """Opens a table or shards that a command names for a model.

    Args:
        known: What the model knows of its data.
        data: The table or shards.
        tables: How a table is read, as `SeriesSet.open` takes it.
        remote: What may be read from other machines.

    Raises:
        DataError: In the words of the command's options; of a column that the model reads as a static number it says so.
    """
    with table_words(recipe=False):
        try:
            return SeriesSet.open(data, **tables, remote=remote)
        except DataError as error:
            read = next((name for name in known.static if repr(name) in str(error)), None)
            if read is None:
                raise
            raise DataError(f"{error}; the model reads {read!r} as a static number of every series") from None


def config_for(known: Any, settings: Mapping[str, Any]) -> SeriesConfig:
    """How data are read and split for a model: as what it was trained on, unless settings say otherwise."""
    own = {"split": known.split, "few_shot": known.few_shot, "scale": known.scaling, "static": list(known.static)}
    plain = {**own, **settings}
    if "missing" in plain:  # a command calls the marks by this name, a recipe what is done about missing values
        plain["missing_marks"] = plain.pop("missing")
    return fill(SeriesConfig, plain, "settings of the data")


def _choose_columns(config: SeriesConfig, series: SeriesSet, known: Any, settings: Mapping[str, Any]) -> None:
    """The model's own columns where the data have them; other data are read whole, as channels of their own."""
    if "target" in settings:
        return
    if all(column in series.columns for column in (*known.target, *known.past, *known.known)):
        config.target, config.past, config.known = list(known.target), list(known.past), list(known.known)
    elif known.known or known.past:
        missing = next(column for column in (*known.target, *known.past, *known.known) if column not in series.columns)
        raise DataError(
            f"{series.name}: there is no column {missing!r}, and this model reads covariates; name the columns with --target, --past "
            f"and --known (there are: {', '.join(series.columns)})"
        )


def check_step(series: SeriesSet, known: Any) -> None:
    """Refuses series of another step than the model was trained on.

    Raises:
        DataError: Naming both.
    """
    if said := other_step(series, known):
        raise DataError(said)
