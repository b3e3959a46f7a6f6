"""Anomaly detection against loops and numpy."""

import numpy as np
import pytest
import torch

from modalign.zoo.errors import DataError
from modalign.zoo.metrics.anomaly import anomaly_detection, anomaly_score, anomaly_threshold, point_adjusted, precision_recall_f1


def slow_adjust(found, truth):
    found, i = list(found), 0
    while i < len(truth):
        if not truth[i]:
            i += 1
            continue
        end = i
        while end < len(truth) and truth[end]:
            end += 1
        if any(found[i:end]):
            found[i:end] = [True] * (end - i)
        i = end
    return found


@pytest.mark.parametrize("seed", range(6))
def test_adjustment_against_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(60, generator=generator).repeat_interleave(3)[:100] > 0.6
    found = torch.rand(100, generator=generator) > 0.8
    assert point_adjusted(found, truth).tolist() == slow_adjust(found.tolist(), truth.tolist())
    assert torch.equal(point_adjusted(torch.zeros(100, dtype=torch.bool), truth), torch.zeros(100, dtype=torch.bool))


def test_threshold_is_numpys_percentile():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.rand(7, 11, generator=generator), torch.rand(50, generator=generator)
    both = np.concatenate([train.numpy().ravel(), test.numpy()])
    for ratio in (0.5, 1.0, 12.5, 99.0):
        assert anomaly_threshold(train, test, ratio) == pytest.approx(np.percentile(both, 100 - ratio), rel=1e-6)


def test_score_is_a_mean_over_observed_channels():
    f, y = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    torch.testing.assert_close(anomaly_score(f, y), ((f - y) ** 2).mean(-1).double())
    observed = torch.tensor([True, False, True]).expand(2, 5, 3).clone()
    observed[0, 0] = False
    score = anomaly_score(f, y, observed)
    assert score[0, 0] == 0
    torch.testing.assert_close(score[1], ((f - y) ** 2)[1][:, [0, 2]].mean(-1).double())


def test_counts():
    found = torch.tensor([1, 1, 0, 0, 1], dtype=torch.bool)
    truth = torch.tensor([1, 0, 1, 0, 1], dtype=torch.bool)
    assert precision_recall_f1(found, truth) == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "accuracy": 0.6})
    nothing = torch.zeros(5, dtype=torch.bool)
    assert precision_recall_f1(nothing, truth)["f1"] == 0 and precision_recall_f1(found, nothing)["recall"] == 0


def test_protocol():
    test, truth = torch.zeros(100), torch.zeros(100)
    truth[40:50], test[45] = 1, 9.0
    found = anomaly_detection(torch.zeros(100), test, truth, 1.0)
    assert found["f1"] == 1.0 and found["unadjusted_recall"] == pytest.approx(0.1) and found["unadjusted_precision"] == 1.0


def test_errors():
    with pytest.raises(DataError, match="a ratio between 0 and 100"):
        anomaly_threshold(torch.zeros(3), torch.zeros(3), 100)
    with pytest.raises(DataError, match=r"\(4,\) scores and \(5,\) labels"):
        anomaly_detection(torch.zeros(3), torch.zeros(4), torch.zeros(5))


def test_a_stretch_ends_with_its_series():
    truth = torch.tensor([False, True, True, True, False])
    found = torch.tensor([False, True, False, False, False])
    assert point_adjusted(found, truth).tolist() == [False, True, True, True, False]
    assert point_adjusted(found, truth, [2]).tolist() == [False, True, False, False, False]
    scores = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0])
    both = (anomaly_detection(scores[:1], scores, truth, 10.0, begins)["recall"] for begins in ((), (2,)))
    assert list(both) == [1.0, pytest.approx(1 / 3)]
