"""How series are read and cut into windows: the recipe's `data.series`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from modalign.zoo.errors import RecipeError

FRACTIONS: dict[str, float | str] = {"train": 0.7, "val": 0.1, "test": 0.2}
ETT = {"ett_hour": 24, "ett_15min": 96}  # steps per day of the two kinds of ETT files


@dataclass
class SeriesConfig:
    """How series are read and cut into windows.

    Attributes:
        target: Columns to predict; default all that have no other role.
        past: Past covariates: columns the model sees the past of and does not predict.
        known: Known-future covariates, such as holidays or a plan: columns it also sees for the horizon.
        static: Numbers that do not change within a series.
        split: Rows of train, val and test. Fractions `{train: 0.7, val: 0.1, test: 0.2}` of every series (train and test rounded
            down, as the usual loaders do it), dates `{val: 2017-07-01, test: 2017-11-01, end: 2018-03-01}` at which the parts begin
            (`end` may be left out), `ett_hour` or `ett_15min` for the published borders of those files (12, 4 and 4 months of 30
            days), or `none`: every set is used whole. With classification and short_term a series is one sample, so that neither
            split nor few_shot, stride and val_stride have a meaning.
        stride: Steps between the starts of training windows; evaluation always takes every window.
        val_stride: The same for validation while training.
        few_shot: Train on the first so many percent of the training rows.
        missing: `mask` leaves missing values out of norm, loss and metric; `error` refuses them.
        scale: `standard` scales every column by mean and standard deviation of its training rows; `none` leaves it as it is.
        time: Column with the times, of a table; found by its name if not given.
        id: Column that tells several series apart, of a table.
        label: Column with a series' class, of a table.
        ignore: Columns of a table to leave out, such as texts.
        missing_marks: Further texts of a table that stand for a missing value, such as `-9999`.
        time_format: How a table writes times, as `strptime` has it, or `s`, `ms` for Unix time.
        layout: `wide` tables have a column per channel, `long` ones a row per value.
        frequency: Step between rows, as pandas writes it (`h`, `15min`, `D`); inferred if not given, checked if given.
        mask_rate: (imputation) Share of the values that are hidden.
        anomaly: (anomaly) Column that marks anomalous rows by a number above 0: no model reads it, an evaluation compares with it.
        history: (short_term) Training cuts lie in the last `history · horizon` steps of a series, of which there must be one.
    """

    target: list[str] | None = None
    past: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    split: str | dict[str, float | str] = field(default_factory=lambda: dict(FRACTIONS))
    stride: int = 1
    val_stride: int = 1
    few_shot: float | None = None
    missing: Literal["mask", "error"] = "mask"
    scale: Literal["standard", "none"] = "standard"
    time: str | None = None
    id: str | None = None
    label: str | None = None
    ignore: list[str] = field(default_factory=list)
    missing_marks: list[str] = field(default_factory=list)
    time_format: str | None = None
    layout: Literal["wide", "long"] = "wide"
    frequency: str | None = None
    mask_rate: float = 0.25
    anomaly: str | None = None
    history: float = 10.0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            RecipeError: Naming the setting.
        """
        if self.stride < 1 or self.val_stride < 1:
            raise RecipeError("data.series.stride: windows start at least one step apart; give 1 or more")
        if self.few_shot is not None and not 0 < self.few_shot <= 100:
            raise RecipeError(f"data.series.few_shot: {self.few_shot} is no percentage above 0")
        if not 0 < self.mask_rate < 1:
            raise RecipeError(f"data.series.mask_rate: {self.mask_rate} must lie between 0 and 1")
        if self.history <= 0:
            raise RecipeError(f"data.series.history: {self.history} must be above 0")
        if isinstance(self.split, str) and self.split not in (*ETT, "none"):
            raise RecipeError(
                f"data.series.split: {self.split!r} is none of {', '.join(ETT)}, none, fractions "
                "{train: 0.7, val: 0.1, test: 0.2}, or dates {val: 2017-07-01, test: 2017-11-01}"
            )
