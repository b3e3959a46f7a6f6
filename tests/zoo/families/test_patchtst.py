"""PatchTST through transformers: shapes, masks, channels, learning, release."""

import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.families.patchtst.model import PatchTstConfig, PatchTstModel

SETTINGS = {"look_back": 40, "horizon": 6, "patch_size": 8, "stride": 4, "width": 16, "layers": 2, "heads": 4, "ffn": 32}


def built(**settings):
    torch.manual_seed(0)
    return PatchTstModel.from_settings(SETTINGS | settings).eval()


def test_defaults_are_the_authors():
    config = PatchTstConfig()
    assert (config.width, config.layers, config.heads, config.ffn, config.dropout) == (128, 3, 16, 256, 0.2)
    assert (config.patch_size, config.stride) == (16, 8)


def test_patches_and_shapes():
    model = built()
    assert model.body.model.patchifier.num_patches == (40 - 8) // 4 + 2 == 10
    assert model.body.head.projection.in_features == 10 * 16
    assert model({"values": torch.randn(3, 40, 5)})["prediction"].shape == (3, 6, 5)


def test_channels_and_windows_do_not_see_one_another():
    model, values = built(), torch.randn(3, 40, 5)
    whole = model({"values": values})["prediction"]
    torch.testing.assert_close(model({"values": values[1:2, :, 3:4]})["prediction"], whole[1:2, :, 3:4], rtol=1e-4, atol=1e-5)


def test_follows_level_and_scale():
    model, values = built(), torch.randn(2, 40, 2)
    torch.testing.assert_close(
        model({"values": 3 * values + 7})["prediction"], 3 * model({"values": values})["prediction"] + 7, rtol=1e-3, atol=1e-3
    )
    assert model({"values": torch.full((1, 40, 1), 5.0)})["prediction"].isfinite().all()


def test_missing_values_are_not_read():
    model, generator = built(), torch.Generator().manual_seed(0)
    values, observed = torch.randn(2, 40, 3, generator=generator), torch.rand(2, 40, 3, generator=generator) > 0.4
    observed[0, :, 0] = False
    found = model({"values": values.masked_fill(~observed, 0), "observed": observed})["prediction"]
    assert torch.equal(found, model({"values": values.masked_fill(~observed, 1e3), "observed": observed})["prediction"])
    assert found.isfinite().all() and not torch.allclose(found, model({"values": values.masked_fill(~observed, 0)})["prediction"])
    torch.testing.assert_close(
        model({"values": values, "observed": torch.ones_like(observed)})["prediction"], model({"values": values})["prediction"]
    )


def test_mean_and_deviation_are_of_observed_steps_alone():
    """Scaling what was observed scales the forecast, whatever share is missing and although the end is repeated."""
    model, observed = built(), torch.rand(1, 40, 1, generator=torch.Generator().manual_seed(1)) > 0.5
    values = torch.randn(1, 40, 1)
    found = []
    model.body.model.scaler.register_forward_hook(lambda _, args, out: found.append(out))
    first = model({"values": values * observed, "observed": observed})["prediction"]
    inside = values[observed]
    assert found[0][1].item() == pytest.approx(inside.mean().item(), abs=1e-5)
    assert found[0][2].item() == pytest.approx((inside.var(unbiased=False) + 1e-5).sqrt().item(), abs=1e-5)
    second = model({"values": (5 * values - 2) * observed, "observed": observed})["prediction"]
    torch.testing.assert_close(second, 5 * first - 2, rtol=1e-3, atol=1e-3)


def test_it_learns():
    model = built(dropout=0.0).train()
    windows = torch.sin(torch.arange(300) / 3).unfold(0, 46, 3)[:, :, None]
    optimiser, losses = torch.optim.Adam(model.parameters(), 0.01), []
    for _ in range(40):
        loss = (model({"values": windows[:, :40]})["prediction"] - windows[:, 40:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_release_and_roles(tmp_path):
    model = built(series={"target": ["a"]})
    save_release(model, tmp_path / "release")
    values = torch.randn(2, 40, 1)
    assert torch.equal(zoo.load(tmp_path / "release")({"values": values})["prediction"], model({"values": values})["prediction"])
    roles = {name: model.role_of(name) for name, _ in model.named_parameters()}
    assert {name for name, role in roles.items() if role == "head"} == {
        "body.head.projection.weight",
        "body.head.projection.bias",
    }
    assert set(roles.values()) == {"head", "encoder"}


def test_errors():
    with pytest.raises(AssemblyError, match="6 steps are fewer than a patch of 8"):
        built(look_back=6)
    with pytest.raises(RecipeError, match=r"model.width: 18 must be even and a multiple of model.heads, 4"):
        built(width=18)
    with pytest.raises(AssemblyError, match="the window has 41 steps"):
        built()({"values": torch.zeros(1, 41, 1)})
