"""From the past of a series in its own units to its future in its own units: what a model is used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import AssemblyError, DataError
from .description import SeriesDescription


@dataclass
class Forecast:
    """A forecast in the columns' own units.

    Attributes:
        columns: The targets.
        values: (H, C_target).
        quantiles: (H, C_target, Q), where the model has them.
        levels: Their Q levels.
        sizes: Standard deviation of each target's training rows: what counts as many or few digits of it.
    """

    columns: list[str]
    values: Tensor
    quantiles: Tensor | None = None
    levels: tuple[float, ...] = ()
    sizes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Columns of no known size count as of size 1."""
        self.sizes = self.sizes or (1.0,) * len(self.columns)


def checked_horizon(asked: int | None, model: Any) -> int:
    """How many steps are wanted of a model.

    Raises:
        AssemblyError: If it is none, or more than the model was trained for: further steps would be made up.
    """
    most = int(model.config.horizon)
    if asked is None:
        return most
    if asked < 1:
        raise AssemblyError(f"horizon: {asked} is no number of steps; ask for 1 to {most}, or leave it out for all {most}")
    if asked > most:
        raise AssemblyError(
            f"horizon: {asked} steps are asked for, and this model was trained to predict 1 to {most}; train one with "
            f"model.horizon: {asked}"
        )
    return asked


@torch.inference_mode()
def predict(
    model: Any,
    history: Tensor,
    *,
    known: Tensor | None = None,
    static: Mapping[str, float] | None = None,
    horizon: int | None = None,
    description: SeriesDescription | None = None,
    name: str = "the history",
) -> Forecast:
    """Forecasts what follows a series.

    Args:
        model: A forecasting model.
        history: (T, C) float64, T at least the look-back, of which the last rows are read; columns as `description.channels` has them,
            NaN where a value is missing.
        known: (T + H, K) known-future covariates, or (L + H, K).
        static: The series' static numbers by name, if the model reads such.
        horizon: Steps wanted; default all the model predicts.
        description: Columns and scaler; default the model's own.
        name: What messages call the history.

    Raises:
        AssemblyError: If the model does not forecast, or not as far.
        DataError: If there are too few rows, a target has no value in the look-back, or known-future or static columns are missing.
    """
    description = description or model.config.series
    if description is None or model.config.task not in ("forecast", "short_term"):
        raise AssemblyError(f"this {model.family} does not forecast, or was never trained; train it with model.task: forecast")
    steps, look_back = checked_horizon(horizon, model), int(model.config.look_back)
    batch = _batch(history, known, description, look_back, int(model.config.horizon), name)
    if description.static:
        batch["static"] = _static(static or {}, description, name)
    outputs = model.eval()({key: value.to(model.device) for key, value in batch.items()})
    columns = list(description.target)
    sizes = tuple(description.scale[column][1] for column in columns)
    values = description.unscaled(outputs["prediction"][0, :steps].double().cpu(), columns)
    quantiles = outputs.get("quantiles")
    if quantiles is None:
        return Forecast(columns, values, sizes=sizes)
    spread = description.unscaled(quantiles[0, :steps].double().cpu().transpose(1, 2), columns).transpose(1, 2)
    return Forecast(columns, values, spread, tuple(model.config.quantiles), sizes)


def _batch(
    history: Tensor, known: Tensor | None, description: SeriesDescription, look_back: int, horizon: int, name: str
) -> dict[str, Tensor]:
    if len(history) < look_back:
        raise DataError(
            f"{name} has {len(history)} rows, and the model looks back {look_back}: give that many, the last ones before the forecast"
        )
    scaled = description.scaled(history[-look_back:].double(), description.channels)
    observed = ~scaled.isnan()
    for place, column in enumerate(description.target):
        if not bool(observed[:, place].any()):
            raise DataError(
                f"{name}: column {column!r} has no value in the last {look_back} rows, so there is nothing to go on from"
            )
    batch = {"values": scaled.nan_to_num(0.0).float()[None]}
    if not bool(observed.all()):
        batch["observed"] = observed[None]
    if description.known:
        batch["known"] = _known(known, description, (look_back + horizon, len(history) + horizon), name)[None]
    return batch


def _static(static: Mapping[str, float], description: SeriesDescription, name: str) -> Tensor:
    absent = [column for column in description.static if column not in static]
    if absent:
        raise DataError(f"{name}: the model reads the static number {absent[0]!r} of every series; give it")
    return torch.tensor([[float(static[column]) for column in description.static]])


def _known(known: Tensor | None, description: SeriesDescription, lengths: tuple[int, int], name: str) -> Tensor:
    if known is None or len(known) not in lengths:  # any other number of rows would be read for the wrong steps
        raise DataError(
            f"{name}: the model reads {', '.join(description.known)} for the horizon too: give these columns for the look-back or the "
            f"whole history and the horizon behind it ({lengths[0]} or {lengths[1]} rows, there are {0 if known is None else len(known)})"
        )
    rows = lengths[0]
    scaled = description.scaled(known[-rows:].double(), description.known)
    if bool(scaled.isnan().any()):
        raise DataError(f"{name}: a known-future column has missing values in the look-back or the horizon; fill them")
    return scaled.float()
