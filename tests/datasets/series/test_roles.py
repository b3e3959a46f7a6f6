"""Roles of columns: from names to places."""

import numpy as np
import pytest

from modalign.datasets.series.roles import assign_roles
from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.zoo.errors import DataError

SET = SeriesSet([Series("k", np.zeros((3, 4)), ("load", "temp", "holiday", "price"), static={"size": 3.0})], "set.csv")


def test_all_columns_are_targets_if_nothing_is_said():
    roles = assign_roles(SET)
    assert roles.target == SET.columns and roles.target_index == (0, 1, 2, 3) and not roles.past + roles.known + roles.static


def test_the_rest_is_target():
    roles = assign_roles(SET, known=["holiday"], past=["temp"], static=["size"])
    assert roles.target == ("load", "price") and roles.channel_index == (0, 3, 1)
    assert (roles.known_index, roles.static) == ((2,), ("size",))


def test_targets_in_their_order_and_the_rest_left_out():
    roles = assign_roles(SET, target=["price", "load"])
    assert roles.target_index == roles.channel_index == (3, 0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"target": ["lod"]}, r"data.series.target: set.csv has no column 'lod'; did you mean 'load'\?"),
        ({"known": ["size"]}, "it is a static number: name it under data.series.static"),
        ({"static": ["temp"]}, "it is a column that changes in time: name it under data.series.past"),
        ({"static": ["siz"]}, r"no static number 'siz'; did you mean 'size'\?"),
        ({"static": ["size", "size"]}, "names a number twice"),
        ({"target": ["load"], "past": ["load"]}, "'load' is in data.series.target and in data.series.past"),
        ({"past": ["temp", "temp"]}, "'temp' is twice in data.series.past"),
        ({"target": []}, "no column is left to predict"),
        ({"past": ["load", "temp", "holiday", "price"]}, "no column is left to predict"),
    ],
)
def test_what_is_refused(settings, reason):
    with pytest.raises(DataError, match=reason):
        assign_roles(SET, **settings)
