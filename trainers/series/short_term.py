"""Task `short_term`: many short series, each forecast once at its end: sMAPE, MASE and OWA beside naive forecasts (the M4 protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modalign.zoo.errors import DataError, RecipeError
from modalign.zoo.metrics.m4 import mase, mase_scale, owa, smape
from modalign.zoo.series.naive import last_value, seasonal_naive, window_mean
from modalign.zoo.series.naive2 import naive2

from ..data_kind import SERIES
from ..evaluation.task import MeasuringTask, Table
from .imputation import check_task
from .passes import on_device, part_of, passes
from .seasons import season_of
from .subject import SeriesSubject


@dataclass
class ShortTermTask(MeasuringTask):
    """sMAPE in percent, MASE with each series' own in-sample scale, means over all series and targets, and OWA against Naive2.

    MASE's scale, Naive2 and the seasonal naive forecast read all of a series before what is predicted, so that the season does not depend
    on the look-back.

    Attributes:
        part: Which part to measure: test (the last horizon of every series) or val (the one before).
        season: Season of MASE's scale, Naive2 and the seasonal naive forecast, in steps; default that of the step between rows
            (`season_of`; M4 itself has 1 for days and weeks), or 1 where it has none.
        batch_size: Series at a time.
    """

    part: str = "test"
    season: int | None = None
    batch_size: int = 256
    name: ClassVar[str] = "short_term"
    kind: ClassVar[str] = SERIES

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            RecipeError: Naming the setting.
        """
        if self.part not in ("test", "val"):
            raise RecipeError(f"part: {self.part!r} is neither test nor val; training cuts differ from epoch to epoch")
        if self.batch_size < 1 or (self.season is not None and self.season < 1):
            raise RecipeError(f"season is {self.season} and batch_size {self.batch_size}; both are 1 or more")

    @torch.no_grad()
    def measure(self, subject: SeriesSubject) -> dict[str, Any]:
        """See `MeasuringTask`.

        Raises:
            DataError: If a series is no longer than a season.
        """
        check_task(subject.model, self.name)
        cuts = part_of(subject, self.part)
        season = self.season or season_of(subject.series.frequency) or 1
        _check_lengths(cuts, season)
        answers: dict[str, list[Tensor]] = {}
        truth, observed = [], []
        for view in on_device(passes(subject, cuts, self.batch_size, shared=False), subject.model):
            for name, answer in {"model": subject.model.eval()(view)["prediction"], **_of_the_window(view)}.items():
                answers.setdefault(name, []).append(answer.cpu())
            truth.append(view["target"].cpu())
            observed.append(view["target_observed"].cpu())
        rows = {name: torch.cat(parts) for name, parts in answers.items()}
        rows |= {f"seasonal_naive_{season}": _seasonal(cuts, season), "naive2": _naive2(cuts, season)}
        scale = _scales(cuts, season)
        scores = _scores(rows, torch.cat(truth), torch.cat(observed), scale)
        own = scores.pop("model")
        n = {"series": len(cuts), "targets": len(cuts.columns.target), "series_without_window": len(cuts.left_out)}
        n["without_mase"] = int((~(scale > 0)).sum())  # constant ones
        settings = {"look_back": cuts.look_back, "horizon": cuts.horizon, "season": season, "part": self.part}
        return subject.report(self.name, n, metrics=own, baselines=scores, settings=settings)

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `MeasuringTask`."""
        rows = [
            (name.replace("_", " "), f"{v['smape']:.3f}", f"{v['mase']:.3f}", f"{v['owa']:.3f}")
            for name, v in {"model": report["metrics"], **report["baselines"]}.items()
        ]
        settings, n = report["settings"], report["n"]
        title = f"the last {settings['horizon']} steps of {n['series']} series of {report['data']}, season {settings['season']}"
        return [Table(title, ("forecast", "sMAPE", "MASE", "OWA"), rows)]


def _check_lengths(cuts: Any, season: int) -> None:
    """Refuses a season that a series does not hold."""
    for number in range(len(cuts)):
        if (rows := len(cuts.past(number))) <= season:
            raise DataError(
                f"{cuts.series.name}: series {cuts.key(number)!r} has {rows} rows before what is predicted, and MASE compares rows a "
                f"season of {season} apart; give a shorter season (1 compares neighbours), or leave the series out"
            )


def _scores(answers: dict[str, Tensor], truth: Tensor, observed: Tensor, scale: Tensor) -> dict[str, dict[str, float]]:
    """Name -> sMAPE, MASE and OWA.

    Args:
        answers: Name -> (S, H, C) forecasts; `naive2` is the reference.
        truth: (S, H, C).
        observed: (S, H, C) bool.
        scale: (S x C,) of MASE.
    """
    flat = {name: values.transpose(1, 2).flatten(0, 1) for name, values in {**answers, "": truth}.items()}
    kept, target = observed.transpose(1, 2).flatten(0, 1), flat.pop("")
    found = {
        name: {
            "smape": float(smape(values, target, kept).nanmean()),
            "mase": float(mase(values, target, scale, kept).nanmean()),
        }
        for name, values in flat.items()
    }
    reference = found["naive2"]
    for values in found.values():
        values["owa"] = owa(values["smape"], values["mase"], reference["smape"], reference["mase"])
    return found


def _of_the_window(view: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The window's mean and its last value, over the horizon; no mean of training rows, as nothing is scaled."""
    horizon, channels = view["target"].shape[1:]
    values, observed = view["values"][..., :channels], view["observed"][..., :channels]
    return {which.__name__: which(values, observed, horizon) for which in (window_mean, last_value)}


def _seasonal(cuts: Any, season: int) -> Tensor:
    """(S, H, C_target) the last season of every series again and again."""
    found = []
    for number in range(len(cuts)):
        past = torch.from_numpy(cuts.past(number)[:, : len(cuts.columns.target)])
        found.append(seasonal_naive(past.nan_to_num(0.0)[None].float(), ~past.isnan()[None], cuts.horizon, season))
    return torch.cat(found)


def _naive2(cuts: Any, season: int) -> Tensor:
    """(S, H, C_target) Naive2 of every series; missing values of its past lie on the line between their neighbours."""
    found = torch.zeros(len(cuts), cuts.horizon, len(cuts.columns.target))
    for number in range(len(cuts)):
        past = cuts.past(number)
        for channel in range(found.shape[2]):
            known = np.flatnonzero(~np.isnan(past[:, channel]))
            if len(known):
                whole = np.interp(
                    np.arange(known[0], len(past)), known, past[known, channel]
                )  # so that every step keeps its season
                found[number, :, channel] = torch.from_numpy(naive2(whole, cuts.horizon, season))
    return found


def _scales(cuts: Any, season: int) -> Tensor:
    """(series x targets,) in-sample scale of MASE: everything before what is predicted."""
    found = []
    for number in range(len(cuts)):
        past = torch.from_numpy(cuts.past(number)[:, : len(cuts.columns.target)].T.copy())
        found.append(mase_scale(past.nan_to_num(0.0), season, ~past.isnan()))
    return torch.cat(found)
