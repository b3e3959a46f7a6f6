"""GradCache: gradients of the whole batch from chunks, with dropout, a learned scale, autocast, several ranks and every wrapper."""

import contextlib

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modalign.zoo.errors import AssemblyError
from modalign.zoo.losses.clip import ClipLoss
from modalign.zoo.losses.grad_cache import cached_forward
from modalign.zoo.losses.parts.chunks import split_rows
from modalign.zoo.losses.siglip import SigLipLoss

ROWS = 8
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


class Model(nn.Module):
    """Two towers with dropout, a scale and a bias; counts how often it runs."""

    def __init__(self, dropout=0.0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        for name in ("image", "text"):
            tower = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Dropout(dropout), nn.Linear(12, 5)).to(dtype)
            for parameter in tower.parameters():
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
            setattr(self, name, tower)
        self.logit_scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0, dtype=dtype))
        self.runs = 0

    def forward(self, batch):
        self.runs += 1
        return {
            "image_embedding": F.normalize(self.image(batch["image"]).float().to(batch["image"].dtype), dim=-1),
            "text_embedding": F.normalize(self.text(batch["text"]).float().to(batch["text"].dtype), dim=-1),
            "logit_scale": self.logit_scale.exp(),
            "logit_bias": self.logit_bias,
        }

    def grads(self):
        return {name: p.grad.detach().clone().numpy() for name, p in self.named_parameters() if p.grad is not None}


def inputs(dtype=torch.float64, rows=ROWS):
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(rows, 6, generator=generator, dtype=torch.float64).to(dtype) for name in ("image", "text")}


def with_graph(model, chunks, loss):
    """The oracle: all chunks with their graphs at once, put together, one loss."""
    parts = [model(chunk) for chunk in chunks]
    outputs = {name: torch.cat([part[name] for part in parts]) for name in ("image_embedding", "text_embedding")}
    value = loss(parts[0] | outputs, {}).value
    value.backward()
    return value.item()


def same(have, want, **close):
    assert have.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(have[name], want[name], err_msg=name, **(close or CLOSE))
        assert np.abs(want[name]).max() > 0


WAYS = {"accumulated": lambda model: None, "through the graph": lambda model: list(model.parameters())}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 2, 3, ROWS])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_those_of_the_whole_batch(way, rows, dropout):
    chunks = split_rows(inputs(), rows)
    oracle, model = Model(dropout), Model(dropout)
    torch.manual_seed(3)
    wanted = with_graph(oracle, chunks, SigLipLoss())
    between, after = torch.rand(3), torch.rand(3)
    torch.manual_seed(3)
    value = SigLipLoss()(cached_forward(model, chunks, parameters=WAYS[way](model)), {}).value
    assert torch.equal(torch.rand(3), between)
    value.backward()
    assert torch.equal(torch.rand(3), after)  # the second pass leaves no trace in the generator
    assert value.item() == pytest.approx(wanted, rel=1e-12) and model.runs == 2 * len(chunks)
    same(model.grads(), oracle.grads())
    if dropout:  # and the draws do matter: other ones give other gradients
        other = Model(dropout)
        with_graph(other, chunks, SigLipLoss())
        assert np.abs(other.grads()["image.0.weight"] - model.grads()["image.0.weight"]).max() > 1e-4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_gradients_equal_the_official_ones_and_the_scale_counts_once(golden, leaf, way, rows):
    data = golden("accum_gradcache")
    weight, scale = nn.Parameter(torch.tensor(data["W"])), nn.Parameter(torch.tensor(data["logit_scale_param"]))

    def forward(chunk):
        x, y = chunk
        return {
            "image_embedding": F.normalize(x @ weight, dim=-1),
            "text_embedding": F.normalize(y @ weight.T, dim=-1),
            "logit_scale": scale.exp(),
        }

    chunks = list(zip(torch.tensor(data["x"]).split(rows), torch.tensor(data["y"]).split(rows), strict=True))
    outputs = cached_forward(forward, chunks, parameters=None if way == "accumulated" else [weight, scale])
    value = ClipLoss()(outputs, {}).value
    value.backward()
    np.testing.assert_allclose(value.item(), data["full_loss"], rtol=1e-9)
    for prefix in ("full", "gradcache_chunk2"):
        np.testing.assert_allclose(weight.grad, data[f"{prefix}_gradW"], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(scale.grad, data[f"{prefix}_grad_ls"], rtol=1e-9)
    np.testing.assert_allclose(weight.grad, data["openclip_accum2_gradW"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(data["openclip_accum2_grad_ls"] / scale.grad, 2.0)  # what is avoided here


@pytest.mark.parametrize("way", WAYS)
def test_the_second_pass_runs_under_the_same_autocast_although_backward_runs_outside(way):
    chunks = split_rows(inputs(torch.float32), 3)
    oracle, model = Model(0.3, torch.float32), Model(0.3, torch.float32)
    for each, run in (
        (oracle, lambda: [oracle(chunk) for chunk in chunks]),
        (model, lambda: [cached_forward(model, chunks, parameters=WAYS[way](model))]),
    ):
        torch.manual_seed(4)
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=each is model):  # else the oracle sums up in bfloat16
            parts = run()
            outputs = parts[0] | {
                name: torch.cat([part[name] for part in parts]) for name in ("image_embedding", "text_embedding")
            }
            value = SigLipLoss()(outputs, {}).value
            live = each.image(chunks[0]["image"])  # casts made without gradients must not be handed to this
        assert live.requires_grad and live.grad_fn is not None
        value.backward()
    same(model.grads(), oracle.grads(), rtol=1e-6, atol=1e-8)
    plain = Model(0.3, torch.float32)
    torch.manual_seed(4)
    with_graph(plain, chunks, SigLipLoss())
    assert np.abs(plain.grads()["image.0.weight"] - model.grads()["image.0.weight"]).max() > 1e-5  # bfloat16 does matter


def test_only_the_entries_asked_for_are_kept_and_the_scalars():
    chunks = split_rows(inputs(), 3)
    outputs = cached_forward(Model(), chunks, keys={"text_embedding"})
    assert set(outputs) == {"text_embedding", "logit_scale", "logit_bias"} and outputs["text_embedding"].shape == (ROWS, 5)


def test_a_frozen_part_and_an_unused_entry_get_no_gradient():
    for way in WAYS.values():
        model = Model()
        model.image.requires_grad_(False)
        value = ClipLoss()(cached_forward(model, split_rows(inputs(), 3), parameters=way(model)), {}).value
        value.backward()
        assert {name.split(".")[0] for name in model.grads()} == {"text", "logit_scale", "logit_bias"}
        oracle = Model()
        with_graph(oracle, [inputs()], ClipLoss())
        np.testing.assert_allclose(model.grads()["text.0.weight"], oracle.grads()["text.0.weight"], **CLOSE)

        model = Model()
        cached_forward(model, split_rows(inputs(), 3), parameters=way(model))["text_embedding"].sum().backward()
        assert {name.split(".")[0] for name in model.grads()} == {"text"}


def test_gradients_add_to_what_is_there_already():
    for way in WAYS.values():
        model, oracle = Model(), Model()
        for _ in range(2):
            ClipLoss()(cached_forward(model, split_rows(inputs(), 2), parameters=way(model)), {}).value.backward()
            with_graph(oracle, [inputs()], ClipLoss())
        grads, wanted = model.grads(), oracle.grads()
        assert not wanted.pop("logit_bias") and not grads.pop("logit_bias")  # CLIP's loss does not depend on it
        same(grads, wanted)


def test_without_gradient_mode_the_outputs_have_no_graph():
    model = Model()
    with torch.no_grad():
        outputs = cached_forward(model, split_rows(inputs(), 3), parameters=model.parameters())
        wanted = model(inputs())
    for name, value in outputs.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, wanted[name])


def test_whole_numbers_among_the_outputs_are_passed_on():
    model, chunks = Model(), split_rows(inputs() | {"labels": torch.arange(8)}, 3)
    outputs = cached_forward(lambda chunk: model(chunk) | {"labels": chunk["labels"], "note": "x"}, chunks)
    assert torch.equal(outputs["labels"], torch.arange(8)) and "note" not in outputs
    outputs["text_embedding"].sum().backward()
    assert model.runs == 2 * len(chunks)


def test_chunks_that_do_not_fit_together_are_refused():
    with pytest.raises(AssemblyError, match="no chunks"):
        cached_forward(Model(), [])
    with pytest.raises(AssemblyError, match=r"'x' has the shapes \(2, 3\), \(2, 4\) in the chunks; pad"):
        cached_forward(lambda width: {"x": torch.zeros(2, width)}, [3, 4])
    with pytest.raises(AssemblyError, match="different outputs"):
        cached_forward(lambda name: {name: torch.zeros(2)}, ["a", "b"])


def test_a_batch_is_cut_by_samples():
    batch = {
        "image": torch.arange(5),
        "negative_text": torch.arange(10),
        "keys": ["a", "b", "c", "d", "e"],
        "image_cut": "blocks.3",
        "number": torch.tensor(7),
    }
    chunks = split_rows(batch, 2)
    assert [chunk["image"].tolist() for chunk in chunks] == [[0, 1], [2, 3], [4]]
    assert [chunk["negative_text"].tolist() for chunk in chunks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [chunk["keys"] for chunk in chunks] == [["a", "b"], ["c", "d"], ["e"]]
    assert all(chunk["image_cut"] == "blocks.3" and chunk["number"] == 7 for chunk in chunks)
    with pytest.raises(AssemblyError, match="'negative_text' has 9 rows, which is no multiple of the batch's 5 samples"):
        split_rows(batch | {"negative_text": torch.arange(9)}, 2)
    with pytest.raises(AssemblyError, match="chunks of 0 rows"):
        split_rows(batch, 0)


# over ranks: the model wrapped as it is in practice, a loss over all ranks


class Step(nn.Module):
    """What a trainer wraps: its forward is the whole training step and returns the loss."""

    def __init__(self, model, loss, rows):
        super().__init__()
        self.model, self.loss, self.rows = model, loss, rows

    def forward(self, batch):
        chunks = split_rows(batch, self.rows)
        return self.loss(cached_forward(self.model, chunks, parameters=self.model.parameters()), {}).value


def own_part(rank, world):
    return {name: value[rank * ROWS // world : (rank + 1) * ROWS // world] for name, value in inputs().items()}


def counted(wrapped):
    """Number of gradient exchanges so far, as a list to look at later."""
    seen = []

    def hook(state, bucket):
        seen.append(bucket.index())
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0] / dist.get_world_size())

    wrapped.register_comm_hook(None, hook)
    return seen


def inside_of_the_wrapper(rank, world, rows):
    step = DistributedDataParallel(Step(Model(), SigLipLoss(), rows))
    exchanges = counted(step)
    step(own_part(rank, world)).backward()
    return step.module.model.grads(), len(exchanges)


def by_hand(rank, world, rows):
    model = DistributedDataParallel(Model())
    exchanges = counted(model)
    chunks = split_rows(own_part(rank, world), rows)
    SigLipLoss()(cached_forward(model, chunks, no_sync=model.no_sync), {}).value.backward()
    return model.module.grads(), len(exchanges)


def with_an_unused_parameter(rank, world, rows):
    model = Model()
    model.image.requires_grad_(False)
    model.extra = nn.Parameter(torch.zeros(2))
    step = DistributedDataParallel(Step(model, SigLipLoss(), rows), find_unused_parameters=True)
    step(own_part(rank, world)).backward()
    step(own_part(rank, world)).backward()  # the second step is where DDP complains about the first
    return model.grads(), 1


def sharded(rank, world, rows):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Model()
    scalars = {name: nn.Parameter(getattr(model, name).data[None].repeat(2)) for name in ("logit_scale", "logit_bias")}
    for name, parameter in scalars.items():  # two equal numbers, because a shard needs at least one
        setattr(model, name, parameter)
    plain = model.forward

    def forward(batch):
        outputs = plain(batch)
        return outputs | {name: outputs[name].mean() for name in scalars}

    model.forward = forward
    mesh = init_device_mesh("cpu", (world,))
    for tower in (model.image, model.text):
        fully_shard(tower, mesh=mesh)
    fully_shard(model, mesh=mesh)
    chunks = split_rows(own_part(rank, world), rows)
    SigLipLoss()(cached_forward(model, chunks), {}).value.backward()
    grads = {name: parameter.grad.full_tensor().detach() for name, parameter in model.named_parameters()}
    return {name: (grad.sum() if name in scalars else grad).numpy() for name, grad in grads.items()}, 1


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("way", ["inside_of_the_wrapper", "by_hand", "sharded"])
def test_two_ranks_equal_one_process_and_exchange_gradients_once(ranks, way, rows):
    oracle = Model()
    with_graph(oracle, [inputs()], SigLipLoss())
    for grads, exchanges in ranks(2).run(__file__, way, rows):
        same(grads, oracle.grads())
        assert exchanges == 1


def test_ddp_is_content_with_parameters_that_get_no_gradient(ranks):
    oracle = Model()
    with_graph(oracle, [inputs()], SigLipLoss())
    for grads, _ in ranks(2).run(__file__, "with_an_unused_parameter", 2):
        np.testing.assert_allclose(grads["text.0.weight"], 2 * oracle.grads()["text.0.weight"], **CLOSE)
        assert not any(name.startswith("image") for name in grads)


def test_lightnings_automatic_optimisation_needs_nothing_else(tmp_path):
    import lightning.pytorch as pl

    class Task(pl.LightningModule):
        def __init__(self, rows):
            super().__init__()
            self.model, self.rows = Model(0.4), rows

        def training_step(self, batch, index):
            torch.manual_seed(9)
            chunks = split_rows(batch, self.rows)
            outputs = cached_forward(self.model, chunks, parameters=self.parameters())
            return SigLipLoss()(outputs, {}).value

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    task = Task(3)
    oracle = Model(0.4)
    torch.manual_seed(9)
    with_graph(oracle, split_rows(inputs(), 3), SigLipLoss())
    wanted = {name: p.detach().numpy() - 0.1 * p.grad.numpy() for name, p in oracle.named_parameters()}
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with contextlib.redirect_stdout(None):
        trainer = pl.Trainer(accelerator="cpu", devices=1, max_steps=1, default_root_dir=tmp_path, **options)
        trainer.fit(task, torch.utils.data.DataLoader([inputs()], batch_size=None))
    same({name: p.detach().numpy() for name, p in task.model.named_parameters()}, wanted)
