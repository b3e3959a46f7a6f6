"""Scores of short series against loops over plain lists, and where the season comes from."""

import math

import numpy as np
import pytest

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet
from modalign.trainers.series.data import config_for_task
from modalign.trainers.series.short_term import ShortTermTask
from modalign.trainers.series.subject import SeriesSubject
from modalign.zoo.errors import DataError, RecipeError

from .made import Made, series_of


def slow_naive2(history, horizon, season):
    """The last value with the season taken out and put back: centred moving averages and ratios, step by step."""
    n = len(history)
    ratios = [1.0] * season
    mean = sum(history) / n
    total = sum((x - mean) ** 2 for x in history)
    if season > 1 and n >= 3 * season and min(history) > 0 and total > 0:
        r = [sum((history[t] - mean) * (history[t - k] - mean) for t in range(k, n)) / total for k in range(1, season + 1)]
        if abs(r[-1]) > 1.645 * math.sqrt((1 + 2 * sum(x * x for x in r[:-1])) / n):
            found = [[] for _ in range(season)]
            half = season // 2
            for t in range(half, n - half):
                around = history[t - half : t + half + 1]
                ends = 0.5 * (around[0] + around[-1]) if season % 2 == 0 else 0.0  # of an even season, half a step on either side
                found[t % season].append(history[t] * season / (sum(around) - ends))
            means = [sum(one) / len(one) for one in found]
            ratios = [one * season / sum(means) for one in means]
    last = history[-1] / ratios[(n - 1) % season]
    return [last * ratios[(n + h) % season] for h in range(horizon)]


def weekly(rows, seed, level=50.0):
    rng = np.random.default_rng(seed)
    return level + 8 * np.sin(2 * np.pi * np.arange(rows) / 7) + rng.normal(size=rows) + 0.05 * np.arange(rows)


def one_more(batch):
    """One more than the last value, for three steps."""
    return {"prediction": batch["values"][:, -1:].expand(-1, 3, -1) + 1}


@pytest.mark.parametrize(("look_back", "season"), [(14, None), (4, None), (7, None), (14, 1), (14, 5)])
@pytest.mark.parametrize("part", ["val", "test"])
def test_short_series_against_loops(look_back, season, part):
    """Season 7 of days, also where the look-back holds no week: MASE, Naive2 and the last season read the whole history."""
    horizon, lengths = 3, (60, 41, 24)
    values = [np.column_stack([weekly(n, n), weekly(n, n + 1, 200.0)]) for n in lengths]
    values[1][:, 1] = np.random.default_rng(5).normal(100, 1, 41)  # no season
    values[0][[20, 55], 0] = np.nan
    config = config_for_task(SeriesConfig(scale="none"), "short_term")
    series = SeriesSet([series_of(one, ("a", "b"), "D", name=f"s{n}") for n, one in enumerate(values)], "made")
    model = Made("short_term", one_more, look_back, horizon, ("a", "b"))
    report = ShortTermTask(part, season, batch_size=2).measure(SeriesSubject(model, "m", series, "d", config))
    own_season = season or 7
    scores = {name: [[], []] for name in ("model", "last_value", "window_mean", f"seasonal_naive_{own_season}", "naive2")}
    for one in values:
        rows = one[: len(one) - (horizon if part == "val" else 0)]
        for c in range(2):
            past, truth = rows[:-horizon, c], rows[-horizon:, c]
            window, known = past[-look_back:], [at for at in range(len(past)) if not math.isnan(past[at])]
            seen = [x for x in window if not math.isnan(x)]
            line = list(past)
            for at in range(len(past)):
                if math.isnan(past[at]):
                    before, behind = max(k for k in known if k < at), min(k for k in known if k > at)
                    line[at] = past[before] + (past[behind] - past[before]) * (at - before) / (behind - before)
            latest = []
            for h in range(horizon):
                at = len(past) - own_season + h % own_season
                while math.isnan(past[at]):
                    at -= own_season
                latest.append(past[at])
            last = 0.0 if math.isnan(window[-1]) else window[-1]  # the model reads 0 where nothing was
            forecasts = {
                "model": [last + 1] * horizon,
                "last_value": [seen[-1]] * horizon,
                "window_mean": [sum(seen) / len(seen)] * horizon,
                f"seasonal_naive_{own_season}": latest,
                "naive2": slow_naive2(line, horizon, own_season),
            }
            pairs = [abs(past[t] - past[t - own_season]) for t in range(own_season, len(past))]
            pairs = [pair for pair in pairs if not math.isnan(pair)]
            kept = [h for h in range(horizon) if not math.isnan(truth[h])]
            for name, f in forecasts.items():
                scores[name][0].append(sum(200 * abs(f[h] - truth[h]) / (abs(f[h]) + abs(truth[h])) for h in kept) / len(kept))
                scores[name][1].append(sum(abs(f[h] - truth[h]) for h in kept) / len(kept) / (sum(pairs) / len(pairs)))
    means = {name: [sum(one) / len(one) for one in both] for name, both in scores.items()}
    assert report["settings"]["season"] == own_season and set(report["baselines"]) == set(means) - {"model"}
    assert report["n"] == {"series": 3, "targets": 2, "series_without_window": 0, "without_mase": 0}
    for name, (smape, mase) in means.items():
        own = report["metrics"] if name == "model" else report["baselines"][name]
        assert own["smape"] == pytest.approx(smape, rel=1e-5) and own["mase"] == pytest.approx(mase, rel=1e-5), name
        wanted = 0.5 * (smape / means["naive2"][0] + mase / means["naive2"][1])
        assert own["owa"] == pytest.approx(wanted, rel=1e-5) and (name != "naive2" or own["owa"] == pytest.approx(1.0))


def short_subject(lengths, frequency, constant=False):
    values = [np.full(n, 3.0) if constant and not place else weekly(n, n) for place, n in enumerate(lengths)]
    series = SeriesSet([series_of(one[:, None], ("a",), frequency, name=f"s{n}") for n, one in enumerate(values)], "made")
    model = Made("short_term", lambda batch: {"prediction": batch["values"][:, -3:]}, 4, 3, ("a",))
    return SeriesSubject(model, "m", series, "d", config_for_task(SeriesConfig(scale="none"), "short_term"))


@pytest.mark.parametrize(("frequency", "season"), [("D", 7), ("7D", 52), ("MS", 12), ("QS-JAN", 4), ("h", 24), ("YS-JAN", 1)])
def test_the_season_is_that_of_the_step_whatever_the_look_back(frequency, season):
    report = ShortTermTask().measure(short_subject((80, 70), frequency))
    assert report["settings"]["season"] == season and f"seasonal_naive_{season}" in report["baselines"]


def test_a_series_shorter_than_its_season_is_named():
    with pytest.raises(
        DataError, match=r"made: series 's1' has 52 rows before what is predicted, .* season of 52 apart; give a shorter"
    ):
        ShortTermTask().measure(short_subject((90, 55), "7D"))
    assert ShortTermTask().measure(short_subject((90, 56), "7D"))["settings"]["season"] == 52
    assert ShortTermTask(season=1).measure(short_subject((90, 55), "7D"))["settings"]["season"] == 1


def test_series_without_mase_are_counted():
    report = ShortTermTask().measure(short_subject((40, 60), "D", constant=True))
    assert report["n"]["without_mase"] == 1 and math.isfinite(report["metrics"]["mase"])


def test_settings_of_short_series():
    for settings, reason in (({"part": "train"}, "part: 'train' is neither test nor val"), ({"season": 0}, "season is 0")):
        with pytest.raises(RecipeError, match=reason):
            ShortTermTask(**settings)
