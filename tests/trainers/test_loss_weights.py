"""Weights of losses: none below nothing, and something must train."""

import pytest

from modalign.trainers import load_recipe
from modalign.zoo.errors import RecipeError


def with_weights(recipe, **weights):
    recipe["stages"]["tune"]["losses"] = {
        label: {"loss": "clip"} | ({} if weight is None else {"weight": weight}) for label, weight in weights.items()
    }
    return recipe


@pytest.mark.parametrize("weight", [-1.0, -1e-9, -3])
def test_a_negative_weight_is_refused(tiny_recipe, weight):
    with pytest.raises(RecipeError, match=r"stages.tune.losses.second.weight: -\S+ must be a finite number at least 0"):
        load_recipe(with_weights(tiny_recipe, first=1.0, second=weight))


@pytest.mark.parametrize("weights", [{"first": 0}, {"first": 0.0, "second": 0}])
def test_weights_that_are_all_0_are_refused(tiny_recipe, weights):
    with pytest.raises(RecipeError, match=rf"stages.tune.losses: every weight is 0 \({', '.join(weights)}\)"):
        load_recipe(with_weights(tiny_recipe, **weights))


@pytest.mark.parametrize("weights", [{"first": 0, "second": 1e-9}, {"first": 0.0, "second": None}, {"first": None}])
def test_a_weight_of_0_beside_others_is_fine(tiny_recipe, weights):
    assert list(load_recipe(with_weights(tiny_recipe, **weights)).stages["tune"].losses) == list(weights)
