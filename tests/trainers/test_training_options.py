"""Layer decay, exemption from weight decay, averaged weights, exact accumulation, recomputed activations, compiled blocks."""

import csv
import itertools
import shutil

import pytest
import torch

from modalign.trainers import train
from modalign.trainers.build import build_family
from modalign.trainers.optim import build_optimizer
from modalign.trainers.recipe import StageConfig
from modalign.trainers.roles import select
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


def test_parts_and_recomputation_change_nothing(clip_stage, tmp_path):
    """Accumulation in chunks and gradient checkpointing: the same curve as the plain step."""
    plain = curve(train(clip_stage | {"run_dir": str(tmp_path / "plain")}))
    stage = clip_stage["stages"]["clip"]
    for name, change in (("parts", {"accumulate": 3}), ("again", {"grad_checkpointing": ["encoder", "embedder"]})):
        recipe = clip_stage | {"stages": {"clip": stage | change}, "run_dir": str(tmp_path / name)}
        assert curve(train(recipe)) == pytest.approx(plain, rel=1e-5)
    with pytest.raises(RecipeError, match="grad_checkpointing: 'head'"):
        train(clip_stage | {"stages": {"clip": stage | {"grad_checkpointing": ["head"]}}, "run_dir": str(tmp_path / "no")})


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.timeout(280)
def test_compiled_blocks_change_nothing(clip_stage, tmp_path):
    plain = train(clip_stage | {"run_dir": str(tmp_path / "plain")})
    fast = train(clip_stage | {"run_dir": str(tmp_path / "fast"), "trainer": clip_stage["trainer"] | {"compile": True}})
    assert curve(fast) == pytest.approx(curve(plain), rel=1e-4)
    assert set(weights(fast)) == set(weights(plain)), "names stay as they were"


def test_the_average_is_released_and_resumed(clip_stage, tmp_path, monkeypatch):
    """The released weights are the average of the steps' weights, also when the run stopped in between."""
    from modalign.trainers.task import TrainingTask

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
