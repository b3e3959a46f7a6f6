"""What is hidden, and errors at it, against loops over plain lists."""

import math

import numpy as np
import pytest
import torch

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet
from modalign.trainers.series.imputation import ImputationTask
from modalign.trainers.series.subject import SeriesSubject
from modalign.trainers.series.tasks import Hide

from .made import SPLIT, Made, noise, scaled, series_of


def test_what_is_hidden_was_there_and_is_about_the_rate():
    generator = torch.Generator().manual_seed(0)
    values, observed = torch.randn(200, 20, 3, generator=generator), torch.rand(200, 20, 3, generator=generator) > 0.2
    draws = [(0, 4, place) for place in range(200)]
    batch = {"values": values.masked_fill(~observed, 0.0), "observed": observed, "static": torch.ones(200, 1)}
    found = Hide(0.3, 2)(batch, draws)
    hidden = found["target_observed"]
    assert hidden.shape == (200, 20, 2) and not (hidden & ~observed[..., :2]).any(), "only what was there is looked for"
    count = int(observed[..., :2].sum())
    assert abs(int(hidden.sum()) - 0.3 * count) < 5 * math.sqrt(0.21 * count)
    assert torch.equal(found["target"], batch["values"][..., :2]), "before it was hidden"
    for b, step, c in np.ndindex(200, 20, 3):
        there, gone = bool(observed[b, step, c]), c < 2 and bool(hidden[b, step, c])
        assert found["observed"][b, step, c] == (there and not gone)
        assert found["values"][b, step, c] == (values[b, step, c] if there and not gone else 0)
    assert torch.equal(found["observed"][..., 2], observed[..., 2]), "a past covariate stays"
    assert found["static"] is batch["static"] and torch.equal(batch["observed"], observed), "the windows themselves stay"
    alone = Hide(0.3, 2)({name: value[7:8] for name, value in batch.items()}, draws[7:8])
    assert torch.equal(alone["target_observed"][0], hidden[7]), "whatever else is in the batch"
    other = Hide(0.3, 2)(batch, [(0, 5, place) for place in range(200)])
    assert not torch.equal(other["target_observed"], hidden)
    whole = Hide(0.3, 3)({"values": values}, draws)
    assert torch.equal(whole["observed"], ~whole["target_observed"]) and whole["target_observed"].float().mean() > 0.25


def slow_fill(cells, there):
    """(mean, last value, straight line) at every step of one channel, looking to both sides step by step."""
    known = [cell for cell, seen in zip(cells, there, strict=True) if seen]
    mean = sum(known) / len(known) if known else 0.0
    last, line = [], []
    for step in range(len(cells)):
        before = next((at for at in range(step, -1, -1) if there[at]), None)
        behind = next((at for at in range(step, len(cells)) if there[at]), None)
        last.append(mean if before is None else cells[before])
        if before is None or behind is None:
            line.append(mean if before is behind else cells[before if behind is None else behind])
        else:
            share = (step - before) / (behind - before) if behind > before else 0.0
            line.append(cells[before] + share * (cells[behind] - cells[before]))
    return mean, last, line


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_imputation_against_loops(part):
    """Every window inside the part, hidden values drawn by the window's number alone, missing ones left out."""
    look_back, columns, values = 6, ("a", "b"), [noise(60, 2, 1, 0.1), noise(43, 2, 2, 0.1)]
    series = SeriesSet([series_of(one, columns, name=f"s{n}") for n, one in enumerate(values)], "made")
    config = SeriesConfig(split=SPLIT, mask_rate=0.3)
    model = Made("imputation", lambda batch: {"prediction": batch["values"] + 0.5}, look_back, 1, columns)
    report = ImputationTask(part, batch_size=7).measure(SeriesSubject(model, "m", series, "d", config))
    ends = [(int(0.5 * len(one)), len(one) - int(0.3 * len(one)), len(one)) for one in values]
    place = ("train", "val", "test").index(part)
    errors, number = {name: [] for name in ("model", "window_mean", "last_value", "linear")}, 0
    for one, end in zip(scaled(values, [end[0] for end in ends]), ends, strict=True):
        for first in range((0, *end)[place], end[place] - look_back + 1):
            window = one[first : first + look_back]
            draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 0, number]))).random(window.shape)
            number += 1
            for c in range(2):
                there = [not math.isnan(cell) for cell in window[:, c]]
                left = [seen and draw[step, c] >= 0.3 for step, seen in enumerate(there)]
                mean, last, line = slow_fill(window[:, c].tolist(), left)
                for step in range(look_back):
                    if there[step] and not left[step]:
                        for name, guess in (
                            ("model", 0.5),
                            ("window_mean", mean),
                            ("last_value", last[step]),
                            ("linear", line[step]),
                        ):
                            errors[name].append(guess - window[step, c])
    assert report["n"] == {"windows": number, "hidden": len(errors["model"]), "series_without_window": 0}
    for name, wanted in errors.items():
        own = report["metrics"] if name == "model" else report["baselines"][name]
        assert own["mse"] == pytest.approx(np.square(wanted).mean(), rel=1e-5), name
        assert own["mae"] == pytest.approx(np.abs(wanted).mean(), rel=1e-5), name
