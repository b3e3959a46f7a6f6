"""Accuracy and the linear classifier beside it, against loops."""

from collections import Counter

import numpy as np
import pytest
import torch

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet
from modalign.trainers.series.classification import ClassificationTask
from modalign.trainers.series.data import config_for_task
from modalign.trainers.series.linear_classifier import fit_linear
from modalign.trainers.series.subject import SeriesSubject

from .made import Made, series_of

MEANS = (0.0, 0.7, 1.4, 9.0)


def gradient_descent(rows, labels, classes, decay=1e-2, steps=4000):
    """The same regression, numpy, plain steps downhill."""
    mean, std = rows.mean(0), rows.std(0, ddof=1)
    x, n = (rows - mean) / std, len(rows)
    weight, bias, wanted = np.zeros((classes, rows.shape[1])), np.zeros(classes), np.eye(classes)[labels]
    for _ in range(steps):
        z = x @ weight.T + bias
        chance = np.exp(z - z.max(1, keepdims=True))
        off = (chance / chance.sum(1, keepdims=True) - wanted) / n
        weight -= 0.5 * (off.T @ x + decay * weight / n)
        bias -= 0.5 * off.sum(0)
    return lambda more: ((more - mean) / std) @ weight.T + bias


def test_the_linear_classifier_against_plain_steps_downhill():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    rows = rng.normal(size=(90, 4)) * [1, 5, 0.2, 1] + np.eye(3, 4)[labels] * 1.2 + [0, 30, 0, -4]
    predict = fit_linear(torch.tensor(rows).float(), torch.tensor(labels), 3, decay=1.0)
    slow = gradient_descent(rows, labels, 3, decay=1.0)
    more = rng.normal(size=(500, 4)) * [1, 5, 0.2, 1] + [0, 30, 0, -4]
    logits = np.sort(slow(more), axis=1)
    clear = logits[:, -1] - logits[:, -2] > 0.02  # where rounding does not decide
    assert clear.mean() > 0.9
    assert predict(torch.tensor(more).float()).numpy()[clear].tolist() == slow(more).argmax(1)[clear].tolist()


def labelled(count, seed, name):
    """Series of 12 rows around the mean of their class."""
    rng = np.random.default_rng(seed)
    labels = [("cat", "dog", "owl")[number] for number in rng.choice(3, count, p=[0.5, 0.3, 0.2])]
    values = [rng.normal(size=(12, 2)) + MEANS[("cat", "dog", "owl").index(label)] for label in labels]
    return SeriesSet(
        [series_of(v, "ab", None, label, f"s{n}") for n, (v, label) in enumerate(zip(values, labels, strict=True))], name
    )


def nearest_mean(batch):
    return {"logits": -(batch["values"].mean((1, 2))[:, None] - torch.tensor(MEANS)).abs()}


def test_accuracy_against_loops(monkeypatch):
    test, train, classes = labelled(40, 1, "test"), labelled(60, 2, "train"), ["cat", "dog", "owl", "yak"]
    model = Made("classification", nearest_mean, 5, 1, "ab", classes)
    subject = SeriesSubject(model, "m", test, "d", config_for_task(SeriesConfig(), "classification"))
    monkeypatch.setattr("modalign.trainers.series.data.open_series", lambda name, config: {"train.csv": train}[name])
    report = ClassificationTask("train.csv", batch_size=7).measure(subject)
    right, total = Counter(), Counter()
    for one in test.series:
        mean = one.values[-5:].mean()
        total[one.label] += 1
        right[one.label] += min(range(4), key=lambda k: abs(mean - MEANS[k])) == classes.index(one.label)
    assert 0 < sum(right.values()) < 40
    assert report["metrics"]["accuracy"] == pytest.approx(100 * sum(right.values()) / 40, abs=1e-3)
    assert report["by_class"] == {name: pytest.approx(100 * right[name] / total[name], abs=1e-3) for name in sorted(total)}
    assert report["baselines"]["commonest class"]["accuracy"] == pytest.approx(100 * max(total.values()) / 40, abs=1e-3)
    rows, raw = (np.array([one.values[-5:].ravel() for one in data.series]) for data in (train, test))
    slow = gradient_descent(rows, np.array([classes.index(one.label) for one in train.series]), 4)
    wanted = np.mean(slow(raw).argmax(1) == [classes.index(one.label) for one in test.series])
    assert report["baselines"]["linear classifier of the raw values"]["accuracy"] == pytest.approx(100 * wanted, abs=2.6)
    assert report["n"] == {"series": 40}
