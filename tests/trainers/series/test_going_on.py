"""A run of series that was stopped goes on exactly, also on two ranks; two ranks validate and measure as one does."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.trainers.evaluation.tasks import build_task
from modalign.trainers.series.opening import series_subject

sys.path.insert(0, str(Path(__file__).parents[1]))
from launching import CLI, assert_equal_runs, start, write_recipe


def weights(run):
    from safetensors.torch import load_file

    return load_file(run / "release" / "model.safetensors")


def curve(run):
    with (run / "metrics.csv").open() as stream:
        return [(row["step"], row.get("loss"), row.get("val/mse")) for row in csv.DictReader(stream)]


def stopped(recipe, step, monkeypatch):
    """A run that dies in a step."""
    from modalign.trainers.task import TrainingTask

    original, calls = TrainingTask.training_step, []

    def stop_later(self, batch, index):
        calls.append(index)
        if len(calls) == step:
            raise RuntimeError("power cut")
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingTask, "training_step", stop_later)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe)


@pytest.mark.parametrize(("task", "workers"), [("forecast", 2), ("imputation", 0)])
def test_a_stopped_run_goes_on_exactly(recipe_of, table, tmp_path, monkeypatch, task, workers):
    """Stopped in mid-epoch, behind a validation, gone on with other workers: the same windows, the same hidden values, the same weights."""
    recipe = recipe_of("calf-gpt2", table, tmp_path / "whole", schedule="cosine_by_epoch", schedules={"aux": "constant"})
    recipe["model"] |= {"task": task, "strict_reference": True}
    del recipe["stages"]["forecast"]["train"]["projector"]  # all of it is of role aux then
    if task == "imputation":
        recipe["model"]["horizon"] = 24
        recipe["evaluate"] = None
    whole = train(recipe)

    recipe["run_dir"] = str(tmp_path / "part")
    stopped(recipe, 5, monkeypatch)
    recipe["data"]["num_workers"] = workers
    part = train(load_recipe(recipe))
    assert curve(part) == curve(whole) and len([row for row in curve(whole) if row[2]]) == 2
    assert (part / "stages/forecast/samples.csv").read_text() == (whole / "stages/forecast/samples.csv").read_text()
    ours, theirs = weights(part), weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    notes = [json.loads((run / "stages/forecast/done.json").read_text()) for run in (part, whole)]
    assert notes[0]["best"] == notes[1]["best"] and notes[0]["best_step"] == notes[1]["best_step"]


@pytest.mark.timeout(240)
def test_one_rank_goes_on_as_two(recipe_of, table, tmp_path, monkeypatch):
    """Stopped on one rank, continued on two: the curve, the validations, the test and the weights of a run of one."""
    recipe = recipe_of("dlinear", table, tmp_path / "whole", epochs=4)
    whole, part = train(recipe), tmp_path / "part"
    stopped(recipe | {"run_dir": str(part)}, 5, monkeypatch)
    command = [*CLI, "train", write_recipe(recipe, tmp_path / "recipe.yaml"), "--run_dir", part]
    process = start([*command, "--trainer.devices", "2", "--trainer.strategy", "ddp"])
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0, said[-3000:]
    assert said.count("continues at step 3") == 1, "only the first rank speaks"
    assert_equal_runs(part, whole)
    for (_, _, ours), (_, _, theirs) in zip(curve(part), curve(whole), strict=True):
        assert (ours or "") == (theirs or "") or float(ours) == pytest.approx(float(theirs), rel=1e-5)
    one, two = (json.loads((run / "stages/forecast/eval.json").read_text()) for run in (whole, part))
    assert one["n"] == two["n"] and two["metrics"]["mse"] == pytest.approx(one["metrics"]["mse"], rel=1e-5)


def measured(release, data, batch_size, split=None):
    subject = series_subject(zoo.load(release), "m", data, {"split": split} if split else {}, None, over_ranks=True)
    return build_task("forecast", {"dlinear": 1, "batch_size": batch_size}, "forecast").measure(subject)


def measure_on_rank(rank, world, *arguments):
    return measured(*arguments)


def validate_on_rank(rank, world, release, recipe):
    from modalign.trainers.series.kind import SeriesKind

    model = zoo.load(release)
    return SeriesKind().measure(model, load_recipe(recipe), "forecast")(model)


def test_two_ranks_validate_and_measure_as_one(recipe_of, table, tmp_path, pool):
    """Also where there are fewer batches than ranks, so that one of them has nothing to do."""
    recipe = recipe_of("calf-llama", table, tmp_path / "run", epochs=1)
    run = train(recipe | {"evaluate": None})
    for batch_size in (16, 256):  # 256 are more than there are windows
        alone = measured(str(run), str(table), batch_size)
        for both in pool.run(__file__, "measure_on_rank", str(run), str(table), batch_size):
            assert both["n"] == alone["n"] and both["metrics"]["coverage"] == alone["metrics"]["coverage"]
            for name in ("mse", "mae", "wql"):
                assert both["metrics"][name] == pytest.approx(alone["metrics"][name], rel=1e-6)
            for name, values in alone["baselines"].items():
                assert both["baselines"][name]["mse"] == pytest.approx(values["mse"], rel=1e-6), name
    one_window = {"val": "2023-03-10", "test": "2023-03-13", "end": "2023-03-13T06:00"}
    alone = measured(str(run), str(table), 16, one_window)
    assert alone["n"]["windows"] == 1
    for both in pool.run(__file__, "measure_on_rank", str(run), str(table), 16, one_window):
        assert both["n"] == alone["n"] and both["metrics"]["mse"] == pytest.approx(alone["metrics"]["mse"], rel=1e-6)
    wanted = validate_on_rank(0, 1, str(run), recipe)
    for found in pool.run(__file__, "validate_on_rank", str(run), recipe):
        assert found == pytest.approx(wanted, rel=1e-6)
