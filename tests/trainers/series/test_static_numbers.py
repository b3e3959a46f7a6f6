"""Static numbers of series from a table to a forecast: learnt, kept in the release, required in use."""

import csv
import json

import numpy as np
import pytest

from modalign import zoo
from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.cuts import CutSet
from modalign.datasets.series.scale import fit_static
from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.stored import write_series
from modalign.datasets.series.windows import Columns
from modalign.trainers import train
from modalign.trainers.commands.export import export
from modalign.trainers.commands.forecast import forecast
from modalign.trainers.evaluation.command import evaluate
from modalign.zoo.errors import DataError

SIZES = {"north": 5_000_000, "south": 1_000_000, "west": 3_000_000}


def shops(path, sizes=SIZES, rows=90):
    """The same past in every shop, and a rise or a fall at the end of each window's day that only the size tells."""
    hours = np.arange(rows)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", "shop", "sales", "size"])
        for name, size in sizes.items():
            values = np.sin(2 * np.pi * hours / 24) * (1 if size > 3_000_000 else -1)
            for hour, value in zip(hours, values, strict=True):
                writer.writerow([f"2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00", name, f"{value:.4f}", size])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return shops(tmp_path_factory.mktemp("shops") / "shops.csv")


@pytest.fixture(scope="module")
def run(recipe_of, table, tmp_path_factory):
    recipe = recipe_of("calf-gpt2", table, tmp_path_factory.mktemp("runs") / "run", epochs=3)
    recipe["data"]["series"] |= {"id": "shop", "static": ["size"], "target": ["sales"]}
    return train(recipe)


def forecasts(run, table, out, **settings):
    forecast(str(run), str(table), out=str(out), device="cpu", id="shop", **settings)
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    return {row["series"]: [float(r["sales"]) for r in rows if r["series"] == row["series"]] for row in rows}


def test_the_size_of_a_shop_changes_its_forecast(run, table, tmp_path):
    description = zoo.load(run).config.series
    assert description.static == ["size"] and description.static_scale == {"size": [3e6, pytest.approx(1_632_993.16)]}
    before = forecasts(run, table, tmp_path / "f.csv")
    others = forecasts(
        run, shops(tmp_path / "o.csv", {"north": 5_000_000, "south": 1_000_000, "west": 2_900_000}), tmp_path / "g.csv"
    )
    assert before["north"] == others["north"] and before["south"] == others["south"]
    swapped = tmp_path / "s.csv"
    swapped.write_text(table.read_text().replace("5000000", "x").replace("1000000", "5000000").replace("x", "1000000"))
    found = forecasts(run, swapped, tmp_path / "h.csv")
    change = np.abs(np.array(found["north"]) - before["north"]).max()
    assert change > 1e-3 and max(map(abs, found["north"])) < 100, "a number of millions counts as one near 1"
    assert np.abs(np.array(before["west"]) - others["west"]).max() < change


def test_the_slim_form_and_shards_have_them_too(run, table, tmp_path):
    export(str(run), str(tmp_path / "slim"), to="inference")
    whole = SeriesSet.open(str(table), id="shop", static=["size"])
    write_series(whole.series, tmp_path / "shards", source="t")
    wanted = forecasts(run, table, tmp_path / "f.csv")
    assert forecasts(tmp_path / "slim", tmp_path / "shards", tmp_path / "g.csv") == wanted
    evaluate(str(run), str(tmp_path / "shards"), json=str(tmp_path / "e.json"), device="cpu")
    trained = json.loads((run / "stages/forecast/eval.json").read_text())
    measured = json.loads((tmp_path / "e.json").read_text())
    assert measured["metrics"] == trained["metrics"] and "dlinear (seed 0)" in measured["baselines"]


def test_one_series_alone_is_scaled_as_it_was_trained(run, table, tmp_path):
    """Its own numbers have no spread."""
    lines = table.read_text().splitlines()
    (tmp_path / "n.csv").write_text("\n".join([lines[0], *(line for line in lines if ",north," in line)]))
    evaluate(str(run), str(tmp_path / "n.csv"), json=str(tmp_path / "e.json"), id="shop", device="cpu", dlinear=0)
    assert json.loads((tmp_path / "e.json").read_text())["n"]["series"] == 1


def test_a_table_without_them_is_refused(run, table, tmp_path):
    lines = [line.rsplit(",", 1)[0] for line in table.read_text().splitlines()]
    (tmp_path / "n.csv").write_text("\n".join(lines))
    for use in (
        lambda: forecasts(run, tmp_path / "n.csv", tmp_path / "f.csv"),
        lambda: evaluate(str(run), str(tmp_path / "n.csv"), id="shop", device="cpu"),
    ):
        with pytest.raises(
            DataError, match=r"there is no column 'size'.*; the model reads 'size' as a static number of every series"
        ):
            use()
    write_series(SeriesSet.open(str(tmp_path / "n.csv"), id="shop").series, tmp_path / "shards", source="t")
    with pytest.raises(DataError, match=r"no static number 'size'.*the model reads 'size' as a static number"):
        forecasts(run, tmp_path / "shards", tmp_path / "f.csv")


def test_cuts_of_short_series_have_them(table):
    series = SeriesSet.open(str(table), id="shop", static=["size"])
    columns = Columns(("sales",), static=("size",))
    cuts = CutSet(series, columns, {"sales": [0.0, 1.0]}, part="test", look_back=8, horizon=4, history=SeriesConfig().history)
    assert cuts.batch([2, 0])["static"].tolist() == [[3e6], [5e6]]
    assert fit_static([series, series], ["size"])["size"][0] == 3e6
