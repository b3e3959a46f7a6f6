"""A loss that reads a logit bias goes with a model that has one, and the other way round; each mistake is said before a step."""

from types import SimpleNamespace

import pytest
import torch

from modalign.trainers import train
from modalign.trainers.objective import Objective, check_bias
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.losses.siglip import SigLipLoss

WITHOUT, WITH = SimpleNamespace(logit_bias=None), SimpleNamespace(logit_bias=torch.tensor(-10.0))


def test_siglip_on_a_model_without_a_bias(tiny_recipe):
    stage = tiny_recipe["stages"]["teacher"] | {"losses": {"sigmoid": {"loss": "siglip"}}}
    with pytest.raises(RecipeError) as raised:
        train(tiny_recipe | {"stages": {"one": stage}, "evaluate": None})
    text = str(raised.value)
    assert text.startswith("stages.one.losses: sigmoid reads a logit bias, and this model has no logit bias; use the loss clip")
    assert "clip/finetune" in text and "family siglip" in text and "logit_scale" not in text and "\n" not in text


@pytest.mark.parametrize("ignore", [False, True])
def test_only_the_losses_that_read_it_are_named(ignore):
    nested = {"loss": "matryoshka", "base": {"loss": "siglip"}, "dims": [4]}
    objective = Objective({"clip": {}, "nested": nested, "image": {"loss": "feature_distillation"}})
    with pytest.raises(RecipeError, match=r"s.losses: nested reads a logit bias"):
        check_bias(WITHOUT, objective, ignore, "s")
    check_bias(WITH, objective, ignore, "s")


def test_what_goes_together_passes():
    check_bias(WITHOUT, Objective({"clip": {}}), False, "s")
    check_bias(WITHOUT, Objective({"image": {"loss": "feature_distillation"}}), False, "s")
    check_bias(WITH, Objective({"siglip": {}}), False, "s")
    with pytest.raises(RecipeError, match=r"the model has a logit bias.* and clip takes a softmax"):
        check_bias(WITH, Objective({"clip": {}}), False, "s")


def test_a_model_that_says_nothing_of_a_bias_is_judged_by_its_outputs():
    check_bias(SimpleNamespace(), Objective({"siglip": {}}), False, "s")


def test_the_loss_by_itself_does_not_suggest_the_scale():
    outputs = {"image_embedding": torch.eye(2), "text_embedding": torch.eye(2), "logit_scale": torch.tensor(1.0)}
    with pytest.raises(
        AssemblyError, match=r"needs 'logit_bias': this model has no logit bias; take the loss clip, or .* siglip"
    ) as raised:
        SigLipLoss()(outputs, {})
    assert "did you mean" not in str(raised.value)
    with pytest.raises(AssemblyError, match="did you mean 'logit_scale'"):
        SigLipLoss(scale="logit_scales")(outputs, {})
