"""Scores of rows and what is flagged, against loops over plain lists."""

import math

import numpy as np
import pytest
import torch

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import SeriesSet
from modalign.trainers.series.anomaly import AnomalyTask
from modalign.trainers.series.subject import SeriesSubject
from modalign.trainers.series.tasks import Reconstruct
from modalign.zoo.errors import DataError, RecipeError

from .made import SPLIT, Made, noise, scaled, series_of


def test_the_window_is_its_own_target():
    values, observed = torch.randn(4, 5, 3), torch.rand(4, 5, 3) > 0.3
    found = Reconstruct(2)({"values": values, "observed": observed}, [])
    assert torch.equal(found["target"], values[..., :2]) and torch.equal(found["target_observed"], observed[..., :2])
    assert torch.equal(found["values"], values) and set(Reconstruct(2)({"values": values}, [])) == {"values", "target"}


def rebuilt(batch):
    """Each row as the mean of the window so far: what comes out depends on where the window starts."""
    values = batch["values"]
    return {"prediction": values.cumsum(1) / torch.arange(1.0, values.shape[1] + 1)[None, :, None]}


def slow_scores(rows, look_back, stride):
    """Mean score of every row over the windows that cover it."""
    starts = list(range(0, len(rows) - look_back + 1, stride))
    starts += [len(rows) - look_back] if starts[-1] != len(rows) - look_back else []
    given = [[] for _ in rows]
    for start in starts:
        seen = np.nan_to_num(rows[start : start + look_back])
        for step in range(look_back):
            cells = [(seen[: step + 1, c].mean() - seen[step, c]) ** 2 for c in range(2) if not math.isnan(rows[start + step, c])]
            given[start + step].append(sum(cells) / max(len(cells), 1))
    return [sum(one) / len(one) for one in given]


def adjusted(flagged, truth):
    """A marked stretch is found as a whole if one of its rows is."""
    found = list(flagged)
    for row in range(len(truth)):
        if flagged[row] and truth[row]:
            for way in (-1, 1):
                at = row
                while 0 <= at < len(truth) and truth[at]:
                    found[at], at = True, at + way
    return found


@pytest.mark.parametrize("stride", [None, 1, 3, 6])
@pytest.mark.parametrize("split", [SPLIT, {"val": "2021-03-02", "test": "2021-03-02T08:00"}])
def test_anomalies_against_loops(stride, split):
    """Exactly the rows of the parts are scored: marks of the validation part, right before the test part, do not enter."""
    look_back, columns, values = 6, ("a", "b"), [noise(60, 2, 1, 0.05), noise(47, 2, 2, 0.05), noise(12, 2, 3)]
    dates = isinstance(split["val"], str)
    edges = [(24, 32, len(one)) if dates else (int(0.5 * len(one)), len(one) - int(0.3 * len(one)), len(one)) for one in values]
    edges[2] = (12, 12, 12) if dates else (6, 9, 12)  # no window in the third one's test part
    series, marks = [], []
    for number, (one, (_, test, _)) in enumerate(zip(values, edges, strict=True)):
        mark = np.zeros(len(one))
        mark[max(0, test - 4) : test] = 1  # in the validation part
        mark[test + 2 : test + 4] = 1
        one[test + 2 : test + 4] += 4  # and one of two rows is easy to find
        marks.append(mark)
        series.append(series_of(np.column_stack([one, mark]), (*columns, "odd"), name=f"s{number}"))
    config = SeriesConfig(split=split, anomaly="odd")
    model = Made("anomaly", rebuilt, look_back, 1, columns)
    subject = SeriesSubject(model, "m", SeriesSet(series, "made"), "d", config)
    report = AnomalyTask(ratio=8.0, stride=stride, batch_size=4).measure(subject)
    scores = {"train": [], "test": []}
    truth = []
    for one, (train, test, end), mark in zip(scaled(values, [edge[0] for edge in edges]), edges, marks, strict=True):
        for part, (first, last) in (("train", (0, train)), ("test", (test, end))):
            if last - first >= look_back:
                scores[part] += slow_scores(one[first:last], look_back, stride or look_back)
                truth += (mark[first:last] > 0).tolist() if part == "test" else []
    assert report["n"] == {"rows": len(truth), "anomalous": sum(truth), "series_without_window": 1} and sum(truth) == 4
    assert len(truth) == sum(end - test for _, test, end in edges[:2])
    threshold = np.percentile(scores["train"] + scores["test"], 92)
    assert report["metrics"]["threshold"] == pytest.approx(threshold, rel=1e-5)
    flagged = [score > threshold for score in scores["test"]]
    right = sum(f and t for f, t in zip(flagged, truth, strict=True))
    assert right, "else the rest says nothing"
    assert report["metrics"]["unadjusted_precision"] == pytest.approx(right / sum(flagged))
    assert report["metrics"]["unadjusted_recall"] == pytest.approx(right / sum(truth))
    whole = adjusted(flagged, truth)
    assert report["metrics"]["recall"] == pytest.approx(sum(f and t for f, t in zip(whole, truth, strict=True)) / sum(truth))


def test_windows_that_would_leave_rows_out_are_refused():
    model = Made("anomaly", rebuilt, 6, 1, ("a",))
    subject = SeriesSubject(
        model, "m", SeriesSet([series_of(noise(60, 2), ("a", "odd"))], "made"), "d", SeriesConfig(anomaly="odd")
    )
    for stride in (0, 7):
        with pytest.raises(RecipeError, match=rf"stride: {stride} must be from 1 to the look-back, 6"):
            AnomalyTask(stride=stride).measure(subject)
    with pytest.raises(DataError, match="no column marks anomalies; name it with --anomaly"):
        AnomalyTask().measure(SeriesSubject(model, "m", subject.series, "d", SeriesConfig()))
