"""What `modalign forecast` writes: every digit that counts, and times that join with the history's own file."""

import csv

import numpy as np
import pandas as pd
import pytest
import torch

from modalign import zoo
from modalign.datasets.series.series_set import SeriesSet
from modalign.trainers import train
from modalign.trainers.commands.forecast import forecast
from modalign.trainers.series.forecast_table import number_text
from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.series.predict import predict


def read(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("value", "size", "text"),
    [
        (98765432.123456789, 20.0, "98765432.123457"),
        (98765432.0, 20.0, "98765432"),
        (123456789.25, 1e7, "123456789"),
        (0.1, 1.0, "0.1"),
        (-0.00001234567891, 1.0, "-0.000012345679"),
        (1234567890123.5, 3e11, "1234567890000"),
        (0.0, 1.0, "0"),
        (3.25e-12, 1.0, "3.25e-12"),
        (5.0, 0.0, "5"),
    ],
)
def test_numbers(value, size, text):
    assert number_text(value, size) == text


def test_a_number_of_float32_comes_back():
    """Whatever the level and the spread: scaled again, the text is the model's own float32."""
    rng = np.random.default_rng(0)
    for mean, std in ((1e8, 20.0), (5.0, 1e-4), (0.0, 1e9), (-3e5, 0.7)):
        scaled = rng.normal(size=200).astype(np.float32)
        texts = [number_text(float(x) * std + mean, std) for x in scaled]
        assert not any("e" in text for text in texts)
        again = (np.array([float(text) for text in texts]) - mean) / std
        np.testing.assert_allclose(again, scaled, rtol=1e-6, atol=6e-8)  # float32 near 1


def big(path, level=98_765_432.0, std=20.0, rows=400, zone=None, frequency="h"):
    """A CSV of a column on a high level."""
    steps = np.arange(rows)
    values = level + std * (np.sin(2 * np.pi * steps / 24) + 0.3 * np.random.default_rng(0).normal(size=rows))
    times = pd.date_range("2023-01-01", periods=rows, freq=frequency, tz=zone)
    lines = [f"{time.isoformat()},{value:.3f}" for time, value in zip(times, values, strict=True)]
    path.write_text("\n".join(["time,load", *lines]))
    return path


@pytest.fixture
def run_on(recipe_of, tmp_path):
    """Table -> a tiny DLinear trained on it."""

    def trained(table, **series):
        recipe = recipe_of("dlinear", table, tmp_path / "run", epochs=1)
        recipe["data"]["series"] |= series
        return train(recipe | {"evaluate": None})

    return trained


def test_a_large_level_keeps_its_digits(run_on, tmp_path):
    table = big(tmp_path / "big.csv")
    run = run_on(table)
    forecast(str(run), str(table), out=str(tmp_path / "f.csv"), device="cpu")
    model = zoo.load(run)
    (mean, std), values = model.config.series.scale["load"], SeriesSet.open(str(table)).series[0].values
    with torch.no_grad():
        window = torch.from_numpy((values[-24:] - mean) / std).float()[None]
        wanted = model.eval()({"values": window})["prediction"][0].double().numpy()[:, 0] * std + mean
    texts = [row["load"] for row in read(tmp_path / "f.csv")]
    assert not any("e" in text for text in texts) and len(set(texts)) == 6, texts
    np.testing.assert_allclose([float(text) for text in texts], wanted, rtol=0, atol=1e-5)
    found = predict(model, torch.from_numpy(values))
    assert found.values.dtype == torch.float64 and found.sizes == (std,)


@pytest.mark.parametrize(
    ("zone", "frequency"), [("Europe/Berlin", "D"), ("Europe/Berlin", "h"), ("Asia/Kolkata", "h"), (None, "D")]
)
def test_times_join_with_the_file_of_the_history(run_on, tmp_path, zone, frequency):
    """The file with the rows that follow: each row of the forecast finds its own, across the end of summer time too."""
    rows = 300 if frequency == "D" else 400
    table, whole = big(tmp_path / "t.csv", rows=rows, zone=zone, frequency=frequency), tmp_path / "whole.csv"
    big(whole, rows=rows + 6, zone=zone, frequency=frequency)
    run = run_on(table)
    forecast(str(run), str(table), out=str(tmp_path / "f.csv"), device="cpu")
    ours, theirs = (pd.read_csv(path) for path in (tmp_path / "f.csv", whole))
    assert pd.to_datetime(ours["time"], utc=True).tolist() == pd.to_datetime(theirs["time"], utc=True).tolist()[-6:]
    assert [text[19:] for text in ours["time"]] == [text[19:] for text in theirs["time"]][-6:], "the same offsets"


def test_a_picture_without_an_ending_is_a_png_and_said_so(run_on, tmp_path, capsys):
    table = big(tmp_path / "t.csv")
    run = run_on(table)
    forecast(str(run), str(table), out=str(tmp_path / "f.csv"), plot=str(tmp_path / "o/x"), device="cpu")
    assert (tmp_path / "o/x.png").is_file() and f"the picture: {tmp_path}/o/x.png" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(DataError, match=r"end its name in \.png"):
        forecast(str(run), str(table), out=str(tmp_path / "g.csv"), plot=str(tmp_path / "x.odd"), device="cpu")
    for steps in (0, -3):
        with pytest.raises(AssemblyError, match=rf"horizon: {steps} is no number of steps; ask for 1 to 6"):
            forecast(str(run), str(table), out=str(tmp_path / "h.csv"), horizon=steps, device="cpu")


def test_missing_values_are_drawn_as_gaps(run_on, tmp_path, monkeypatch):
    """Not at the training mean, where a batch has its zeros."""
    from modalign.trainers.series import pictures
    from modalign.trainers.series.opening import series_subject

    table = big(tmp_path / "t.csv")
    lines = table.read_text().splitlines()
    lines[1:] = [line if row % 3 else line.split(",")[0] + "," for row, line in enumerate(lines[1:])]
    table.write_text("\n".join(lines))
    subject, drawn = series_subject(zoo.load(run_on(table)), "m", str(table), {}, None), []
    monkeypatch.setattr(pictures, "_image", lambda figure, what: drawn.append(figure) or "")
    pictures.forecast_pictures(subject, {})
    past, truth, predicted = (np.asarray(line.get_ydata(), dtype=float) for line in drawn[0].axes[0].lines)
    assert np.isnan(past).sum() == 4 and np.isnan(truth).sum() == 2 and not np.isnan(predicted).any()
    assert np.nanmin(np.abs(truth - zoo.load(tmp_path / "run").config.series.scale["load"][0])) > 0
