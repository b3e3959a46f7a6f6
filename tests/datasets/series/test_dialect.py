"""Tables with other separators and decimal commas: read if there is no doubt, refused if there is."""

import numpy as np
import pytest

from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.errors import DataError

POINT = "date,a,b\n2020-01-01,1.5,1200\n2020-01-02,-2.25,\n2020-01-03,3,1500\n"
VALUES = [[1.5, 1200], [-2.25, np.nan], [3, 1500]]


@pytest.fixture
def opened(tmp_path):
    def made(text, name="t.csv", **options):
        (tmp_path / name).write_text(text)
        return SeriesSet.open(str(tmp_path / name), **options)

    return made


@pytest.mark.parametrize(
    "text",
    [
        POINT,
        POINT.replace(",", ";"),
        POINT.replace(",", "\t"),
        POINT.replace(",", ";").replace(".", ","),
        POINT.replace(",", "\t").replace(".", ","),
        POINT.replace("a,", '"a; b",').replace('"a; b"', '"a;b"'),
        POINT.replace(",", ";").replace(".", ",").replace("1200", "1,2e3"),
    ],
)
def test_the_same_table(opened, text):
    found = opened(text)
    np.testing.assert_array_equal(found.series[0].values, VALUES)
    assert found.frequency == "D" and len(found.columns) == 2
    assert ("numbers are read with a decimal comma" in found.notes) == ("1,5" in text)


def test_a_name_with_a_comma_in_it(opened):
    """The comma fits the first line, and no row."""
    found = opened(POINT.replace(",", ";").replace("a;b", "load, MW;b"))
    assert found.columns == ("load, MW", "b")


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("date;load, MW;b\n2020-01-01;1,5;2\n2020-01-02;2,5;3\n", {}, r"separated by ',' and ';', every row.*--delimiter ','"),
        (
            "date;a;b\n2020-01-01;1,500;2\n2020-01-02;2,500;3\n",
            {},
            r"'1,500'.*decimal mark, say --decimal ,; if it separates thous",
        ),
        ("date;a;b\n2020-01-01;1,5;2.5\n2020-01-02;2,5;3.5\n", {}, r"column 'a' is '1,5'.*if the comma is the decimal mark"),
        ("date;a;b\n2020-01-01;1,5;2.500\n2020-01-02;2,5;3.500\n", {"decimal": ","}, r"'2.500'.*the point is the decimal mark"),
        ("date;a\n2020-01-01;1,5\n2020-01-02;1.000,5\n", {}, r"'1.000,5'.*without a mark between thousands.*thousands='\.'"),
        (
            'date,a\n2020-01-01,"1,000.0"\n2020-01-02,"2,000.0"\n',
            {},
            r"'1,000.0'.*without a mark between thousands.*thousands=','",
        ),
        ("date;a;b\n2020-01-01;1,5\n2020-01-02;2,5;3\n", {}, "row 0 has 2 cells, the first line 3"),
    ],
)
def test_what_is_in_doubt_is_refused(opened, text, options, reason):
    with pytest.raises(DataError, match=reason):
        opened(text, **options)


def test_what_is_in_doubt_can_be_said(opened):
    text = "date;load, MW;b\n2020-01-01;1,5;2\n2020-01-02;2,5;3\n"
    assert opened(text, delimiter=";").series[0].values[:, 0].tolist() == [1.5, 2.5]
    text = "date;a\n2020-01-01;1,500\n2020-01-02;2,500\n"
    assert opened(text, decimal=",").series[0].values[:, 0].tolist() == [1.5, 2.5]


def test_a_column_that_names_series_is_told_from_one_of_notes(opened):
    long = "ds,shop,v\n" + "".join(f"2020-01-0{day},{shop},1\n" for day in (1, 2) for shop in ("north", "south"))
    with pytest.raises(DataError, match=r"'north', which is no number; .*--ignore 'shop'.*say --id 'shop', and --layout long"):
        opened(long)
    notes = "ds,note,v\n2020-01-01,sunny,1\n2020-01-02,snow,2\n"
    with pytest.raises(DataError) as error:
        opened(notes)
    assert "--id" not in str(error.value)
