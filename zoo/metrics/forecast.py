"""Errors of forecasts, summed over windows as they come: MSE and MAE, and for quantiles the pinball loss, WQL and coverage.

In the data set's scale and in the columns' own units, over all, by step of the horizon and by channel.
Sums are float64 and counts are of observed elements, so the result does not depend on how windows were put into batches or onto ranks.
Every mean is over elements (windows x horizon x channels), as the Time-Series-Library computes it, not a mean of batch means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import AssemblyError, DataError
from .over_ranks import summed


class ForecastMetric:
    """Collects the errors of forecasts over batches.

    - `mse` = mean (f - y)², `mae` = mean |f - y| over all elements that were observed.
    - in original units both follow from the sums of each channel: f - y is multiplied by the channel's standard deviation.
    - `pinball` = mean over elements and levels of `max(q (y - f_q), (q - 1)(y - f_q))`.
    - `wql` = mean over levels of `2 Σ pinball_q / Σ |y|` (as in GluonTS and the evaluation of Chronos).
    - `coverage` of level q = share of elements with y <= f_q; q is perfect.

    Args:
        horizon: H.
        channels: Names of the target channels.
        mean: (C_target,) of the scaler; with `std`, results in original units too.
        std: (C_target,) of the scaler.
        levels: Levels of the quantiles, where the model has them.

    Raises:
        AssemblyError: If only one of mean and std is given, or they are not one per channel.
    """

    primary = "mse"

    def __init__(
        self,
        horizon: int,
        channels: Sequence[str],
        mean: Tensor | None = None,
        std: Tensor | None = None,
        levels: Sequence[float] = (),
    ) -> None:
        for name, scale in (("mean", mean), ("std", std)):
            if (scale is not None and scale.shape != (len(channels),)) or (mean is None) != (std is None):
                raise AssemblyError(
                    f"forecast metric: {name} must have one number for each of {len(channels)} channels, with the other"
                )
        self.channels, self.levels = list(channels), list(levels)
        self.mean = None if mean is None else mean.detach().double().cpu()
        self.std = None if std is None else std.detach().double().cpu()
        grid = (horizon, len(channels))
        self.sums = {
            name: torch.zeros(grid, dtype=torch.float64) for name in ("squared", "absolute", "count", "size", "own_size")
        }
        self.sums |= {name: torch.zeros((*grid, len(levels)), dtype=torch.float64) for name in ("pinball", "below")}
        self.sums["windows"] = torch.zeros((), dtype=torch.float64)

    def update(self, prediction: Tensor, target: Tensor, observed: Tensor | None = None, quantiles: Tensor | None = None) -> None:
        """Adds one batch.

        Args:
            prediction: (B, H, C_target), scaled.
            target: The same shape; what stands at missing entries is not read.
            observed: The same shape, bool; None means that everything was.
            quantiles: (B, H, C_target, Q); needed where levels were given.

        Raises:
            DataError: If a forecast or an observed target is not finite.
            AssemblyError: If shapes do not fit.
        """
        if prediction.shape != target.shape or prediction.shape[1:] != self.sums["count"].shape:
            raise AssemblyError(
                f"forecast metric: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (batch, "
                f"{', '.join(str(size) for size in self.sums['count'].shape)})"
            )
        if self.levels and (quantiles is None or quantiles.shape != (*target.shape, len(self.levels))):
            got = "none" if quantiles is None else str(tuple(quantiles.shape))
            raise AssemblyError(f"forecast metric: quantiles must be {(*target.shape, len(self.levels))}, got {got}")
        kept = torch.ones_like(target, dtype=torch.bool) if observed is None else observed
        truth = target.detach().double().masked_fill(~kept, 0)
        error = (prediction.detach().double() - truth).masked_fill(~kept, 0)
        self._check_finite(truth, error)
        self._add("squared", error.square())
        self._add("absolute", error.abs())
        self._add("count", kept.double())
        self._add("size", truth.abs())
        if self.mean is not None and self.std is not None:
            own = truth * self.std.to(truth.device) + self.mean.to(truth.device)
            self._add("own_size", own.abs().masked_fill(~kept, 0))
        self.sums["windows"] += len(target)
        if quantiles is not None and self.levels:
            self._add_quantiles(quantiles, truth, kept)

    def _add(self, name: str, values: Tensor) -> None:
        self.sums[name] += values.sum(0).cpu()

    def _check_finite(self, truth: Tensor, error: Tensor) -> None:
        if bool(error.isfinite().all()):
            return
        window, step, channel = (int(number) for number in (~error.isfinite()).nonzero()[0])
        what = "forecast" if bool(truth[window, step, channel].isfinite()) else "target"
        raise DataError(
            f"forecast metric: the {what} of window {int(self.sums['windows']) + window + 1}, step {step + 1}, channel "
            f"{self.channels[channel]!r} is not finite; a missing target must be masked (target_observed)"
        )

    def _add_quantiles(self, quantiles: Tensor, truth: Tensor, kept: Tensor) -> None:
        level = torch.tensor(self.levels, dtype=torch.float64, device=truth.device)
        over = truth[..., None] - quantiles.detach().double()
        pinball = torch.maximum(level * over, (level - 1) * over)
        self._add("pinball", pinball.masked_fill(~kept[..., None], 0))
        self._add("below", ((over <= 0) & kept[..., None]).double())

    def merge(self, other: ForecastMetric) -> None:
        """Adds what another one has collected."""
        for name in self.sums:
            self.sums[name] += other.sums[name]

    def merge_ranks(self) -> None:
        """Adds up what all ranks have collected, on every rank; a collective."""
        for name in sorted(self.sums):
            self.sums[name] = summed(self.sums[name])

    def compute(self) -> dict[str, Any]:
        """The results.

        Returns:
            `mse`, `mae`, `windows`, `elements`; `by_horizon` {mse: [H], mae: [H]}; `by_channel` {name: {mse, mae}}; with a scaler
            `original`, the same of errors in the columns' own units; with levels also `pinball`, `wql` and `coverage` {level: share}.
            A step or channel of which nothing was observed is None.

        Raises:
            DataError: If nothing was observed at all.
        """
        if not float(self.sums["count"].sum()):
            raise DataError("forecast metric: there is no observed value to compare with; check the split and the missing values")
        found = self._errors(torch.ones(len(self.channels), dtype=torch.float64))
        found |= {"windows": int(self.sums["windows"]), "elements": int(self.sums["count"].sum())}
        found |= self._of_quantiles(torch.ones(len(self.channels), dtype=torch.float64), self.sums["size"])
        if self.std is not None:
            found["original"] = self._errors(self.std) | self._of_quantiles(self.std, self.sums["own_size"])
        if self.levels:
            shares = self.sums["below"].sum((0, 1)) / self.sums["count"].sum()
            found["coverage"] = {f"{level:g}": float(share) for level, share in zip(self.levels, shares, strict=True)}
        return found

    def _errors(self, scale: Tensor) -> dict[str, Any]:
        """Both errors over all, by step and by channel, with every channel's error times its scale (C,)."""
        sums = {"mse": self.sums["squared"] * scale**2, "mae": self.sums["absolute"] * scale}
        count = self.sums["count"]
        by_channel = {
            channel: {name: _ratio(total[:, place].sum(), count[:, place].sum()) for name, total in sums.items()}
            for place, channel in enumerate(self.channels)
        }
        by_horizon = {
            name: [_ratio(part, of) for part, of in zip(total.sum(1), count.sum(1), strict=True)] for name, total in sums.items()
        }
        overall: Mapping[str, Any] = {name: _ratio(total.sum(), count.sum()) for name, total in sums.items()}
        return {**overall, "by_horizon": by_horizon, "by_channel": by_channel}

    def _of_quantiles(self, scale: Tensor, size: Tensor) -> dict[str, Any]:
        if not self.levels:
            return {}
        lost = (self.sums["pinball"] * scale[:, None]).sum((0, 1))
        return {
            "pinball": _ratio(lost.mean(), self.sums["count"].sum()),
            "wql": _ratio(2 * lost.mean(), size.sum()),
        }


def _ratio(total: Tensor, count: Tensor) -> float | None:
    return float(total / count) if float(count) else None
