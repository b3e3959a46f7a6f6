"""Heads of time-series models, the match with a dictionary, and channel tokens, each against torch's own or loops."""

import pytest
import torch
from torch import nn

from modalign.zoo.encoders.series.channel_tokens import ChannelTokens
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.heads.linear import ClassHead, LinearHead
from modalign.zoo.heads.quantile import QuantileHead
from modalign.zoo.projectors.cross_match import CrossMatch


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_map_for_all_channels():
    head, states = LinearHead(6, 4), draw(2, 3, 6)
    found = head(states)
    assert found.shape == (2, 4, 3)
    for channel in range(3):
        torch.testing.assert_close(found[..., channel], head.linear(states[:, channel]))


def test_classes_from_all_states_in_order():
    head, states = ClassHead(6, 3, 5), draw(2, 3, 6)
    wanted = torch.stack([head.linear.weight @ torch.cat(list(row)) + head.linear.bias for row in states])
    torch.testing.assert_close(head(states), wanted)


def test_quantiles_are_the_sorted_outputs_of_one_map():
    head, states = QuantileHead(6, 4, [0.25, 0.5, 0.75]), draw(2, 3, 6)
    found = head(states)
    assert found.shape == (2, 4, 3, 3) and head.median == 1
    raw = head.linear(states).view(2, 3, 4, 3)
    assert (raw.diff(dim=-1) < 0).any()  # it would cross without sorting
    for b in range(2):
        for c in range(3):
            for h in range(4):
                assert found[b, h, c].tolist() == sorted(raw[b, c, h].tolist())
    with pytest.raises(RecipeError, match=r"must increase between 0 and 1 and have 0\.5"):
        QuantileHead(6, 4, [0.5, 0.4])


def test_the_match_is_torchs_attention_over_the_dictionary():
    torch.manual_seed(0)
    match, tokens, words = CrossMatch(12, 3), draw(4, 5, 12), draw(7, 12, seed=2)
    nn.init.normal_(match.attention.in_proj_bias)
    nn.init.normal_(match.attention.out_proj.bias)
    memory = words.expand(4, 7, 12)
    wanted = match.attention(tokens, memory, memory, need_weights=False)[0]
    torch.testing.assert_close(match(tokens, words), wanted, rtol=1e-5, atol=1e-6)
    assert (match.width_in, match.width_out, match.num_tokens(5)) == (12, 12, 5)
    with pytest.raises(AssemblyError, match="none was given"):
        match(tokens)
    with pytest.raises(AssemblyError, match="5 do not divide the language model's width 12"):
        CrossMatch(12, 5)


def test_channel_tokens_are_one_linear_layer_and_torchs_encoder_layer():
    torch.manual_seed(0)
    tokens, values = ChannelTokens(9, 12, heads=3, ffn=20).eval(), draw(2, 9, 4)
    wanted = tokens.mixer(tokens.linear(values.transpose(1, 2)))
    assert torch.equal(tokens(values), wanted)
    assert not tokens.mixer.norm_first and tokens.mixer.activation is nn.functional.relu
    order = [2, 0, 3, 1]
    torch.testing.assert_close(tokens(values[..., order]), wanted[:, order], rtol=1e-5, atol=1e-6)  # channels are a set here
    with pytest.raises(AssemblyError, match="looks back 9 steps, a window of 8 was given"):
        tokens(values[:, :8])
    with pytest.raises(AssemblyError, match="do not divide"):
        ChannelTokens(9, 12, heads=5)


def test_covariates_come_first():
    torch.manual_seed(0)
    tokens = ChannelTokens(9, 12, heads=3, ffn=20, known_length=11).eval()
    values, known = draw(2, 9, 4), draw(2, 11, 2, seed=2)
    channels = tokens.linear(values.transpose(1, 2))
    wanted = tokens.mixer(torch.cat([tokens.known(known.transpose(1, 2)), channels[:, 3:], channels[:, :3]], 1))
    assert torch.equal(tokens(values, 3, known), wanted)
    with pytest.raises(AssemblyError, match="10 steps were given, the model takes 11 steps"):
        tokens(values, 3, known[:, 1:])
