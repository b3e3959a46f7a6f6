"""Helpers of the metric tests: unit vectors, and gloo ranks that stay up while a test module runs."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

_LOSSES = Path(__file__).parents[1] / "losses" / "conftest.py"


@pytest.fixture(scope="session")
def unit():
    """(rows, width, seed) -> unit vectors in float64."""

    def make(rows, width, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1)

    return make


@pytest.fixture(scope="session")
def rotation():
    """(width, seed) -> an orthogonal matrix."""

    def make(width, seed=4):
        generator = torch.Generator().manual_seed(seed)
        return torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator))[0]

    return make


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """World size -> gloo processes that run functions of a test module, `function(rank, world, *args)`; those of the loss tests."""
    module = runpy.run_path(str(_LOSSES))
    pools = {}

    def start(world):
        if world not in pools:
            pools[world] = module["Ranks"](world, tmp_path_factory.mktemp("metric_ranks") / "store")
        return pools[world]

    yield start
    for pool in pools.values():
        pool.stop()


@pytest.fixture
def largest_tensor():
    """Context whose `numel` is the size of the largest tensor made in it."""
    return runpy.run_path(str(_LOSSES))["LargestTensor"]
