"""Which columns of a set of series are predicted, which are given, and how: from names to places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modalign.zoo.errors import DataError, nearest

from .series_set import SeriesSet


@dataclass(frozen=True)
class Roles:
    """The columns by role; in a model's channels targets come first, then past covariates.

    Attributes:
        target: Columns that are predicted.
        past: Columns that are given up to the present.
        known: Columns that are given for the horizon too.
        static: Names of numbers of a series.
        target_index: Places of the targets among the set's columns; `past_index` and `known_index` likewise.
    """

    target: tuple[str, ...]
    past: tuple[str, ...]
    known: tuple[str, ...]
    static: tuple[str, ...]
    target_index: tuple[int, ...]
    past_index: tuple[int, ...]
    known_index: tuple[int, ...]

    @property
    def channel_index(self) -> tuple[int, ...]:
        """Places of what a model sees the past of."""
        return self.target_index + self.past_index


def assign_roles(
    series: SeriesSet,
    target: Sequence[str] | None = None,
    past: Sequence[str] = (),
    known: Sequence[str] = (),
    static: Sequence[str] = (),
    *,
    where: str = "data.series",
) -> Roles:
    """Finds the columns that settings name.

    Args:
        series: The set.
        target: Columns to predict; None: all that have no other role.
        past: Past covariates.
        known: Known-future covariates.
        static: Numbers that do not change within a series.
        where: The settings' place, for messages.

    Raises:
        DataError: If there is no such column, a column has two roles, or no target is left.
    """
    columns = series.columns
    given = {"target": tuple(target or ()), "past": tuple(past), "known": tuple(known)}
    role_of: dict[str, str] = {}
    for role, names in given.items():
        for name in names:
            if name not in columns:
                hint = (
                    f"; it is a static number: name it under {where}.static" if name in series.static else nearest(name, columns)
                )
                raise DataError(f"{where}.{role}: {series.name} has no column {name!r}{hint}")
            if name in role_of:
                twice = (
                    f"twice in {where}.{role}" if role_of[name] == role else f"in {where}.{role_of[name]} and in {where}.{role}"
                )
                raise DataError(f"{where}: column {name!r} is {twice}; a column has one role")
            role_of[name] = role
    for name in static:
        if name not in series.static:
            hint = (
                f"; it is a column that changes in time: name it under {where}.past or {where}.known" if name in columns else ""
            )
            raise DataError(f"{where}.static: {series.name} has no static number {name!r}{hint or nearest(name, series.static)}")
    if len(set(static)) < len(static):
        raise DataError(f"{where}.static: {list(static)} names a number twice")
    if target is None:
        given["target"] = tuple(name for name in columns if name not in role_of)
    if not given["target"]:
        raise DataError(f"{where}.target: no column is left to predict; name at least one of {', '.join(columns)}")
    index = {role: tuple(columns.index(name) for name in names) for role, names in given.items()}
    return Roles(given["target"], given["past"], given["known"], tuple(static), index["target"], index["past"], index["known"])
