"""What a rank does in the tests of stacks; loaded by path on each rank, so it imports nothing from its neighbours."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from modalign.trainers.parallel.sharded import shard_model, whole
from modalign.zoo.losses.next_token import NextTokenLoss
from modalign.zoo.registry import FAMILIES


def built(family, settings):
    """The stack with its image encoder frozen, the same on every rank, in float64."""
    torch.manual_seed(1)
    model = FAMILIES.get(family).from_settings(settings).double().eval()
    model.image.requires_grad_(False)
    if settings.get("lora"):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(model.role_of(name) in ("projector", "adapter"))
            if "lora_B" in name:
                parameter.data.normal_()
    return model


def gradients(model):
    """Name -> whole gradient of what trains."""
    return {name: None if p.grad is None else whole(p.grad).clone() for name, p in model.named_parameters() if p.requires_grad}


def step(rank, world, how, family, settings, batches):
    """One step of this rank's batch: (loss, gradients averaged over ranks)."""
    model = built(family, settings)
    if how == "ddp":
        run = DistributedDataParallel(model)
    else:
        shard_model(model, init_device_mesh("cpu", (world,)))
        run = model
    loss = NextTokenLoss()(run(batches[rank]), batches[rank]).value
    loss.backward()
    return loss.item(), gradients(model)


def state_behind_a_step(rank, world, family, settings, batches):
    """Whole weights after one step of plain descent, sharded."""
    model = built(family, settings)
    shard_model(model, init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    NextTokenLoss()(model(batches[rank]), batches[rank]).value.backward()
    optimizer.step()
    return {name: whole(value).clone() for name, value in model.state_dict().items()}
