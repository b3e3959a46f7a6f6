"""Borders of training, validation and test rows: fractions, dates, the published ones, and what is refused."""

from datetime import date

import numpy as np
import pytest

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import Series
from modalign.datasets.series.split import PARTS, borders
from modalign.zoo.errors import DataError, RecipeError


def hourly(rows, start="2021-01-01"):
    return Series("s", np.zeros((rows, 1)), ("a",), np.datetime64(start, "us"), "h")


def test_the_borders_of_ett():
    month = 720
    wanted = {"train": (0, 12 * month), "val": (12 * month, 16 * month), "test": (16 * month, 20 * month)}
    assert borders(hourly(17_420), "ett_hour") == wanted == {"train": (0, 8640), "val": (8640, 11_520), "test": (11_520, 14_400)}
    quarter = {part: (4 * first, 4 * end) for part, (first, end) in wanted.items()}
    assert borders(hourly(69_680), "ett_15min") == quarter and quarter["test"] == (46_080, 57_600)
    assert borders(hourly(14_400), "ett_hour") == wanted
    with pytest.raises(DataError, match=r"series 's' has 14399 rows, and the borders ett_hour need 14400; .*fractions or dates"):
        borders(hourly(14_399), "ett_hour")


@pytest.mark.parametrize("rows", [1, 7, 10, 99, 7588])
@pytest.mark.parametrize("split", [(0.7, 0.1, 0.2), (0.6, 0.2, 0.2), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])
def test_fractions_as_the_usual_loader_has_them(rows, split):
    """train int(0.7 n), test int(0.2 n), val the rest; nothing twice and nothing left out."""
    found = borders(hourly(rows), dict(zip(PARTS, split, strict=True)))
    train, test = int(rows * split[0]), int(rows * split[2])
    assert found == {"train": (0, train), "val": (train, rows - test), "test": (rows - test, rows)}
    assert [row for part in PARTS for row in range(*found[part])] == list(range(rows))


def test_the_sizes_of_exchange_rate():
    found = borders(hourly(7588), {"train": 0.7, "val": 0.1, "test": 0.2})
    assert [end - first for first, end in found.values()] == [5311, 760, 1517]


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ({"val": "2021-01-03", "test": "2021-01-04"}, (48, 72, 100)),
        ({"val": "2021-01-03T12:00", "test": "2021-01-04", "end": "2021-01-04T05:00"}, (60, 72, 77)),
        ({"val": date(2021, 1, 3), "test": date(2021, 1, 4), "end": None}, (48, 72, 100)),  # YAML reads dates by itself
        ({"val": "2021-01-02T23:30", "test": "2021-01-04"}, (48, 72, 100)),  # between two rows: from the next one on
        ({"val": "2020-01-01", "test": "2020-01-02"}, (0, 0, 100)),
        ({"val": "2021-01-03", "test": "2021-01-03", "end": "2029-01-01"}, (48, 48, 100)),
    ],
)
def test_dates(split, wanted):
    found = borders(hourly(100), split)
    assert found == {"train": (0, wanted[0]), "val": wanted[:2], "test": wanted[1:]}


def test_none_uses_everything_for_everything():
    assert borders(hourly(9), "none") == dict.fromkeys(PARTS, (0, 9))


@pytest.mark.parametrize(
    ("split", "error", "reason"),
    [
        ({"train": 0.7, "val": 0.2, "test": 0.2}, RecipeError, "must be 0 or more and add up to 1"),
        ({"train": 0.0, "val": 0.5, "test": 0.5}, RecipeError, "must be 0 or more and add up to 1"),
        ({"train": 1.2, "val": -0.4, "test": 0.2}, RecipeError, "must be 0 or more and add up to 1"),
        ({"train": float("nan"), "val": 0.5, "test": 0.5}, RecipeError, "must be 0 or more and add up to 1"),
        ({"train": 0.7, "test": 0.3}, RecipeError, "neither fractions of train, val and test nor dates"),
        ({"train": True, "val": 0.0, "test": 0.0}, RecipeError, "neither fractions of train, val and test nor dates"),
        ({}, RecipeError, "neither fractions of train, val and test nor dates"),
        ({"val": "2021-01-03", "test": "2021-01-02"}, RecipeError, "the dates must follow each other as val, test, end"),
        ({"val": "2021-01-02", "test": "2021-01-03", "end": "2021-01-02"}, RecipeError, "must follow each other"),
        ({"val": "spring", "test": "2021-01-02"}, RecipeError, r"data.series.split.val: 'spring' is no date such as 2017-07-01"),
        ({"val": "2021-01-02", "test": 7.5}, RecipeError, r"data.series.split.test: 7.5 is no date"),
        ({"val": "NaT", "test": "2021-01-02"}, RecipeError, r"data.series.split.val: 'NaT' is no date"),
    ],
)
def test_a_split_that_is_none(split, error, reason):
    with pytest.raises(error, match=reason):
        borders(hourly(100), split)


def test_dates_need_times():
    with pytest.raises(DataError, match="series 's' has no times, so it cannot be split by date; give fractions"):
        borders(Series("s", np.zeros((9, 1)), ("a",)), {"val": "2021-01-03", "test": "2021-01-04"})


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"split": "ett"}, r"data.series.split: 'ett' is none of ett_hour, ett_15min, none, fractions"),
        ({"stride": 0}, r"data.series.stride: windows start at least one step apart"),
        ({"val_stride": 0}, r"windows start at least one step apart"),
        ({"few_shot": 0}, r"data.series.few_shot: 0 is no percentage above 0"),
        ({"few_shot": 101}, r"data.series.few_shot: 101 is no percentage"),
        ({"mask_rate": 1.0}, r"data.series.mask_rate: 1.0 must lie between 0 and 1"),
        ({"history": 0}, r"data.series.history: 0 must be above 0"),
    ],
)
def test_settings_out_of_range(setting, reason):
    with pytest.raises(RecipeError, match=reason):
        SeriesConfig(**setting)
