"""The scaler: the published numbers, training rows alone, missing values left out, and columns that cannot be scaled."""

import numpy as np
import pytest

from modalign.datasets.series.scale import fit_scale
from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.zoo.errors import DataError

HALF = {"train": 0.5, "val": 0.2, "test": 0.3}


def one_set(values, name="set"):
    columns = tuple("abcdefg"[: values.shape[1]])
    return SeriesSet([Series("s", values, columns, np.datetime64("2021", "us"), "h")], name)


def test_the_numbers_of_the_protocol(ett, ett_facts):
    scale = fit_scale([ett], ett.columns, "ett_hour")
    assert list(scale) == ett_facts["columns"][1:]
    np.testing.assert_allclose([mean for mean, _ in scale.values()], ett_facts["mean"], rtol=1e-12)
    np.testing.assert_allclose([std for _, std in scale.values()], ett_facts["std"], rtol=1e-12)


def test_rows_from_the_thirteenth_month_on_change_nothing(ett):
    before, one = fit_scale([ett], ett.columns, "ett_hour"), ett.series[0]
    rng = np.random.default_rng(0)
    for changed in (8640, rng.integers(8640, len(one)), len(one) - 1, slice(8640, None)):
        values = one.values.copy()
        values[changed] = 1e6
        other = SeriesSet([Series(one.key, values, one.columns, one.start, one.frequency)], "changed")
        assert fit_scale([other], ett.columns, "ett_hour") == before
    values = one.values.copy()
    values[8639] += 1  # the last row that counts
    other = SeriesSet([Series(one.key, values, one.columns, one.start, one.frequency)], "changed")
    assert all(fit_scale([other], ett.columns, "ett_hour")[column] != before[column] for column in ett.columns)


def test_scaled_training_rows_have_mean_0_and_population_deviation_1(made, windows):
    rng = np.random.default_rng(0)
    series = one_set(rng.normal(5, 3, (200, 3)) * [1, 10, 0.01])
    scale = fit_scale([series], series.columns, HALF)
    rows = windows(series, "train", 100, 0, scale=scale, split=HALF).batch([0])["values"][0].double().numpy()
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0, ddof=0), 1, atol=1e-6)


def test_several_series_and_sets_are_one_heap_of_training_rows():
    rng = np.random.default_rng(0)
    values = [rng.normal(number, 1 + number, (length, 2)) for number, length in enumerate((40, 17, 90))]
    values[1][rng.random(values[1].shape) < 0.3] = np.nan
    series = [Series(f"s{number}", value, ("a", "b")) for number, value in enumerate(values)]
    scale = fit_scale([SeriesSet(series[:2], "one"), SeriesSet(series[2:], "two")], ("b", "a"), HALF)
    heap = np.concatenate([value[: int(len(value) * 0.5)] for value in values])
    for column, place in (("a", 0), ("b", 1)):
        kept = [value for value in heap[:, place] if not np.isnan(value)]
        mean = sum(kept) / len(kept)
        std = (sum((value - mean) ** 2 for value in kept) / len(kept)) ** 0.5
        np.testing.assert_allclose(scale[column], [mean, std], rtol=1e-12)


def test_few_shot_leaves_the_scaler_as_the_published_code_has_it(ett, windows):
    """It takes fewer windows, and still scales by all training rows."""
    scale = fit_scale([ett], ett.columns, "ett_hour")
    few = windows(ett, "train", 96, 96, scale=scale, split="ett_hour", few_shot=5).batch([0])
    whole = windows(ett, "train", 96, 96, scale=scale, split="ett_hour").batch([0])
    assert all(few[name].equal(whole[name]) for name in whole)


@pytest.mark.parametrize("constant", [0.0, 7.0, -1e9, 1e-30])
def test_a_constant_column_is_refused(constant):
    values = np.random.default_rng(0).normal(size=(60, 2))
    values[:30, 1] = constant  # constant where it is trained on; that it moves later does not help
    with pytest.raises(DataError, match=r"set: column 'b' has the constant value .* in the 30 training rows.*scale: none"):
        fit_scale([one_set(values)], ("a", "b"), HALF)
    assert fit_scale([one_set(values)], ("a",), HALF).keys() == {"a"}, "a column nobody reads may be constant"
    assert fit_scale([one_set(values)], ("a", "b"), HALF, "none") == {"a": [0.0, 1.0], "b": [0.0, 1.0]}


def test_small_and_large_columns_are_not_constant():
    values = np.random.default_rng(0).normal(size=(60, 3)) * [1e-9, 1e9, 1] + [0, 0, 1e6]
    scale = fit_scale([one_set(values)], ("a", "b", "c"), HALF)
    assert all(std > 0 for _, std in scale.values())


def test_a_column_without_a_training_value_is_refused():
    values = np.random.default_rng(0).normal(size=(60, 2))
    values[:30, 0] = np.nan
    with pytest.raises(DataError, match="set: column 'a' has no value in the training rows; take it out, or move the split"):
        fit_scale([one_set(values)], ("a", "b"), HALF)


def test_nothing_to_fit_on_where_training_rows_are_none():
    with pytest.raises(DataError, match="column 'a' has no value in the training rows"):
        fit_scale([one_set(np.zeros((9, 1)))], ("a",), {"train": 0.1, "val": 0.4, "test": 0.5})
