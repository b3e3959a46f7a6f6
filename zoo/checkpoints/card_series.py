"""The parts of a model card that are particular to models of time series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TAGS = ("time-series-forecasting", ("time-series",))


def about(model: Any) -> str:
    """One sentence on what it reads and predicts."""
    config, series = model.config, model.config.series
    task = config.task.replace("_", " ")
    length = (
        f"{config.horizon} steps from {config.look_back}" if config.task == "forecast" else f"windows of {config.look_back} steps"
    )
    if series is None:
        return f"{task}: {length}."
    step = f", one row every {series.frequency}" if series.frequency else ""
    past = f"; it also reads {', '.join(series.past)}" if series.past else ""
    known = f"; it is given {', '.join(series.known)} for the horizon too" if series.known else ""
    return f"{task}: {length} of {', '.join(series.target)}{step}{past}{known}."


def use(model: Any) -> str:
    """How it is used."""
    if model.config.task != "forecast":
        return '```python\nfrom modalign import zoo\n\nmodel = zoo.load("PATH")  # this folder\noutputs = model({"values": scaled})\n```'
    return (
        "```\nmodalign forecast PATH history.csv --out forecast.csv --plot forecast.png   # original units, real times\n"
        "modalign eval PATH --task forecast --data history.csv\n```"
    )


def evaluation(report: Mapping[str, Any]) -> str:
    """The errors with all baselines."""
    if report["task"] != "forecast":
        return _other(report)
    settings, n = report["settings"], report["n"]
    rows = [
        f"| {name} | {v['mse']:.4f} | {v['mae']:.4f} |"
        for name, v in {"this model": report["metrics"], **report["baselines"]}.items()
    ]
    about = (
        f"Forecast of {settings['horizon']} steps from {settings['look_back']}, {n['windows']} windows x {n['channels']} channels of "
        f"`{report['data']}` ({settings['part']}, split {settings['split']}); values scaled by the training rows; no window left out."
    )
    return "\n".join([about, "", "| forecast | MSE | MAE |", "|---|---|---|", *rows])


def _other(report: Mapping[str, Any]) -> str:
    """Every number of the model that is one of each baseline too."""
    columns = {"this model": report["metrics"], **report["baselines"]}
    shared = [name for name in report["metrics"] if all(isinstance(v.get(name), int | float) for v in columns.values())]
    shared = [name for name in shared if name not in ("windows", "elements")]
    rows = [f"| {label} | " + " | ".join(f"{v[name]:.4g}" for name in shared) + " |" for label, v in columns.items()]
    counted = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in report["n"].items() if value)
    head = ["| by | " + " | ".join(shared) + " |", "|---" * (len(shared) + 1) + "|"]
    return "\n".join([f"{report['task'].replace('_', ' ')} on `{report['data']}`: {counted}.", "", *head, *rows])


LIMITS = (
    "Forecasts within the kind of data it was trained on. Errors outside it, in other regimes and at other steps between rows are unknown; "
    "the baselines above say how much of the forecast is more than habit."
)
