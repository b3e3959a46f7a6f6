"""Two gloo processes against one: loss, encoder gradient and scale gradient."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from modalign.zoo.losses.clip import ClipLoss
from modalign.zoo.losses.feature_distillation import FeatureDistillation
from modalign.zoo.losses.structure_distillation import StructureDistillation

WORLD = 2


def step(loss, x, y, weight, scale):
    """One step of a two-sided linear model: value and gradients."""
    weight, scale = weight.clone().requires_grad_(), scale.clone().requires_grad_()
    outputs = {
        "image_embedding": F.normalize(x @ weight, dim=-1),
        "text_embedding": F.normalize(y @ weight.T, dim=-1),
        "logit_scale": scale.exp(),
    }
    batch = {"teacher_image_embedding": F.normalize(y, dim=-1)}
    value = loss(outputs, batch).value
    value.backward()
    grads = [weight.grad, scale.grad if scale.grad is not None else torch.zeros(())]
    return value.detach(), grads


def losses():
    return [ClipLoss(), FeatureDistillation(gather=True), StructureDistillation(gather=True), FeatureDistillation()]


def worker(rank, store, tensors, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    x, y, weight, scale = tensors
    rows = slice(rank * len(x) // WORLD, (rank + 1) * len(x) // WORLD)
    found = []
    for loss in losses():
        value, grads = step(loss, x[rows], y[rows], weight, scale)
        for tensor in (value, *grads):  # what DDP and logging do
            dist.all_reduce(tensor)
            tensor /= WORLD
        found.append([value, *grads])
    if rank == 0:
        torch.save(found, results)
    dist.destroy_process_group()


def test_two_processes_equal_one(golden, tmp_path):
    data = golden("distributed_2proc")
    tensors = tuple(torch.tensor(data[name]) for name in ("x", "y", "W", "logit_scale_param"))
    mp.spawn(worker, (str(tmp_path / "store"), tensors, str(tmp_path / "results.pt")), nprocs=WORLD)
    clip, features, structure, local = torch.load(tmp_path / "results.pt", weights_only=True)

    np.testing.assert_allclose(clip[0].item(), data["clip_loss"], rtol=1e-9)
    np.testing.assert_allclose(clip[1], data["clip_gradW"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(clip[2].item(), data["clip_grad_ls"], rtol=1e-9)

    x, y, weight, scale = tensors
    for found, loss in ((features, FeatureDistillation()), (structure, StructureDistillation())):
        value, grads = step(loss, x, y, weight, scale)
        torch.testing.assert_close(found[0], value, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(found[1], grads[0], rtol=1e-9, atol=1e-10)
    # without gather: the mean over ranks of local sums, as documented
    assert local[0].item() == pytest.approx(features[0].item() / WORLD, rel=1e-9)
