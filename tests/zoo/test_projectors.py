"""The contract of every registered projector, and the parameter counts of the papers."""

import pytest
import torch

from modalign.zoo.configure import fill
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.projectors.c_abstractor import CAbstractor
from modalign.zoo.projectors.mlp import MlpProjector
from modalign.zoo.projectors.q_former import QFormerProjector
from modalign.zoo.projectors.residual_mlp import Llm2ClipProjector, ProClipProjector
from modalign.zoo.registry import PROJECTORS

SIDE, WIDTH = 6, 12
WHOLE = (SIDE, SIDE)
# name -> (tiny options, V' of 36 tokens, the grid behind it, what a permutation of the tokens does)
CASES = {
    "linear": ({}, 36, WHOLE, "same"),
    "mlp": ({}, 36, WHOLE, "same"),
    "residual_mlp": ({}, 36, WHOLE, "same"),
    "proclip": ({}, 36, WHOLE, "same"),
    "llm2clip": ({}, 36, WHOLE, "same"),
    "identity": ({}, 36, WHOLE, "same"),
    "mlp_residual": ({}, 36, WHOLE, "same"),
    "pooler": ({}, 9, (3, 3), "other"),
    "spatial_pool": ({"stride": 4, "mode": "conv"}, 4, (2, 2), "other"),
    "pixel_shuffle": ({"factor": 3}, 4, (2, 2), "other"),
    "perceiver": ({"latents": 5, "depth": 2, "heads": 2, "head_width": 4}, 5, None, "none"),
    "honeybee_resampler": (
        {"queries": 5, "hidden": 8, "layers": 2, "heads": 2, "intermediate": 16, "think_tokens": 1},
        6,
        None,
        "none",
    ),
    "q_former": ({"queries": 5, "hidden": 8, "layers": 3, "heads": 2, "intermediate": 16}, 5, None, "none"),
    "c_abstractor": ({"tokens_in": 36, "queries": 16, "hidden": 8, "depth": 1}, 16, (4, 4), "other"),
    "d_abstractor": (
        {"tokens_in": 36, "queries": 4, "hidden": 8, "layers": 2, "heads": 2, "points": 2, "intermediate": 16},
        4,
        (2, 2),
        "other",
    ),
}
CHANGES_NO_RESULT = ("attention.key.bias",)  # the same number for all keys falls out of the softmax


def build(name, **more):
    options = CASES[name][0] | more
    width_out = WIDTH if name == "identity" else 5
    return fill(PROJECTORS.get(name), options, "options", width_in=WIDTH, width_out=width_out).eval()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_projector_has_a_case():
    assert set(CASES) == set(PROJECTORS.names())


@pytest.mark.parametrize("name", CASES)
def test_shape_and_grid_are_as_announced(name):
    projector, (_, tokens, grid, _) = build(name), CASES[name]
    assert projector.num_tokens(SIDE * SIDE) == tokens
    assert projector.out_grid(WHOLE) == grid
    out = projector(draw(2, SIDE * SIDE, WIDTH))
    assert out.shape == (2, tokens, projector.width_out)
    assert grid is None or grid[0] * grid[1] == tokens
    assert (projector.width_in, projector.width_out) == (WIDTH, WIDTH if name == "identity" else 5)


@pytest.mark.parametrize("name", CASES)
def test_eval_is_deterministic_and_rows_do_not_depend_on_each_other(name):
    projector, features = build(name), draw(3, SIDE * SIDE, WIDTH)
    before = features.clone()
    out = projector(features)
    assert torch.equal(projector(features), out)
    assert torch.equal(features, before)  # not changed in place
    torch.testing.assert_close(projector(features[1:2]), out[1:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_parameter_and_the_input(name):
    torch.manual_seed(0)
    projector, features = build(name), draw(2, SIDE * SIDE, WIDTH).requires_grad_()
    out = projector(features)
    (out * draw(*out.shape, seed=1)).sum().backward()
    assert features.grad.abs().amax(dim=(0, 2)).min() > 0  # every token has a say
    for key, parameter in projector.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        assert key.endswith(CHANGES_NO_RESULT) or parameter.grad.any(), key


@pytest.mark.parametrize("name", CASES)
def test_state_makes_another_one_the_same(name):
    torch.manual_seed(1)
    first = build(name)
    second, features = build(name), draw(2, SIDE * SIDE, WIDTH)
    assert name == "identity" or not torch.equal(first(features), second(features))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(features), second(features))


@pytest.mark.parametrize("name", CASES)
def test_what_a_permutation_of_the_tokens_does(name):
    torch.manual_seed(2)
    projector, features = build(name).double(), draw(2, SIDE * SIDE, WIDTH).double()
    order = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(3))
    out, permuted = projector(features), projector(features[:, order])
    kind = CASES[name][3]
    if kind == "same":
        torch.testing.assert_close(permuted, out[:, order])
    elif kind == "none":
        torch.testing.assert_close(permuted, out)
    else:
        assert not torch.allclose(permuted, out, atol=1e-6)
        assert out.shape[1] < SIDE * SIDE


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3] == "same"])
def test_token_wise_ones_take_any_leading_shape(name):
    projector, features = build(name), draw(2, 3, 4, WIDTH)
    torch.testing.assert_close(projector(features).flatten(0, 2), projector(features.flatten(0, 2)))
    torch.testing.assert_close(projector(features)[1, 2, 3], projector(features[1, 2, 3]))
    assert projector.num_tokens(7) == 7 and projector.out_grid((2, 3)) == (2, 3)


GRIDS = ("pooler", "spatial_pool", "pixel_shuffle", "c_abstractor", "d_abstractor")


@pytest.mark.parametrize("name", GRIDS)
def test_no_square_grid_is_refused_with_the_reason(name):
    more = {"positions": False} if name == "c_abstractor" else {}
    projector = build(name, **more)
    if name != "d_abstractor":  # which is built for one number
        for refused in (lambda: projector.num_tokens(37), lambda: projector(draw(1, 37, WIDTH))):
            with pytest.raises(
                AssemblyError, match=rf"{name} works on a square grid, and 37 tokens are none; take .* mlp or perceiver"
            ):
                refused()
        with pytest.raises(AssemblyError, match=rf"{name} .*0 tokens"):
            projector.num_tokens(0)
    with pytest.raises(AssemblyError, match=rf"{name} works on a square grid, not on 4 rows and 9 columns"):
        projector.out_grid((4, 9))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3] != "same"])
def test_features_without_a_batch_are_refused(name):
    with pytest.raises(AssemblyError, match=rf"{name} takes features of shape \(B, V, D\), not \(36, 12\)"):
        build(name)(draw(36, WIDTH))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3] == "none"])
def test_resamplers_serve_any_number_of_tokens_but_none(name):
    projector = build(name)
    for tokens in (1, 7):
        assert projector(draw(2, tokens, WIDTH)).shape[1] == projector.num_tokens(tokens) == CASES[name][1]
    with pytest.raises(AssemblyError, match=rf"{name} cannot look at 0 tokens; give it one or more"):
        projector(draw(2, 0, WIDTH))


@pytest.mark.parametrize("name", ["c_abstractor", "d_abstractor", "honeybee_resampler"])
def test_a_table_over_the_input_needs_its_length(name):
    more = {"positions": True}
    with pytest.raises(AssemblyError, match=rf"{name} has a table over its input tokens .*; give tokens_in"):
        build(name, **more, tokens_in=None)
    with pytest.raises(AssemblyError, match=rf"{name}: tokens_in is 0; take 1 or more"):
        build(name, **more, tokens_in=0)
    projector = build(name, **more, tokens_in=36)
    for refused in (lambda: projector.num_tokens(16), lambda: projector(draw(1, 16, WIDTH)), lambda: projector.out_grid((4, 4))):
        with pytest.raises(AssemblyError, match=rf"{name} was built for 36 tokens and cannot serve 16; .* tokens_in 16"):
            refused()


@pytest.mark.parametrize("name", ["c_abstractor", "d_abstractor"])
def test_abstractors_ask_for_square_numbers_and_lose_their_grid_to_think_tokens(name):
    with pytest.raises(AssemblyError, match=rf"{name}: queries is 15, which is no square number; take one such as 16"):
        build(name, queries=15)
    with pytest.raises(AssemblyError, match=rf"{name} works on a square grid, and 35 tokens are none"):
        build(name, tokens_in=35)
    with pytest.raises(AssemblyError, match=rf"{name}: think_tokens is -1; take 0 or more"):
        build(name, think_tokens=-1)
    plain, thinking = build(name), build(name, think_tokens=3)
    thinking.load_state_dict(plain.state_dict(), strict=False)
    features = draw(2, 36, WIDTH)
    out = thinking(features)
    assert thinking.num_tokens(36) == out.shape[1] == plain.num_tokens(36) + 3
    assert thinking.out_grid(WHOLE) is None
    torch.testing.assert_close(out[:, :-3], plain(features))
    assert torch.equal(out[0, -3:], out[1, -3:]) and not torch.equal(out[0, -1], out[0, -2])


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("mlp_residual", "depth"),
        ("mlp_residual", "blocks"),
        ("spatial_pool", "stride"),
        ("pixel_shuffle", "factor"),
        ("perceiver", "latents"),
        ("perceiver", "heads"),
        ("honeybee_resampler", "layers"),
        ("honeybee_resampler", "heads"),
        ("q_former", "cross_every"),
        ("c_abstractor", "hidden"),
        ("d_abstractor", "points"),
    ],
)
def test_sizes_below_one_are_refused(name, option):
    with pytest.raises(AssemblyError, match=rf"{name}: {option} is 0; take 1 or more"):
        build(name, **{option: 0})


@pytest.mark.parametrize("name", ["honeybee_resampler", "q_former", "d_abstractor"])
def test_heads_that_do_not_divide_the_width_are_refused(name):
    with pytest.raises(AssemblyError, match=rf"{name}: 3 heads do not divide the width 8; take a divisor of it"):
        build(name, heads=3)


def count(cls, *arguments, **options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in cls(*arguments, **options).parameters())


@pytest.mark.parametrize(
    ("cls", "width", "wanted"),
    [(Llm2ClipProjector, 1280, 273_769_728), (ProClipProjector, 1280, 273_732_864), (ProClipProjector, 768, 271_635_200)],
)
def test_parameter_counts_of_the_official_code(cls, width, wanted):
    assert count(cls, 4096, width) == wanted


@pytest.mark.parametrize(
    ("width_in", "width_out", "hidden", "wanted"),
    [(1024, 4096, None, 20_979_712), (1024, 5120, None, 31_467_520), (256, 4096, 1024, 4_461_568)],
)
def test_mlp_of_depth_two_is_llavas_projector_and_vpp_llavas(width_in, width_out, hidden, wanted):
    assert count(MlpProjector, width_in, width_out, depth=2, hidden=hidden) == wanted


def test_parameter_count_of_blip_2s_q_former_with_mblips_projection():
    with torch.device("meta"):
        projector = QFormerProjector(1408, 2048)
    assert sum(parameter.numel() for parameter in projector.body.parameters()) == 105_137_664
    assert projector.queries.shape == (32, 768)
    assert sum(parameter.numel() for parameter in projector.parameters()) == 106_737_152


def test_parameter_count_of_the_c_abstractor_by_hand():
    """Six blocks of 1 x 1, depthwise 3 x 3 and 1 x 1 convolutions, three norms, and a gate through a quarter of the channels."""
    wide = 1024
    block = 2 * wide * wide + 9 * wide + 3 * 2 * wide + 2 * wide * wide // 4 + wide // 4 + wide
    mlp = wide * 4096 + 4096 + 4096 * 4096 + 4096
    assert count(CAbstractor, wide, 4096, tokens_in=576) == 576 * wide + 6 * block + mlp


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
    with pytest.raises(RecipeError, match=r"options\.mode: expected .*bilinear"):
        fill(PROJECTORS.get("spatial_pool"), {"mode": "mean"}, "options", width_in=4, width_out=4)
    with pytest.raises(AssemblyError, match="use the projector 'linear'"):
        fill(PROJECTORS.get("mlp"), {"depth": 1}, "options", width_in=4, width_out=4)
    with pytest.raises(AssemblyError, match="identity cannot turn width 4 into 5; use the projector 'linear'"):
        fill(PROJECTORS.get("identity"), {}, "options", width_in=4, width_out=5)
    with pytest.raises(AssemblyError, match="did you mean 'linear'"):
        PROJECTORS.get("linaer")
