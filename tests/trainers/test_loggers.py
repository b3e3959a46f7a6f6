"""Trackers by name: they get the same rows as metrics.csv, and their failures do not reach the run."""

import csv

import pytest

from modalign.trainers import loggers, train
from modalign.zoo.errors import RecipeError


@pytest.fixture
def one_stage(tiny_recipe):
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    tiny_recipe["evaluate"] = None
    return tiny_recipe


def rows(run):
    with (run / "metrics.csv").open() as stream:
        return [row for row in csv.DictReader(stream) if row.get("loss")]


def test_tensorboard_gets_what_the_csv_gets(one_stage):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one_stage["trainer"]["loggers"] = ["tensorboard"]
    run = train(one_stage)
    events = EventAccumulator(str(run / "tensorboard" / "teacher"))
    events.Reload()
    assert [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("loss")] == [
        (int(row["step"]), float(row["loss"])) for row in rows(run)
    ]


@pytest.mark.timeout(200)
def test_wandb_offline_writes_into_the_run(one_stage, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    one_stage["trainer"]["loggers"] = ["wandb"]
    run = train(one_stage)
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_raises_does_not_stop_the_run(one_stage, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    calls = []

    def fail(self, metrics, step=None):
        calls.append(step)
        raise ConnectionError("tracker is down")

    monkeypatch.setattr(loggers.TensorBoardLogger, "log_metrics", fail)
    one_stage["trainer"]["loggers"] = ["tensorboard"]
    run = train(one_stage)
    assert len(rows(run)) == 5 and len(calls) == 1
    assert "logger tensorboard failed" in capsys.readouterr().out


def test_an_unknown_tracker_is_refused(one_stage):
    one_stage["trainer"]["loggers"] = ["tensorbord"]
    with pytest.raises(RecipeError, match="tensorboard"):
        train(one_stage)
