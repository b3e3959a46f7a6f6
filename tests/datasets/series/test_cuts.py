"""Short series cut once each: where cuts fall, what stands where, padding, masks, known columns; against plain lists."""

import collections
import math

import numpy as np
import pytest
import torch

from modalign.datasets.series.cuts import CutSet
from modalign.datasets.series.windows import Columns
from modalign.zoo.errors import DataError, RecipeError

L, H = 8, 3


def cuts(series, part="train", *, columns=None, scale=None, look_back=L, horizon=H, history=2.0, **more):
    columns = Columns(series.columns) if columns is None else columns
    scale = {column: [0.0, 1.0] for column in columns.scaled} if scale is None else scale
    return CutSet(series, columns, scale, part=part, look_back=look_back, horizon=horizon, history=history, **more)


def slow(rows, cut, places, scale):
    """(values, observed, target, target_observed) of one cut of a list of rows, cell by cell."""

    def cell(row, place):
        if not 0 <= row < len(rows) or math.isnan(rows[row][place]):
            return 0.0, False
        mean, std = scale[place]
        return (rows[row][place] - mean) / std, True

    past = [[cell(cut - L + step, place) for place in places] for step in range(L)]
    future = [[cell(cut + step, place) for place in places[:2]] for step in range(H)]
    split = [[[pair[kind] for pair in row] for row in block] for block in (past, future) for kind in (0, 1)]
    return [torch.tensor(block) for block in split]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_batches_against_cells(made, part):
    """Series shorter than the look-back, missing values, a scaler, a past covariate behind two targets."""
    series = made((30, 14, 11), missing=0.2)
    columns, scale = Columns(("c", "a"), ("b",)), {"a": [10.0, 2.0], "b": [1.0, 4.0], "c": [-3.0, 0.5]}
    found = cuts(series, part, columns=columns, scale=scale)
    draws = [(7, epoch, 5) for epoch in range(6)]
    numbers = [0, 1, 2, 0, 1, 2]
    batch = found.batch(numbers, draws)
    assert set(batch) == {"values", "observed", "target", "target_observed"} and batch["values"].shape == (6, L, 3)
    held_out = {"train": 2 * H, "val": H, "test": 0}[part]
    for row, number in enumerate(numbers):
        own = series.series[number].values
        rows = own[: len(own) - held_out].tolist()
        cut = found.cut(number, draws[row])
        assert part == "train" or cut == len(rows) - H
        by_place = [scale[name] for name in ("a", "b", "c")]
        wanted = slow(rows, cut, [2, 0, 1], by_place)
        for name, block in zip(("values", "observed", "target", "target_observed"), wanted, strict=True):
            torch.testing.assert_close(batch[name][row], block, rtol=1e-6, atol=1e-6, check_dtype=name.endswith("observed"))


@pytest.mark.parametrize(("rows", "history", "first"), [(30, 2.0, 18), (30, 1.5, 20), (30, 50.0, 1), (8, 1.0, 1), (30, 0.34, 23)])
def test_training_cuts_are_uniform_over_the_last_rows(made, rows, history, first):
    """n is what is left without two horizons; cuts fall in [max(1, n - history · H), n), every one as often."""
    n = rows - 2 * H
    found = cuts(made((rows,)), history=history)
    counts = collections.Counter(found.cut(0, (1, epoch, 0)) for epoch in range(4000))
    assert set(counts) == set(range(first, n))
    expected = 4000 / (n - first)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) + 1 for count in counts.values())


def test_cuts_depend_on_seed_epoch_and_place_alone(made):
    series, places = made((60, 60)), [(0, 0, place) for place in range(64)]
    first, second = (cuts(series, history=10.0).batch([0] * 64, places)["target"] for _ in range(2))
    assert torch.equal(first, second)
    for other in ([(1, *place[1:]) for place in places], [(0, 1, place[2]) for place in places]):
        assert not torch.equal(cuts(series, history=10.0).batch([0] * 64, other)["target"], first)


def test_no_training_cut_shows_what_validation_and_test_predict(made):
    """The value of a row is its number: the last two horizons never appear in training, the last never in validation."""
    series = made((30,), columns=("a",))
    train = cuts(series, history=50.0).batch([0] * 500, [(0, epoch, 0) for epoch in range(500)])
    assert torch.cat([train["values"].flatten(), train["target"].flatten()]).max() == 23
    val, test = (cuts(series, part).batch([0]) for part in ("val", "test"))
    assert val["target"].flatten().tolist() == [24, 25, 26] and test["target"].flatten().tolist() == [27, 28, 29]
    assert val["values"].flatten().tolist() == list(range(16, 24))


def test_what_is_not_there_is_zero_and_masked(made):
    """Look-back to the right, horizon to the left."""
    batch = cuts(made((9,), columns=("a",)), "train").batch([0], [(0, 0, 0)])  # n = 3: the cut is 1 or 2
    cut = int(batch["observed"].sum())
    assert batch["values"].flatten().tolist() == [0.0] * (L - cut) + list(range(cut))
    assert batch["observed"].flatten().tolist() == [False] * (L - cut) + [True] * cut
    assert batch["target"].flatten().tolist() == [*range(cut, 3), *[0.0] * cut]
    assert batch["target_observed"].flatten().tolist() == [True] * (3 - cut) + [False] * cut


def test_known_columns_reach_over_look_back_and_horizon(made):
    """Behind a training cut they go on into the horizons that are left out; channels do not hold them."""
    series = made((30, 10))
    found = cuts(series, columns=Columns(("a",), ("c",), ("d", "b")), history=50.0)
    draws = [(3, epoch, 0) for epoch in range(40)]
    batch = found.batch([0, 1] * 20, draws)
    assert batch["values"].shape == (40, L, 2) and batch["known"].shape == (40, L + H, 2)
    for row, draw in enumerate(draws):
        cut, own = found.cut(row % 2, draw), series.series[row % 2].values
        wanted = [own[at][[3, 1]].tolist() if at >= 0 else [0.0, 0.0] for at in range(cut - L, cut + H)]
        torch.testing.assert_close(batch["known"][row], torch.tensor(wanted, dtype=torch.float32))
    test = cuts(series, "test", columns=Columns(("a",), (), ("b",))).batch([0])
    assert test["known"][0, :, 0].tolist() == pytest.approx([row + 0.1 for row in range(19, 30)], rel=1e-6)


def test_missing_values_where_none_may_be(made):
    series = made((30, 20))
    series.series[1].values[15, 2] = np.nan
    with pytest.raises(
        DataError, match=r"made: series 's1', column 'c' has no value at row 15 \(2021-03-01T15:00.*no gaps; fill it"
    ):
        cuts(series, columns=Columns(("a",), (), ("c",)))
    with pytest.raises(DataError, match=r"series 's1', column 'c' has no value at row 15 .*data.series.missing is error"):
        cuts(series, "val", missing="error")
    cuts(series, "train", missing="error")  # the row lies in a horizon that is left out
    cuts(series, "val", missing="error", columns=Columns(("a", "b")))  # or in another column
    assert not cuts(series, "val").batch([1])["target_observed"].all()


def test_short_series_are_named_and_an_empty_set_is_an_error(made):
    found = cuts(made((30, 7, 8)))
    assert found.left_out == ["s1"] and [found.key(number) for number in range(2)] == ["s0", "s2"]
    with pytest.raises(DataError, match=r"no series has the 8 rows that its train part needs .* \(the longest has 7\)"):
        cuts(made((7, 5)))


def test_cuts_in_less_than_a_row_are_refused(made):
    with pytest.raises(RecipeError, match=r"data.series.history: .* 0.1 · 3 \(model.horizon\) = 0.3 rows.*give 0.334 or more"):
        cuts(made((30,)), history=0.1)
    assert cuts(made((30,)), "test", history=0.1).cut(0) == 27
    assert {cuts(made((30,)), history=0.334).cut(0, (0, epoch, 0)) for epoch in range(9)} == {23}


def test_fingerprints_tell_other_cuts(made):
    series = made()
    sets = [cuts(series), cuts(series, "val"), cuts(series, history=3.0), cuts(series, look_back=9), cuts(series, horizon=2)]
    assert len({one.fingerprint for one in sets}) == len(sets) and cuts(made()).fingerprint == sets[0].fingerprint
