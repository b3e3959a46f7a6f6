"""Series out of numbers and a model whose answer is a function of its window, for tests of single tasks."""

from types import SimpleNamespace

import numpy as np
import torch

from modalign.datasets.series.series_set import Series
from modalign.zoo.series.description import SeriesDescription

START = np.datetime64("2021-03-01T00:00", "us")
SPLIT = {"train": 0.5, "val": 0.2, "test": 0.3}


class Made(torch.nn.Module):
    """A model whose answer is a function of its batch."""

    family, device = "made", torch.device("cpu")

    def __init__(self, task, answer, look_back, horizon, columns, labels=()):
        super().__init__()
        scale = {column: [0.0, 1.0] for column in columns}
        series = SeriesDescription(list(columns), frequency="h", scale=scale, labels=list(labels), split="none")
        self.config = SimpleNamespace(task=task, look_back=look_back, horizon=horizon, series=series)
        self.answer = answer

    def forward(self, batch):
        return self.answer(batch)


def series_of(values, columns, frequency="h", label=None, name="s0"):
    return Series(name, np.asarray(values, dtype=float), tuple(columns), START, frequency, label=label)


def noise(rows, columns, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) + np.arange(columns)
    values[rng.random(values.shape) < missing] = np.nan
    return values


def scaled(values, end):
    """Columns scaled by the moments of the rows before `end`, of one list after the other."""
    rows = np.concatenate([one[:last] for one, last in zip(values, end, strict=True)])
    return [(one - np.nanmean(rows, 0)) / np.nanstd(rows, 0) for one in values]
