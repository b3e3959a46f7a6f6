"""DLinear against an independent slow version; missing values; channels; release."""

import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.families.dlinear.model import DLinearModel, moving_average
from modalign.zoo.series.description import SeriesDescription
from modalign.zoo.series.window import filled

SETTINGS = {"look_back": 30, "horizon": 7}


def built(**settings):
    torch.manual_seed(0)
    model = DLinearModel.from_settings(SETTINGS | settings).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def slow(model, x, kernel, channel):
    """One channel of one window, step by step."""
    length, half = len(x), kernel // 2
    average = [sum(x[min(max(t + k, 0), length - 1)] for k in range(-half, half + 1)) / kernel for t in range(length)]
    seasonal, trend = model.seasonal[channel], model.trend[channel]
    out = []
    for h in range(7):
        value = seasonal.bias[h] + trend.bias[h]
        for t in range(length):
            value = value + seasonal.weight[h, t] * (x[t] - average[t]) + trend.weight[h, t] * average[t]
        out.append(value)
    return torch.stack(out)


@pytest.mark.parametrize(("kernel", "individual"), [(25, False), (1, False), (9, True)])
def test_against_loops(kernel, individual):
    model = built(kernel=kernel, individual=individual, **({"series": {"target": ["a", "b"]}} if individual else {}))
    values = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(1))
    found = model({"values": values})["prediction"]
    assert found.shape == (2, 7, 2)
    for b in range(2):
        for c in range(2):
            expected = slow(model, values[b, :, c], kernel, c if individual else 0)
            torch.testing.assert_close(found[b, :, c], expected, rtol=1e-5, atol=1e-5)


def test_starts_as_the_specification_says():
    model = DLinearModel.from_settings(SETTINGS)
    for layers in (model.seasonal, model.trend):
        assert len(layers) == 1 and torch.equal(layers[0].weight, torch.full((7, 30), 1 / 30))
        assert layers[0].bias.abs().max() <= 30**-0.5 and layers[0].bias.std() > 0
    assert sum(p.numel() for p in DLinearModel.from_settings({}).parameters()) == 2 * (96 * 96 + 96)


def test_a_constant_stays_when_averaged():
    torch.testing.assert_close(moving_average(torch.full((1, 2, 40), 3.5), 25), torch.full((1, 2, 40), 3.5))


def test_missing_values_are_filled_from_before():
    model, generator = built(), torch.Generator().manual_seed(2)
    values, observed = torch.randn(2, 30, 3, generator=generator), torch.rand(2, 30, 3, generator=generator) > 0.4
    found = model({"values": values.masked_fill(~observed, 0), "observed": observed})["prediction"]
    assert torch.equal(found, model({"values": filled(values, observed)})["prediction"])
    assert torch.equal(found, model({"values": values.masked_fill(~observed, 1e6), "observed": observed})["prediction"])
    assert not torch.allclose(found, model({"values": values.masked_fill(~observed, 0)})["prediction"])


def test_channels_do_not_see_one_another():
    model, values = built(), torch.randn(3, 30, 4)
    whole = model({"values": values})["prediction"]
    torch.testing.assert_close(model({"values": values[:1, :, 2:3]})["prediction"], whole[:1, :, 2:3])


def test_it_learns():
    model = DLinearModel.from_settings(SETTINGS)
    series = torch.sin(torch.arange(400) / 3)[None, :, None]
    windows = series.unfold(1, 37, 1)[0].transpose(1, 2)
    optimiser, losses = torch.optim.Adam(model.parameters(), 0.01), []
    for _ in range(60):
        loss = (model({"values": windows[:, :30]})["prediction"] - windows[:, 30:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("individual", [False, True])
def test_release_round_trip(tmp_path, individual):
    model = built(
        individual=individual, series={"target": ["a", "b"], "frequency": "h", "scale": {"a": [1.0, 2.0], "b": [0.0, 1.0]}}
    )
    save_release(model, tmp_path / "release", trained=frozenset(name for name, _ in model.named_parameters()))
    again = zoo.load(tmp_path / "release")
    values = torch.randn(2, 30, 2)
    assert torch.equal(again({"values": values})["prediction"], model({"values": values})["prediction"])
    assert again.config.series == model.config.series and isinstance(again.config.series, SeriesDescription)


def test_individual_layers_are_built_when_the_columns_are_known():
    model = DLinearModel.from_settings(SETTINGS | {"individual": True})
    with pytest.raises(AssemblyError, match="tell the model its columns first"):
        model({"values": torch.zeros(1, 30, 2)})
    model.describe(SeriesDescription(["a", "b"]))
    assert model({"values": torch.zeros(1, 30, 2)})["prediction"].shape == (1, 7, 2)
    with pytest.raises(AssemblyError, match="layers for 2 channels, the data have 3"):
        model.describe(SeriesDescription(["a", "b", "c"]))


def test_errors():
    with pytest.raises(RecipeError, match=r"model.kernel: 24 must be an odd number"):
        DLinearModel.from_settings(SETTINGS | {"kernel": 24})
    with pytest.raises(AssemblyError, match=r"the window has 29 steps, model.look_back is 30"):
        built()({"values": torch.zeros(1, 29, 2)})
    with pytest.raises(AssemblyError, match="dlinear makes no use of such columns"):
        built().describe(SeriesDescription(["a"], past=["b"]))
    with pytest.raises(AssemblyError, match="dlinear does forecast, short_term, not anomaly"):
        built(task="anomaly")


def test_every_parameter_is_of_the_head():
    model = built()
    assert {model.role_of(name) for name, _ in model.named_parameters()} == {"head"}
    assert all(name.startswith(model.parts["layers"]) for name, _ in model.named_parameters())
