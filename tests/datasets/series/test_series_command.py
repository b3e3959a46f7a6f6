"""`modalign data series`: what it says, and that it writes nothing where something is wrong."""

import numpy as np
import pytest

from modalign.datasets.series.series_set import SeriesSet
from modalign.trainers.cli import main


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "shops.csv"
    days = [f"2020-01-{day:02d}" for day in (1, 2, 3, 4, 6)]
    rows = [
        f"{day},{shop},{size},{kind},{number},-9999\n"
        for shop, size, kind in (("p", 1, "x"), ("q", 2, "y"))
        for number, day in enumerate(days)
    ]
    path.write_text("day,shop,size,kind,sales,temp\n" + "".join(rows))
    return path


def test_what_was_packed_is_said(csv, tmp_path, capsys):
    words = "--time day --id shop --static size --label kind --missing -9999,gone --frequency D".replace(
        "--missing ", "--missing="
    ).split()
    assert main(["data", "series", str(csv), "--out", str(tmp_path / "shards"), *words]) == 0
    text = capsys.readouterr().out
    assert (
        "2 series of 6 rows x 2 columns (sales, temp), static: size, 2 classes; step D, from 2020-01-01 00:00 to 2020-01-06 00:00"
        in text
    )
    assert "missing: 58.33% of the values, in 1 shard" in text
    assert "note: 2 rows (16.67%) not in the table and added with missing values, the first in series 'p' after row 3" in text
    packed = SeriesSet.open(str(tmp_path / "shards"))
    read = SeriesSet.open(str(csv), time="day", id="shop", static=["size"], label="kind", missing=["-9999"])
    assert packed.fingerprint == read.fingerprint and packed.series[1].label == "y" and packed.series[1].static == {"size": 2.0}
    assert np.isnan(packed.series[0].values[:, 1]).all()


def test_a_long_table(tmp_path, capsys):
    path = tmp_path / "long.csv"
    path.write_text(
        "ds,channel,value\n" + "".join(f"2020-01-01 0{hour}:00,{name},{hour}\n" for name in "ab" for hour in range(4))
    )
    assert (
        main(["data", "series", str(path), "--out", str(tmp_path / "shards"), "--layout", "long", "--samples_per_shard", "1"])
        == 0
    )
    assert "1 series of 4 rows x 2 columns (a, b); step h, from 2020-01-01 00:00 to 2020-01-01 03:00" in capsys.readouterr().out


def test_many_columns_and_rows_without_time(tmp_path, capsys):
    path = tmp_path / "plain.csv"
    path.write_text(",".join(f"c{number}" for number in range(10)) + "\n" + ",".join("1" * 10) + "\n")
    assert main(["data", "series", str(path), "--out", str(tmp_path / "shards")]) == 0
    text = capsys.readouterr().out
    assert "10 columns (c0, c1, c2, c3, c4, c5, c6, c7, ...); rows without time" in text and "note: rows have no time" in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--id", "shopp"], "there is no column 'shopp'; did you mean 'shop'?"),
        (["--time", "day"], "rows 0 and 5 have the same time 2020-01-01 00:00"),
        (
            ["--time", "day", "--id", "shop"],
            "column 'kind' is 'x', which is no number; leave the column out with --ignore 'kind'",
        ),
        (["--layout", "tall"], "--layout"),
        (["--samples_per_shard", "0"], "samples_per_shard is 0"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(csv, tmp_path, capsys, words, reason):
    ignore = [] if "--id" in words else ["--ignore", "kind,shop"]
    if "0" in words:
        ignore = ["--id", "shop", "--ignore", "kind"]
    code = main(["data", "series", str(csv), "--out", str(tmp_path / "shards"), *words, *ignore])
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and reason in error and error.count("\n") == 1
    assert not (tmp_path / "shards").exists()


def test_only_tables_are_packed(tmp_path, capsys):
    assert main(["data", "series", str(tmp_path), "--out", str(tmp_path / "shards")]) == 2
    assert "not a table of series; give a file that ends in .csv, .tsv" in capsys.readouterr().err
