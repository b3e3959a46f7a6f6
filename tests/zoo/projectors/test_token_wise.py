"""Projectors that work on each token alone, against their formulas, vector by vector."""

import math

import torch

from modalign.zoo.projectors.identity import IdentityProjector
from modalign.zoo.projectors.mlp import MlpProjector
from modalign.zoo.projectors.mlp_residual import MlpResidualProjector


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gelu(vector):
    """The exact one, by the error function of a single number."""
    return torch.tensor([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in vector.tolist()], dtype=vector.dtype)


def affine(layer, vector):
    return torch.stack([(row * vector).sum() for row in layer.weight]) + layer.bias


def normed(norm, vector):
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def shaken(module):
    """Norms away from 1 and 0, so that leaving one out is seen."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def test_identity_returns_the_very_features():
    features = draw(2, 3, 4)
    assert IdentityProjector(4, 4)(features) is features


def test_mlp_of_depth_two_is_linear_gelu_linear():
    projector = shaken(MlpProjector(4, 3).double().eval())
    first, _, _, second = projector.layers
    for x in draw(5, 4):
        torch.testing.assert_close(projector(x), affine(second, gelu(affine(first, x))))


def test_mlp_residual_adds_to_what_comes_out_of_the_norm():
    projector = shaken(MlpResidualProjector(4, 3, depth=3, blocks=2).double().eval())
    for x in draw(5, 4):
        hidden = affine(projector.layers[0], x)
        for index in (2, 4):
            hidden = affine(projector.layers[index], gelu(hidden))
        for block in projector.blocks:
            z = normed(block.norm, hidden)
            hidden = z + affine(block.layers[2], gelu(affine(block.layers[0], z)))
        torch.testing.assert_close(projector(x), hidden)


def test_mlp_residual_does_not_see_the_scale_in_front_of_its_first_norm():
    """After the norm nothing of the scale is left; a residual from before it would carry it on."""
    projector = MlpResidualProjector(4, 8, depth=1, blocks=1).double()
    torch.nn.init.zeros_(projector.layers[0].bias)
    projector.blocks[0].norm.eps = 0.0
    x = draw(3, 4)
    torch.testing.assert_close(projector(9 * x), projector(x))
