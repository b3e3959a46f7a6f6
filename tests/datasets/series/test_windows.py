"""Windows as virtual samples: the published counts and rows of ETTh1, and every value against a plain loop."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from modalign.datasets.series.scale import fit_scale
from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.datasets.series.split import borders
from modalign.datasets.series.windows import Columns
from modalign.zoo.errors import DataError

HALF = {"train": 0.5, "val": 0.2, "test": 0.3}


def plain(one, row, length, places, scale):
    """Rows of one series as nested lists, scaled; None where a value is missing."""
    rows = one.values[row : row + length].tolist()
    return [
        [None if np.isnan(r[place]) else (r[place] - scale[i][0]) / scale[i][1] for i, place in enumerate(places)] for r in rows
    ]


def filled(rows):
    return torch.tensor([[0.0 if value is None else value for value in row] for row in rows], dtype=torch.float32)


def there(rows):
    return torch.tensor([[value is not None for value in row] for row in rows])


@pytest.mark.parametrize("look_back", [96, 512])
@pytest.mark.parametrize("horizon", [96, 192, 336, 720])
def test_the_counts_of_the_protocol(ett, ett_facts, windows, look_back, horizon):
    facts = ett_facts["windows" if look_back == 96 else "windows_L512"]
    for part in ("train", "val", "test"):
        assert len(windows(ett, part, look_back, horizon, split="ett_hour")) == facts[part][str(horizon)]


def test_the_first_and_the_last_row_of_the_protocol(ett, ett_facts, windows):
    scale = fit_scale([ett], ett.columns, "ett_hour")
    test = windows(ett, "test", 96, 96, scale=scale, split="ett_hour")
    batch = test.batch([0, len(test) - 1])
    for name, row, value in (("values", 0, "first_test_x_row0"), ("target", 0, "first_test_y_row0")):
        torch.testing.assert_close(batch[name][0, row], torch.tensor(ett_facts[value]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(batch["target"][1, -1], torch.tensor(ett_facts["last_test_y_rowlast"]), rtol=1e-6, atol=1e-6)
    times = ett.series[0].times()
    row = int(test.key(0).split("@")[1])
    assert test.key(0) == "ETTh1@11424" and str(times[row + 96])[:10] == ett_facts["first_test_target_date"][:10]
    last = int(test.key(len(test) - 1).split("@")[1])
    assert str(times[last + 191])[:19].replace("T", " ") == ett_facts["last_test_target_date"]


@pytest.mark.parametrize(
    ("percent", "horizon", "count"),
    [(5, 96, 332), (5, 192, 236), (5, 336, 92), (10, 96, 759), (10, 192, 663), (10, 336, 519), (10, 720, 135)],
)
def test_few_shot_keeps_the_published_number_of_windows(ett, windows, percent, horizon, count):
    few = windows(ett, "train", 96, horizon, split="ett_hour", few_shot=percent)
    whole = windows(ett, "train", 96, horizon, split="ett_hour")
    assert len(few) == count
    assert torch.equal(few.batch([0, count - 1])["target"], whole.batch([0, count - 1])["target"]), "it keeps the first ones"
    for part in ("val", "test"):
        assert windows(ett, part, 96, horizon, split="ett_hour", few_shot=percent).fingerprint == (
            windows(ett, part, 96, horizon, split="ett_hour").fingerprint
        )


def test_few_shot_without_a_window_says_so(ett, windows):
    with pytest.raises(DataError, match=r"the train part has no window: .* 96 rows of look-back and 720 of horizon, 816 .* 523 "):
        windows(ett, "train", 96, 720, split="ett_hour", few_shot=5)


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("stride", [1, 3, 50])
@pytest.mark.parametrize("split", [HALF, {"val": "2021-03-02", "test": "2021-03-02T16:00"}, "none"])
def test_every_window_against_a_plain_loop(made, windows, oracle, part, stride, split):
    """Several series (one too short in some parts), all roles of columns, missing values, a scaler."""
    series = made((60, 47, 90), missing=0.15, static=("size", "age"))
    columns = Columns(("c", "a"), ("b",), (), ("age",))
    scale = {"c": [3.0, 2.0], "a": [-1.0, 0.5], "b": [10.0, 4.0]}
    wanted = oracle(series, part, 8, 4, split, stride)
    found = windows(series, part, 8, 4, columns=columns, scale=scale, stride=stride, split=split)
    assert len(found) == len(wanted) == sum(found.shard_sizes)
    assert [found.key(number) for number in range(len(found))] == [f"s{one}@{row}" for one, row in wanted]
    places, used = [2, 0, 1], [scale[name] for name in ("c", "a", "b")]
    order = np.random.default_rng(0).permutation(len(wanted))
    batch = found.batch(order)
    for row, number in enumerate(order):
        one = series.series[wanted[number][0]]
        rows = plain(one, wanted[number][1], 12, places, used)
        past, future = rows[:8], [row[:2] for row in rows[8:]]
        torch.testing.assert_close(batch["values"][row], filled(past), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(batch["target"][row], filled(future), rtol=1e-6, atol=1e-6)
        assert torch.equal(batch["observed"][row], there(past)) and torch.equal(batch["target_observed"][row], there(future))
        assert batch["static"][row].tolist() == [one.static["age"]]
    assert [found.locate(np.array([n]))[1][0] for n in range(len(wanted))] == [row for _, row in wanted]


def test_known_future_columns_reach_over_the_horizon(made, windows):
    series = made((40,))
    found = windows(series, "train", 8, 4, columns=Columns(("a",), (), ("d", "b")), split="none")
    batch = found.batch([5])
    assert batch["values"].shape == (1, 8, 1) and batch["target"].shape == (1, 4, 1) and batch["known"].shape == (1, 12, 2)
    assert batch["known"][0, :, 0].tolist() == pytest.approx([5 + step + 0.3 for step in range(12)], rel=1e-6)
    assert batch["target"][0, :, 0].tolist() == [13, 14, 15, 16]


def test_a_missing_known_future_value_is_never_passed_off_as_the_mean(made, windows):
    """Models are given no mask for them, and `modalign forecast` refuses them too."""
    series = made((40,))
    series.series[0].values[17, 3] = np.nan
    with pytest.raises(DataError, match=r"made: series 's0', column 'd' has no value at row 17 \(2021-03-01T17:00"):
        windows(series, "train", 8, 4, columns=Columns(("a",), (), ("d",)), split="none")
    assert "observed" not in windows(series, "train", 8, 4, columns=Columns(("a",), (), ("b",)), split="none").batch([5])


def test_windows_without_a_future(made, windows):
    found = windows(made((40,), missing=0.1), "train", 8, 0, split="none")
    assert len(found) == 33 and set(found.batch([0, 32])) == {"values", "observed"}


def test_no_window_touches_two_series(made, windows):
    """The value of a row says which series it is of: thousands."""
    found = windows(made(), "train", 8, 4, split="none")
    batch = found.batch(range(len(found)))
    whole = torch.cat([batch["values"], batch["target"]], 1) // 1000
    assert torch.equal(whole, whole[:, :1, :1].expand_as(whole)) and whole.max() == 2
    assert found.shard_sizes == [60 - 11, 35 - 11, 90 - 11]


def test_a_series_without_a_window_is_named_and_others_stay(made, windows):
    found = windows(made((60, 11, 12)), "train", 8, 4, split="none")
    assert found.left_out == ["s1"] and found.shard_sizes == [49, 1]
    assert found.key(49) == "s2@0" and found.batch([49])["values"][0, 0, 0] == 2000


def test_a_batch_does_not_depend_on_its_neighbours(ett, windows):
    test = windows(ett, "test", 96, 96, split="ett_hour")
    whole = test.batch(range(300))
    for number in (0, 17, 299):
        for name, value in test.batch([number]).items():
            assert torch.equal(value[0], whole[name][number])


def test_fingerprints_tell_other_windows(made, windows):
    """Equal for equal data cut alike, whatever object they are of; else different."""
    series = made()
    first = windows(series, split="none")
    assert first.fingerprint == windows(made(name="other place"), split="none").fingerprint
    one = {column: [0.0, 1.0] for column in series.columns}
    others = [
        windows(series, split="none", look_back=9),
        windows(series, split="none", horizon=5),
        windows(series, split="none", stride=2),
        windows(series, "val", split=HALF),
        windows(series, split=HALF),
        windows(series, split="none", scale=one | {"b": [0.0, 2.0]}),
        windows(series, split="none", columns=Columns(("a", "b", "c"), ("d",))),
        windows(made(seed=1, missing=0.01), split="none"),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_a_window_set_goes_through_pickle(made, windows):
    found = windows(made(missing=0.1), split="none")
    other = pickle.loads(pickle.dumps(found))
    assert other.fingerprint == found.fingerprint
    for name, value in other.batch([3, 70]).items():
        assert torch.equal(value, found.batch([3, 70])[name])


@pytest.mark.parametrize(("look_back", "horizon"), [(8, 4), (40, 4), (4, 60)])
def test_a_part_without_a_window_is_an_error(made, windows, look_back, horizon):
    series = made((50, 30))
    with pytest.raises(DataError, match=r"made: the val part has no window: .* rows of look-back .* the longest of its 2 series"):
        windows(series, "val", look_back, horizon, split={"train": 1.0, "val": 0.0, "test": 0.0})
    if look_back + horizon > 50:
        with pytest.raises(DataError, match=r"shorten model.look_back or model.horizon"):
            windows(series, "train", look_back, horizon, split="none")


def test_the_context_is_shorter_than_the_look_back(made, windows):
    with pytest.raises(
        DataError, match=r"a window takes 40 rows of look-back and 1 of horizon, 41 together, and its only series has 30"
    ):
        windows(made((30,)), "train", 40, 1, split="none")


def test_missing_values_are_refused_where_the_recipe_says_so(made, windows):
    """Named by series, column, row and time, counted in the series' own rows, also behind another series."""
    series = made((60, 50))
    series.series[1].values[47, 2] = np.nan
    for split, part, row in (("none", "train", 47), (HALF, "test", 47)):
        with pytest.raises(
            DataError, match=rf"series 's1', column 'c' has no value at row {row} \(2021-03-02T23:00.*missing: mask"
        ):
            windows(series, part, split=split, missing="error")
    windows(series, "train", split=HALF, missing="error")  # the gap lies in another part
    windows(series, "train", split="none", missing="error", columns=Columns(("a", "b")))  # or in another column


def test_published_counts_follow_from_the_borders(windows, made):
    """Without the file: any hourly series of 20 months of 30 days or more."""
    series = made((14_400 + 7,), columns=("a",))
    wanted = {"train": 8449, "val": 2785, "test": 2785}
    assert {part: len(windows(series, part, 96, 96, split="ett_hour")) for part in wanted} == wanted
    test = windows(series, "test", 96, 96, split="ett_hour")
    assert test.batch([0])["target"][0, 0] == 11_520 and test.batch([2784])["target"][0, -1] == 14_399


def test_rows_without_time(windows):
    plain_rows = SeriesSet([Series("s", np.arange(20.0)[:, None], ("a",))], "rows")
    assert windows(plain_rows, "test", 4, 2, split=HALF).batch([0])["target"].flatten().tolist() == [14, 15]
    timed = SeriesSet([replace(plain_rows.series[0], start=np.datetime64("2020", "us"), frequency="D")], "days")
    assert len(windows(timed, "test", 4, 2, split=HALF)) == 5


@pytest.mark.parametrize("split", [HALF, {"val": "2021-03-02", "test": "2021-03-02T16:00"}, "none"])
def test_windows_without_a_horizon_lie_inside_their_part(made, windows, split):
    """Every row of a part is in some window, and no row of another part is in any: the value of a row is its number."""
    series = made((60, 47, 90), columns=("a",))
    seen = {}
    for part in ("train", "val", "test"):
        found = windows(series, part, 8, 0, split=split)
        seen[part] = set(found.batch(range(len(found)))["values"].flatten().tolist())
        rows = [(number, borders(one, split)[part]) for number, one in enumerate(series.series)]
        wanted = {1000.0 * number + row for number, (first, end) in rows if end - first >= 8 for row in range(first, end)}
        assert seen[part] == wanted and len(found) == sum(max(0, end - first - 7) for _, (first, end) in rows)
    if split != "none":
        assert not seen["train"] & seen["val"] and not seen["val"] & seen["test"]


def test_a_part_too_short_for_a_window_without_a_horizon(made, windows):
    with pytest.raises(
        DataError,
        match=r"the val part has no window: a window takes 8 rows, all inside the part, and its only series has 5 there",
    ):
        windows(made((50,)), "val", 8, 0, split={"train": 0.7, "val": 0.1, "test": 0.2})
