"""From a CSV to a release and its use, for every family that forecasts: train, eval, forecast, export, report; against plain loops."""

import csv
import json

import numpy as np
import pytest
import torch

from modalign import zoo
from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.stored import write_series
from modalign.trainers import train
from modalign.trainers.commands.export import export
from modalign.trainers.commands.forecast import forecast
from modalign.trainers.evaluation.command import evaluate
from modalign.trainers.series.forecast import ForecastTask
from modalign.trainers.series.opening import series_subject
from modalign.zoo.errors import AssemblyError, DataError, RecipeError

FAMILIES = ("dlinear", "patchtst", "calf-gpt2", "calf-llama", "fsca-gpt2", "fsca-llama")
ROWS, LOOK_BACK, HORIZON, COLUMNS = 400, 24, 6, ["load", "wind", "price"]


@pytest.fixture(scope="session")
def run_of(recipe_of, table, tmp_path_factory):
    """Family -> its finished run; trained when it is first asked for."""
    runs = {}

    def finished(family):
        if family not in runs:
            runs[family] = train(recipe_of(family, table, tmp_path_factory.mktemp("runs") / family))
        return runs[family]

    return finished


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, run_of):
    """A finished run of every family in turn."""
    return run_of(request.param)


@pytest.fixture(scope="session")
def numbers(table):
    """The CSV's own numbers (rows, columns) and times, read without any of our readers."""
    with table.open() as stream:
        rows = list(csv.reader(stream))[1:]
    return np.array([[float(cell) for cell in row[1:]] for row in rows]), [row[0] for row in rows]


def measured(model, data, path, **settings):
    evaluate(str(model), str(data), json=str(path), device="cpu", **settings)
    return json.loads(path.read_text())


def read(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_errors_are_those_of_a_plain_loop_over_the_csv(run, numbers):
    """Scaler, borders, windows, model and mean: none of it from the loaders."""
    values = numbers[0]
    train_end, test_start = int(ROWS * 0.7), ROWS - int(ROWS * 0.2)
    mean, std = values[:train_end].mean(axis=0), values[:train_end].std(axis=0)
    scaled, model, errors = (values - mean) / std, zoo.load(run), []
    for first in range(test_start - LOOK_BACK, ROWS - LOOK_BACK - HORIZON + 1):
        window = torch.tensor(scaled[first : first + LOOK_BACK], dtype=torch.float32)[None]
        with torch.no_grad():
            predicted = model.eval()({"values": window})["prediction"][0].double().numpy()
        errors.append(predicted - scaled[first + LOOK_BACK : first + LOOK_BACK + HORIZON])
    found = np.array(errors)
    report = json.loads((run / "stages/forecast/eval.json").read_text())
    own = report["metrics"]
    assert report["n"]["windows"] == own["windows"] == len(errors) == 75 and report["n"]["elements"] == found.size
    assert own["mse"] == pytest.approx((found**2).mean(), rel=1e-5)
    assert own["mae"] == pytest.approx(np.abs(found).mean(), rel=1e-5)
    assert own["original"]["mse"] == pytest.approx(((found * std) ** 2).mean(), rel=1e-5)
    np.testing.assert_allclose(own["by_horizon"]["mse"], (found**2).mean(axis=(0, 2)), rtol=1e-5)
    assert list(own["by_channel"]) == COLUMNS
    for place, column in enumerate(COLUMNS):
        assert own["by_channel"][column]["mae"] == pytest.approx(np.abs(found[..., place]).mean(), rel=1e-5)
    assert {"train_mean", "window_mean", "last_value", "seasonal_naive_24", "dlinear (seed 0)"} == set(report["baselines"])


def test_what_a_run_leaves(run):
    done = json.loads((run / "stages/forecast/done.json").read_text())
    assert done["training_windows"] == 126 and done["steps"] == 6 and done["metric"] == "mse" and done["peak_megabytes"] > 0
    scale = zoo.load(run).config.series.scale
    assert list(scale) == COLUMNS and all(std > 0 for _, std in scale.values())
    page = (run / "report.html").read_text()
    assert "alt='forecasts and truth'" in page and "alt='error by step'" in page
    assert ("alt='cosine by layer'" in page) is ("calf" in run.name)
    assert not any(link in page.split("<pre>")[0] for link in ("http:", "https:")), "self-contained"
    card = (run / "release" / "README.md").read_text()
    assert "6 steps from 24 of load, wind, price, one row every h" in card and "| seasonal_naive_24 |" in card


def test_shards_and_csv_give_the_same_numbers(run, table, tmp_path):
    write_series(SeriesSet.open(str(table)).series, tmp_path / "shards", source="test")
    from_csv, from_shards = (
        measured(run, data, tmp_path / f"{number}.json") for number, data in enumerate((table, tmp_path / "shards"))
    )
    assert from_csv["metrics"] == from_shards["metrics"] and from_csv["baselines"] == from_shards["baselines"]
    trained = json.loads((run / "stages/forecast/eval.json").read_text())
    assert trained["metrics"] == from_csv["metrics"] and trained["baselines"] == from_csv["baselines"]


@pytest.mark.parametrize("batch_size", [1, 32, 257])
def test_the_batch_size_does_not_matter(run, table, batch_size):
    subject = series_subject(zoo.load(run), "m", str(table), {}, None)
    found = ForecastTask(batch_size=batch_size, dlinear=0).measure(subject)
    wanted = json.loads((run / "stages/forecast/eval.json").read_text())
    assert found["n"]["windows"] == wanted["n"]["windows"]
    for name, value in {"model": found["metrics"], **found["baselines"]}.items():
        other = wanted["metrics"] if name == "model" else wanted["baselines"][name]
        assert (value["mse"], value["mae"]) == pytest.approx((other["mse"], other["mae"]), rel=1e-6), name


def test_a_forecast_in_own_units_with_real_times(run, table, numbers, tmp_path):
    forecast(str(run), str(table), out=str(tmp_path / "f.csv"), plot=str(tmp_path / "f.png"), device="cpu")
    rows, model = read(tmp_path / "f.csv"), zoo.load(run)
    assert numbers[1][-1] == "2023-03-15 15:00:00" and [row["time"] for row in rows] == [
        f"2023-03-15 {hour}:00:00" for hour in range(16, 22)
    ]
    mean, std = np.array([model.config.series.scale[column] for column in COLUMNS]).T
    window = torch.tensor((numbers[0][-LOOK_BACK:] - mean) / std, dtype=torch.float32)[None]
    with torch.no_grad():
        outputs = model.eval()({"values": window})
    wanted = outputs["prediction"][0].double().numpy() * std + mean
    np.testing.assert_allclose([[float(row[c]) for c in COLUMNS] for row in rows], wanted, rtol=2e-5, atol=1e-6)
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    levels = [name for name in rows[0] if " q" in name]
    assert bool(levels) is ("llama" in run.name and "calf" in run.name)
    for row in rows if levels else []:
        for column in COLUMNS:
            spread = [float(row[f"{column} q{level}"]) for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
            assert spread == sorted(spread) and row[column] == row[f"{column} q0.5"]


def test_a_shorter_horizon_is_the_start_of_the_whole_and_a_longer_one_is_refused(run, table, tmp_path):
    for steps in (2, 6):
        forecast(str(run), str(table), out=str(tmp_path / f"{steps}.csv"), horizon=steps, device="cpu")
    assert read(tmp_path / "2.csv") == read(tmp_path / "6.csv")[:2]
    with pytest.raises(
        AssemblyError, match="horizon: 7 steps are asked for, and this model was trained to predict 1 to 6; train"
    ):
        forecast(str(run), str(table), out=str(tmp_path / "7.csv"), horizon=7, device="cpu")
    with pytest.raises(AssemblyError, match="horizon: 7 steps are asked for"):
        evaluate(str(run), str(table), horizon=7, device="cpu")
    assert not (tmp_path / "7.csv").exists()


def test_missing_values_in_the_history(run, table, numbers, tmp_path):
    """They change a forecast less than the values would that stand there; a column without any is refused."""
    values, times = numbers

    def write(name, change):
        rows = [[f"{cell:.6g}" for cell in row] for row in values]
        change(rows)
        lines = [["time", *COLUMNS], *([time, *row] for time, row in zip(times, rows, strict=True))]
        (tmp_path / name).write_text("\n".join(",".join(line) for line in lines))
        return str(tmp_path / name)

    def gap(rows):
        rows[-3][0] = rows[-9][2] = ""

    def wild(rows):
        rows[-3][0] = rows[-9][2] = "1e9"

    found = {}
    for name, change in (("gap", gap), ("wild", wild)):
        forecast(str(run), write(f"{name}.csv", change), out=str(tmp_path / f"{name}-f.csv"), device="cpu")
        found[name] = np.array([[float(row[c]) for c in COLUMNS] for row in read(tmp_path / f"{name}-f.csv")])
    forecast(str(run), str(table), out=str(tmp_path / "whole.csv"), device="cpu")
    whole = np.array([[float(row[c]) for c in COLUMNS] for row in read(tmp_path / "whole.csv")])
    std = np.array([zoo.load(run).config.series.scale[column][1] for column in COLUMNS])
    assert np.isfinite(found["gap"]).all() and np.abs((found["gap"] - whole) / std).max() < 3
    assert np.abs((found["wild"] - whole) / std).max() > 100, "so a gap is not just read as any number"

    def empty(rows):
        for row in rows[-LOOK_BACK:]:
            row[1] = ""

    with pytest.raises(DataError, match=r"column 'wind' has no value in the last 24 rows, so there is nothing to go on from"):
        forecast(str(run), write("empty.csv", empty), out=str(tmp_path / "e.csv"), device="cpu")


def test_a_history_shorter_than_the_look_back_is_refused(run, table, tmp_path):
    (tmp_path / "short.csv").write_text("\n".join(table.read_text().splitlines()[:24]))
    with pytest.raises(DataError, match=r"short.csv: series '.*' has 23 rows, and the model looks back 24: give that many"):
        forecast(str(run), str(tmp_path / "short.csv"), out=str(tmp_path / "f.csv"), device="cpu")


def test_the_slim_form_forecasts_the_same_to_the_last_bit(run, table, tmp_path):
    if "calf" not in run.name:
        with pytest.raises(AssemblyError, match="has no slim form: all of it is needed to predict"):
            export(str(run), str(tmp_path / "slim"), to="inference")
        return
    export(str(run), str(tmp_path / "slim"), to="inference")
    whole, slim = zoo.load(run), zoo.load(tmp_path / "slim")
    size = [sum(parameter.numel() for parameter in model.parameters()) for model in (whole, slim)]
    assert size[1] < 0.8 * size[0] and slim.text_language is None and slim.dictionary is None
    for name, model in (("whole", run), ("slim", tmp_path / "slim")):
        forecast(str(model), str(table), out=str(tmp_path / f"{name}.csv"), device="cpu")
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "slim.csv").read_bytes()
    before = json.loads((run / "stages/forecast/eval.json").read_text())["metrics"]
    assert measured(tmp_path / "slim", table, tmp_path / "e.json", dlinear=0)["metrics"] == before


def test_nothing_is_overwritten(run_of, table, tmp_path):
    (tmp_path / "f.csv").write_text("mine")
    with pytest.raises(DataError, match=r"f.csv: there is already such a file, and nothing is overwritten"):
        forecast(str(run_of("dlinear")), str(table), out=str(tmp_path / "f.csv"), device="cpu")


def test_another_step_between_rows_is_refused(run_of, make_table, tmp_path):
    half_days = make_table(tmp_path / "half.csv", rows=60, hours=12)
    with pytest.raises(
        DataError, match=r"half.csv: its rows are one 12h apart, the model was trained on rows one h apart; resample"
    ):
        forecast(str(run_of("dlinear")), str(half_days), out=str(tmp_path / "f.csv"), device="cpu")


def test_a_column_that_is_not_there_is_named_with_the_nearest(run_of, make_table, tmp_path):
    other = make_table(tmp_path / "other.csv", columns=("load", "winds", "price"))
    with pytest.raises(DataError, match=r"there is no column 'wind', which the model reads; did you mean 'winds'\?"):
        forecast(str(run_of("dlinear")), str(other), out=str(tmp_path / "f.csv"), device="cpu")


def test_several_series_are_forecast_each_on_its_own(run_of, make_table, tmp_path):
    shops = make_table(tmp_path / "shops.csv", rows=50, series=("north", "south"))
    run = str(run_of("calf-gpt2"))
    forecast(run, str(shops), out=str(tmp_path / "f.csv"), id="shop", device="cpu")
    rows = read(tmp_path / "f.csv")
    assert [row["series"] for row in rows] == ["north"] * 6 + ["south"] * 6
    lines = shops.read_text().splitlines()
    south = [lines[0].removeprefix("shop,"), *(line.removeprefix("south,") for line in lines if line.startswith("south"))]
    (tmp_path / "south.csv").write_text("\n".join(south))
    forecast(run, str(tmp_path / "south.csv"), out=str(tmp_path / "s.csv"), device="cpu")
    assert [{**row, "series": "south"} for row in read(tmp_path / "s.csv")] == rows[6:]


def test_a_task_for_another_kind_of_model_is_refused(run_of, table, tiny_recipe, tmp_path):
    run = str(run_of("dlinear"))
    for task in ("retrieval", "zeroshot"):
        with pytest.raises(
            RecipeError, match=rf"--task {task}: this dlinear is a model of time series; what can be measured of it is"
        ):
            evaluate(run, str(table), task=task, device="cpu")
    with pytest.raises((AssemblyError, RecipeError), match="imputation"):
        evaluate(run, str(table), task="imputation", device="cpu")
