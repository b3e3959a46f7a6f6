"""The projector contract, and the parameter counts of the papers."""

import pytest
import torch

from modalign.zoo.configure import fill
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.projectors.residual_mlp import Llm2ClipProjector, ProClipProjector
from modalign.zoo.registry import PROJECTORS


@pytest.mark.parametrize("name", PROJECTORS.names())
def test_contract(name):
    torch.manual_seed(0)
    projector = fill(PROJECTORS.get(name), {}, "options", width_in=12, width_out=5).eval()
    features = torch.randn(2, 7, 12)
    out = projector(features)
    assert out.shape == (2, projector.num_tokens(7), 5)
    assert (projector.width_in, projector.width_out) == (12, 5)
    out.sum().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in projector.parameters())
    again = fill(PROJECTORS.get(name), {}, "options", width_in=12, width_out=5).eval()
    again.load_state_dict(projector.state_dict())
    assert torch.equal(again(features), out)


@pytest.mark.parametrize(
    ("cls", "width", "count"),
    [(Llm2ClipProjector, 1280, 273_769_728), (ProClipProjector, 1280, 273_732_864), (ProClipProjector, 768, 271_635_200)],
)
def test_parameter_counts_of_the_official_code(cls, width, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in cls(4096, width).parameters()) == count


def test_residual_projector_equals_its_formula():
    torch.manual_seed(1)
    projector = ProClipProjector(6, 3).double().eval()
    e = torch.randn(4, 6, dtype=torch.float64)
    h = e / e.norm(dim=-1, keepdim=True)
    _, first, _, _, second = projector.blocks[0]
    inner = torch.nn.functional.gelu(
        (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() @ first.weight.T + first.bias
    )
    h = h + inner @ second.weight.T + second.bias
    out = projector.out[1]
    wanted = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() @ out.weight.T + out.bias
    torch.testing.assert_close(projector(e), wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(projector(5 * e), projector(e))


def test_wrong_settings_are_refused():
    with pytest.raises(RecipeError, match=r"unknown key 'expansionn'; did you mean 'expansion'"):
        fill(PROJECTORS.get("proclip"), {"expansionn": 2}, "options", width_in=4, width_out=4)
    with pytest.raises(AssemblyError, match="use the projector 'linear'"):
        fill(PROJECTORS.get("mlp"), {"depth": 1}, "options", width_in=4, width_out=4)
    with pytest.raises(AssemblyError, match="did you mean 'linear'"):
        PROJECTORS.get("linaer")
