"""Layer decay, exemption from weight decay, averaged weights, exact accumulation, recomputed activations, compiled blocks."""

import csv
import itertools
import shutil
from collections import Counter

import pytest
import torch

from modalign.trainers import train
from modalign.trainers.build import build_family
from modalign.trainers.optim import build_optimizer
from modalign.trainers.parallel.units import blocks_of
from modalign.trainers.recipe import StageConfig
from modalign.trainers.roles import select
from modalign.trainers.task import TrainingTask
from modalign.zoo.errors import RecipeError


@pytest.fixture
def vit_model(tiny_model):
    tiny_model = tiny_model | {"image": {"name": "timm:test_vit", "pretrained": False}}
    return build_family(tiny_model, "model")


def options_of(model, stage):
    """Parameter name -> (learning rate, weight decay) as the optimiser has them."""
    trained = select(model, stage.train, "s")
    optimizer = build_optimizer(model, trained, stage)
    names = {id(entry.parameter): entry.name for entry in trained}
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(trained), "every parameter is in exactly one group"
    return found


def test_layer_decay_falls_from_the_output_to_the_input(vit_model):
    stage = StageConfig(train={"encoder": 1.0, "head": 0.5}, losses={"clip": {}}, layer_decay={"encoder": 0.5})
    rates = {name: lr for name, (lr, _) in options_of(vit_model, stage).items()}
    blocks = [rates[f"image.trunk.blocks.{number}.attn.qkv.weight"] for number in range(len(vit_model.image.trunk.blocks))]
    assert len(blocks) == 6 and blocks[-1] == 1.0, "timm counts the last norm to the last block"
    assert all(upper == pytest.approx(2 * lower) for lower, upper in itertools.pairwise(blocks))
    assert rates["image.trunk.patch_embed.proj.weight"] == pytest.approx(blocks[0] / 2) == rates["image.trunk.pos_embed"]


def test_what_is_not_decayed(vit_model):
    stage = StageConfig(
        train={"encoder": 1.0, "projector": 1.0}, losses={"clip": {}}, weight_decay=0.1, no_decay=["text_projector.*"]
    )
    decays = {name: decay for name, (_, decay) in options_of(vit_model, stage).items()}
    assert decays["image.trunk.blocks.0.attn.qkv.weight"] == 0.1
    exempt = [
        "image.trunk.pos_embed",
        "image.trunk.cls_token",
        "image.trunk.blocks.0.norm1.weight",
        "image.trunk.blocks.0.attn.qkv.bias",
    ]
    exempt += [name for name in decays if name.startswith("text_projector.")]
    assert {decays[name] for name in exempt} == {0.0}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer_decay": {"projector": 0.5}}, "layer_decay: projector: .*encoder"),
        ({"layer_decay": {"encoder": 1.5}}, "factor is above 0"),
        ({"layer_decay": {"head": 0.5}}, "no encoder with numbered layers"),
        ({"no_decay": ["nothing.*"]}, "no_decay: 'nothing"),
    ],
)
def test_wrong_options_are_named(vit_model, change, message):
    stage = StageConfig(train={"encoder": 1.0, "head": 1.0}, losses={"clip": {}}, **change)
    with pytest.raises(RecipeError, match=message):
        options_of(vit_model, stage)


@pytest.fixture
def clip_stage(tiny_recipe):
    """One stage that trains both towers without anything random in the forward pass."""
    tiny_recipe["stages"] = {
        "clip": tiny_recipe["stages"]["teacher"]
        | {"train": {"encoder": 1e-3, "embedder": 1e-3, "head": 1e-3, "aux": 1e-3}, "losses": {"clip": {}}, "epochs": 2}
    }
    tiny_recipe["stages"]["clip"]["model"]["image"] = {"name": "timm:test_vit", "pretrained": False}
    tiny_recipe["evaluate"] = None
    return tiny_recipe


def curve(run):
    with (run / "metrics.csv").open() as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream) if row.get("loss")]


def weights(run):
    from safetensors.torch import load_file

    return load_file(run / "release" / "model.safetensors")


@pytest.fixture
def at_start(monkeypatch):
    """Has a function called with the task of every stage that starts from here on."""

    def register(look):
        before = TrainingTask.on_train_start

        def on_train_start(self):
            before(self)
            look(self)

        monkeypatch.setattr(TrainingTask, "on_train_start", on_train_start)

    return register


@pytest.fixture
def passes(at_start):
    """How often what lies before the blocks of each encoder, and its first block, was entered since this was last cleared."""
    counts = Counter()

    def count(task):
        image, text = task.model.image.trunk, task.model.text.model
        watched = {"image": image.patch_embed, "image block": image.blocks[0]}
        watched |= {"text": text.token_embedding, "text block": text.transformer.resblocks[0]}
        for name, module in watched.items():  # before, not after: a recomputation may stop inside, at the last tensor it needs
            module.register_forward_pre_hook(lambda *_, name=name: counts.update([name]))

    at_start(count)
    return counts


#: change of the stage -> how often a step enters image encoder, its first block, text encoder, its first block
PASSES = {
    "plain": ({}, (1, 1, 1, 1)),
    "parts": ({"accumulate": 3}, (6, 6, 6, 6)),  # each without a graph, then with one
    "again": ({"grad_checkpointing": ["encoder", "embedder"]}, (1, 2, 1, 2)),
    "image_again": ({"grad_checkpointing": ["encoder"]}, (1, 2, 1, 1)),
}


def test_parts_and_recomputation_change_nothing(clip_stage, tmp_path, passes):
    """Accumulation in chunks and gradient checkpointing: the same curve as the plain step, and it is really done in parts, or again."""
    curves, stage = {}, clip_stage["stages"]["clip"]
    for name, (change, expected) in PASSES.items():
        passes.clear()
        recipe = clip_stage | {"stages": {"clip": stage | change}, "run_dir": str(tmp_path / name)}
        curves[name] = curve(train(recipe))
        counts = tuple(passes[key] for key in ("image", "image block", "text", "text block"))
        assert counts == tuple(10 * number for number in expected), name
        assert len(curves[name]) == 10 and curves[name] == pytest.approx(curves["plain"], rel=1e-5), name
    with pytest.raises(RecipeError, match="grad_checkpointing: 'head'"):
        train(clip_stage | {"stages": {"clip": stage | {"grad_checkpointing": ["head"]}}, "run_dir": str(tmp_path / "no")})


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.timeout(280)
def test_compiled_blocks_change_nothing(clip_stage, tmp_path, at_start):
    compiled = []
    at_start(lambda task: compiled.append([block._compiled_call_impl is not None for block in blocks_of(task.model)]))
    plain = train(clip_stage | {"run_dir": str(tmp_path / "plain")})
    fast = train(clip_stage | {"run_dir": str(tmp_path / "fast"), "trainer": clip_stage["trainer"] | {"compile": True}})
    assert compiled == [[False] * 6, [True] * 6], "the six blocks of the image encoder"
    assert curve(fast) == pytest.approx(curve(plain), rel=1e-4)
    assert set(weights(fast)) == set(weights(plain)), "names stay as they were"


def test_the_average_is_released_and_resumed(clip_stage, tmp_path, monkeypatch):
    """The released weights are the average of the steps' weights, also when the run stopped in between."""
    clip_stage["stages"]["clip"]["ema"] = 0.5
    seen = []
    original = TrainingTask.on_train_batch_start

    def watch(self, batch, index):
        seen.append((self.global_step, self.model.image_projector.linear.weight.detach().clone()))
        return original(self, batch, index)

    monkeypatch.setattr(TrainingTask, "on_train_batch_start", watch)
    run = train(clip_stage | {"run_dir": str(tmp_path / "whole")})
    averaged = weights(run)["image_projector.linear.weight"]

    final = train_without_average(clip_stage, tmp_path)
    steps = [weight for _, weight in seen[1:]] + [final]
    expected = steps[0]
    for weight in steps[1:]:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(averaged, expected)
    assert not torch.allclose(averaged, final)

    def cut(self, batch, index):
        if self.global_step == 7:
            raise RuntimeError("power cut")

    monkeypatch.setattr(TrainingTask, "on_train_batch_start", cut)
    part = clip_stage | {"run_dir": str(tmp_path / "part")}
    with pytest.raises(RuntimeError, match="power cut"):
        train(part)
    monkeypatch.setattr(TrainingTask, "on_train_batch_start", original)
    torch.testing.assert_close(weights(train(part)), weights(run))


def train_without_average(recipe, tmp_path):
    stage = recipe["stages"]["clip"] | {"ema": None}
    run = train(recipe | {"stages": {"clip": stage}, "run_dir": str(tmp_path / "plain")})
    return weights(run)["image_projector.linear.weight"]


def test_averages_do_not_go_with_shards(clip_stage):
    clip_stage["stages"]["clip"]["ema"] = 0.5
    clip_stage["trainer"]["strategy"] = "fsdp"
    with pytest.raises(RecipeError, match="not kept for a sharded model"):
        train(clip_stage)
