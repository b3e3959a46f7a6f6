"""Helpers of the loss tests: unit vectors, leaves, and ranks that stay up while a test module runs."""

import multiprocessing
import pickle
import runpy
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

WORKER = str(Path(__file__).with_name("rank_worker.py"))
LIMIT = 120  # seconds until a silent rank counts as hanging


class RanksFailed(Exception):
    """A rank raised, or fell silent; holds every traceback there is."""


class Ranks:
    """Gloo processes that run functions of a test module, all at the same time; `functions(rank, world, *args)`."""

    def __init__(self, world, store):
        self.world = world
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "torch.distributed"])
        self.pipes, self.processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            job = {"JOB": (rank, world, str(store), theirs)}
            process = context.Process(target=runpy.run_path, args=(WORKER, job, "rank_worker"), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, file, function, *args):
        """What the function of that file returns on each rank."""
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps((file, function, args)))
        results, deadline = {}, time.monotonic() + LIMIT
        while len(results) < self.world and time.monotonic() < deadline:
            for rank, pipe in enumerate(self.pipes):
                if rank not in results and pipe.poll(0.01):
                    results[rank] = pickle.loads(pipe.recv_bytes())
                    if not results[rank][0]:  # the others may wait for it for ever: give them a moment, then stop
                        deadline = min(deadline, time.monotonic() + 2)
        if len(results) < self.world or not all(good for good, _ in results.values()):
            self.stop()
            told = [text for good, text in results.values() if not good] or ["no rank said anything"]
            raise RanksFailed("\n".join(told))
        return [results[rank][1] for rank in range(self.world)]

    @property
    def alive(self):
        return bool(self.processes)

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
        self.processes = []


@pytest.fixture(scope="session")
def rank_pools():
    pools = {}
    yield pools
    for pool in pools.values():
        pool.stop()


@pytest.fixture
def ranks(rank_pools, tmp_path_factory):
    """World size -> `Ranks`, started once and used by all tests."""

    def start(world):
        if world not in rank_pools or not rank_pools[world].alive:
            rank_pools[world] = Ranks(world, tmp_path_factory.mktemp("ranks") / "store")
        return rank_pools[world]

    return start


@pytest.fixture(scope="session")
def unit():
    """(rows, width, seed) -> unit vectors in float64."""

    def make(rows, width, seed):
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1)

    return make


@pytest.fixture(scope="session")
def leaf():
    """Numbers -> a float64 tensor that wants a gradient."""
    return lambda array: torch.as_tensor(array, dtype=torch.float64).clone().requires_grad_()


@pytest.fixture(scope="session")
def rotation():
    """width -> an orthogonal matrix."""
    return lambda width: torch.linalg.qr(
        torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    )[0]


class LargestTensor(TorchDispatchMode):
    """Size of the largest tensor that any operation makes inside of the context, backward passes included, and the operations."""

    def __init__(self):
        super().__init__()
        self.numel = 0
        self.operations = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.add(str(function))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.fixture
def largest_tensor():
    """Context whose `numel` is the size of the largest tensor made in it."""
    return LargestTensor


@pytest.fixture(scope="session")
def kept_for_backward():
    """function -> how many numbers autograd keeps between its forward and its backward pass."""

    def count(function):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            function()
        return sum(sizes)

    return count


@pytest.fixture(scope="session")
def same_gradients():
    """(function, other function, leaves): both give the same value and the same gradients of all leaves."""

    def check(function, other, *leaves, rtol=1e-10, atol=1e-12):
        first, second = function(*leaves), other(*leaves)
        torch.testing.assert_close(first, second, rtol=rtol, atol=atol)
        for have, want in zip(torch.autograd.grad(first, leaves), torch.autograd.grad(second, leaves), strict=True):
            torch.testing.assert_close(have, want, rtol=rtol, atol=atol)
            assert want.abs().max() > 0

    return check
