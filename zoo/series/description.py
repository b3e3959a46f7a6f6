"""What a model of time series knows of its data: columns by role, step in time, and the scaler; saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import DataError, nearest


@dataclass
class SeriesDescription:
    """The columns of a data set and its scaler, as plain values, so that a release needs no file of the training data.

    Attributes:
        target: Columns that are predicted, in the order of the channels.
        past: Past covariates: columns that are given up to the present, behind the targets in the channels.
        known: Known-future covariates: columns that are given for the horizon too.
        static: Names of the numbers that do not change within a series.
        frequency: Step between rows, as pandas writes it (`h`, `15min`, `D`); None where rows have no time.
        scale: Column -> [mean, standard deviation] of the training rows (population, ddof 0).
        labels: Names of the classes, in the order of the logits.
        split: How the data was cut into train, val and test: what an evaluation does by itself.
        few_shot: Percent of the training rows that were trained on, if not all: baselines beside the model are fitted on no more.
        scaling: How the scaler was fitted, as `data.series.scale` says: `standard`, or `none` for a scale of 0 and 1.
        static_scale: Static number -> [mean, standard deviation] over the training series (population, ddof 0).
    """

    target: list[str]
    past: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    frequency: str | None = None
    scale: dict[str, list[float]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    split: str | dict[str, float | str] = "none"
    few_shot: float | None = None
    scaling: str = "standard"
    static_scale: dict[str, list[float]] = field(default_factory=dict)

    @property
    def channels(self) -> list[str]:
        """Columns a model sees the past of: targets, then past covariates."""
        return [*self.target, *self.past]

    def scaler(self, columns: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, standard deviation) of some columns, each (C,), of the type and on the device of a tensor.

        Raises:
            DataError: If a column was not there when the scaler was fitted.
        """
        for column in columns:
            if column not in self.scale:
                raise DataError(f"the model's scaler knows no column {column!r}{nearest(column, self.scale)}")
        pairs = [self.scale[column] for column in columns]
        return like.new_tensor([mean for mean, _ in pairs]), like.new_tensor([std for _, std in pairs])

    def scaled(self, values: Tensor, columns: Sequence[str]) -> Tensor:
        """`(x - mean) / std`, channel by channel; values (..., C) in the columns' own units."""
        mean, std = self.scaler(columns, values)
        return (values - mean) / std

    def scaled_static(self, values: Tensor) -> Tensor:
        """Static numbers (..., S) at mean 0 and deviation 1 over the training series."""
        pairs = [self.static_scale.get(name, [0.0, 1.0]) for name in self.static]
        mean, std = (values.new_tensor(numbers) for numbers in zip(*pairs, strict=True))
        return (values - mean) / std

    def unscaled(self, values: Tensor, columns: Sequence[str]) -> Tensor:
        """`x · std + mean`, the reverse of `scaled`."""
        mean, std = self.scaler(columns, values)
        return values * std + mean
