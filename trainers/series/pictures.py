"""The part of a report that shows forecasts: against truth, their error by step, and how far two branches agree layer by layer."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modalign.zoo.series.description import SeriesDescription

from .data import own_description, windows_of
from .forecast_plot import dots
from .subject import SeriesSubject

_CHANNELS, _WINDOWS = 4, 2


def forecast_pictures(subject: SeriesSubject, evaluations: Mapping[str, Any]) -> str:
    """HTML with three figures; only what the model has."""
    if subject.model.config.task != "forecast":
        return ""
    description = own_description(subject.series, subject.config, subject.model.config.series)
    windows = windows_of(subject.series, subject.model, subject.config, "test", description=description)
    chosen = [(2 * i + 1) * len(windows) // (2 * _WINDOWS) for i in range(_WINDOWS)]
    batch = {key: value for key, value in windows.batch(chosen).items() if isinstance(value, Tensor)}
    parts = ["<h2>Forecasts</h2><p class=note>Windows of the test part, in the columns' own units.</p>"]
    parts.append(
        _image(_against_truth(subject.model, description, batch, [windows.key(n) for n in chosen]), "forecasts and truth")
    )
    errors = {stage: content for stage, content in evaluations.items() if content.get("task") == "forecast"}
    if errors:
        parts.append("<h3>Error by step of the horizon</h3>" + _image(_by_step(errors), "error by step"))
    if (agreement := branch_agreement(subject.model, batch)) is not None:
        parts.append("<h3>Agreement of the two branches by layer</h3>" + _image(_layers(agreement), "cosine by layer"))
    return "".join(parts)


def _against_truth(model: Any, description: SeriesDescription, batch: Mapping[str, Tensor], keys: list[str]) -> Any:
    figure, axes = _subplots(len(keys), min(_CHANNELS, len(description.target)))
    with torch.no_grad():
        outputs = model.eval()({key: value.to(model.device) for key, value in batch.items()})
    names = description.target
    past = description.unscaled(_seen(batch, "values", "observed")[..., : len(names)], names)
    truth = description.unscaled(_seen(batch, "target", "target_observed"), names)
    forecast = description.unscaled(outputs["prediction"].cpu().double(), names)
    look_back, horizon = past.shape[1], truth.shape[1]
    shown = min(look_back, 2 * horizon)
    for row, key in enumerate(keys):
        for column in range(axes.shape[1]):
            axis = axes[row][column]
            axis.plot(range(-shown, 0), past[row, -shown:, column], color="0.5", linewidth=0.9, **dots(past[row, :, column]))
            true = truth[row, :, column]
            axis.plot(range(horizon), true, color="0.2", linewidth=0.9, label="truth", **dots(true))
            axis.plot(range(horizon), forecast[row, :, column], color="tab:red", linewidth=1.1, label="forecast")
            axis.set_title(f"{names[column]}  {key}", fontsize=7)
    axes[0][0].legend(fontsize=6)
    return figure


def _seen(batch: Mapping[str, Tensor], name: str, mask: str) -> Tensor:
    """Values as float64, NaN where one is missing: a batch has zeros there, which would be drawn as the training mean."""
    values = batch[name].double()
    return values if mask not in batch else values.masked_fill(~batch[mask], torch.nan)


def _by_step(errors: Mapping[str, Any]) -> Any:
    figure, axes = _subplots(1, 1, width=6.0)
    for stage, content in errors.items():
        lines = {stage: content["metrics"], **content["baselines"]}
        for name, values in lines.items():
            if "by_horizon" in values and not name.startswith(("train_mean", "last_value")):
                axes[0][0].plot(values["by_horizon"]["mse"], label=name.replace("_", " "), linewidth=1.1)
    axes[0][0].set_xlabel("step", fontsize=8)
    axes[0][0].set_ylabel("MSE, scaled", fontsize=8)
    axes[0][0].legend(fontsize=6)
    return figure


@torch.no_grad()
def branch_agreement(model: Any, batch: Mapping[str, Tensor]) -> list[float] | None:
    """Mean cosine of the two branches' states at every layer, from the tokens up; None for a model of one branch.

    Args:
        model: The model.
        batch: A batch of its data.
    """
    if not hasattr(model, "both_branches") or getattr(model.config, "inference_only", False):
        return None
    before, model.both_branches = model.both_branches, True
    try:
        outputs = model.eval()({key: value.to(model.device) for key, value in batch.items()})
    finally:
        model.both_branches = before
    if "text_layers" not in outputs:
        return None
    cosine = torch.cosine_similarity(outputs["series_layers"].float(), outputs["text_layers"].float(), dim=-1)
    return [float(value) for value in cosine.mean(dim=(0, 2))]


def _layers(agreement: list[float]) -> Any:
    figure, axes = _subplots(1, 1, width=5.0)
    axes[0][0].bar(range(len(agreement)), agreement, color="tab:blue")
    axes[0][0].set_xticks(range(len(agreement)))
    axes[0][0].set_xlabel("layer (0: the tokens)", fontsize=8)
    axes[0][0].set_ylabel("mean cosine", fontsize=8)
    return figure


def _subplots(rows: int, columns: int, width: float = 3.2) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, 2.3 * rows), squeeze=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=6)
        axis.grid(alpha=0.25)
    return figure, axes


def _image(figure: Any, what: str) -> str:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return f"<img alt='{what}' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
