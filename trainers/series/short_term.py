"""Task `short_term`: many short series, each forecast once at its end: sMAPE, MASE and OWA beside naive forecasts (the M4 protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modalign.zoo.metrics.m4 import mase, mase_scale, owa, smape
from modalign.zoo.series.naive import naive_forecasts
from modalign.zoo.series.naive2 import naive2

from ..evaluation.task import MeasuringTask, Table
from ..kinds import SERIES
from .imputation import check_task
from .passes import on_device, part_of, passes
from .seasons import seasons_of
from .subject import SeriesSubject


@dataclass
class ShortTermTask(MeasuringTask):
    """sMAPE in percent, MASE with each series' own in-sample scale, means over all series and targets, and OWA against Naive2.

    Attributes:
        part: Which part to measure: test (the last horizon of every series) or val (the one before).
        season: Season of MASE's scale and of the seasonal naive forecast, in steps; default by the step between rows.
        batch_size: Series at a time.
    """

    part: str = "test"
    season: int | None = None
    batch_size: int = 256
    name: ClassVar[str] = "short_term"
    kind: ClassVar[str] = SERIES

    @torch.no_grad()
    def measure(self, subject: SeriesSubject) -> dict[str, Any]:
        """See `MeasuringTask`."""
        check_task(subject.model, self.name)
        cuts = part_of(subject, self.part)
        found = seasons_of(subject.series.frequency, cuts.look_back)
        season = self.season or (found[0] if len(found) > 1 else 1)
        answers: dict[str, list[Tensor]] = {}
        truth, observed = [], []
        for view in on_device(passes(subject, cuts, self.batch_size, shared=False), subject.model):
            channels = view["target"].shape[2]
            naive = naive_forecasts(view["values"][..., :channels], view["observed"][..., :channels], cuts.horizon, [season])
            naive.pop("train_mean")  # nothing is scaled, so that it would be 0
            for name, answer in {"model": subject.model.eval()(view)["prediction"], **naive}.items():
                answers.setdefault(name, []).append(answer.cpu())
            truth.append(view["target"].cpu())
            observed.append(view["target_observed"].cpu())
        rows = {name: torch.cat(parts) for name, parts in answers.items()} | {"naive2": _naive2(cuts, season)}
        scores = self._scores(rows, torch.cat(truth), torch.cat(observed), cuts, season)
        own = scores.pop("model")
        n = {"series": len(cuts), "targets": len(cuts.columns.target), "series_without_window": len(cuts.left_out)}
        settings = {"look_back": cuts.look_back, "horizon": cuts.horizon, "season": season, "part": self.part}
        return subject.report(self.name, n, metrics=own, baselines=scores, settings=settings)

    def _scores(
        self, answers: dict[str, Tensor], truth: Tensor, observed: Tensor, cuts: Any, season: int
    ) -> dict[str, dict[str, float]]:
        """Name -> sMAPE, MASE and OWA."""
        scale = _scales(cuts, season)
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


def _naive2(cuts: Any, season: int) -> Tensor:
    """(S, H, C_target) Naive2 of every series, missing values of its past left out."""
    found = torch.empty(len(cuts), cuts.horizon, len(cuts.columns.target))
    for number in range(len(cuts)):
        past = cuts.past(number)
        for channel in range(found.shape[2]):
            known = past[~np.isnan(past[:, channel]), channel]
            forecast = naive2(known, cuts.horizon, season) if len(known) else np.zeros(cuts.horizon)
            found[number, :, channel] = torch.from_numpy(forecast)
    return found


def _scales(cuts: Any, season: int) -> Tensor:
    """(series x targets,) in-sample scale of MASE: everything before what is predicted."""
    found = []
    for number in range(len(cuts)):
        past = cuts.past(number)
        for channel in range(len(cuts.columns.target)):
            values = past[:, channel]
            step = season if len(values) > season else 1
            known = torch.from_numpy(~np.isnan(values))[None]
            history = torch.from_numpy(np.nan_to_num(values))[None]
            found.append(mase_scale(history, step, known) if len(values) > step else torch.full((1,), float("nan")))
    return torch.cat(found)
