"""Every family and every source of encoders trains by recipe: a few steps, a release, and the release loads exactly."""

import copy
import re
from pathlib import Path

import pytest
import torch
import yaml

from modalign import zoo
from modalign.trainers import train
from modalign.trainers.recipe import load_recipe
from modalign.zoo.checkpoints.release import read_release
from modalign.zoo.errors import RecipeError
from modalign.zoo.registry import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
DATA = {"batch_size": 10, "languages": ["en"]}
TRAINER = {"accelerator": "cpu", "progress": False, "checkpoint_every": 100}
CLIP = {"clip": {}}
TEXTS = ["thing number 3", "item 7"]


@pytest.fixture
def run(tiny_shards, tmp_path, own_home):
    def go(model=None, *, name="run", stage=None, **recipe):
        stage = {"losses": CLIP, "steps": 2, "keep": "full", **(stage or {})}
        values = {"data": {"train": str(tiny_shards), **DATA}, "stages": {"one": stage}, "trainer": TRAINER, **recipe}
        return train({**values, **({"model": model} if model else {})}, run_dir=str(tmp_path / name))

    return go


def moved(before, after):
    """Names of the tensors that differ."""
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


ROLES = {"encoder": 1e-3, "head": 1e-3, "embedder": 1e-3, "projector": 1e-3, "aux": 1e-3}


@pytest.mark.parametrize("layout", ["timm_mlp", "hf_text"])
def test_init_from_an_open_clip_checkpoint(layout, run, open_clip_folder):
    """No model in the recipe: the checkpoint says what it is."""
    before = zoo.load(open_clip_folder(layout))
    roles = {before.role_of(name) for name, _ in before.named_parameters()}
    losses = {"siglip": {}} if layout == "siglip" else CLIP
    stage = {"train": {role: lr for role, lr in ROLES.items() if role in roles}, "losses": losses}
    folder = run(stage=stage, init_from=f"local-dir:{open_clip_folder(layout)}")
    after = zoo.load(folder)
    assert type(after) is type(before)
    assert {after.role_of(name) for name in moved(before, after) if name in dict(after.named_parameters())} == roles
    assert after.image.preprocess == before.image.preprocess
    assert after.encode_text(TEXTS).shape == (2, before.config.embed_dim)


def test_finetuning_projections_with_cached_features(run, open_clip_folder):
    """The tower's own projections are head and projector, so what is below them is computed once and kept."""
    before = zoo.load(open_clip_folder("native"))
    stage = {
        "train": {"head": 1e-3, "projector": 1e-3},
        "cache": {"image": "output", "text": True},
        "keep": "adapter",
        "teacher": "self",
    }
    losses = {"clip": {}, "instance": {"loss": "feature_distillation", "weight": 0.1, "reduction": "mean"}}
    folder = run(stage={**stage, "losses": losses}, init_from=f"local-dir:{open_clip_folder('native')}")
    assert moved(before, zoo.load(folder)) == {"image_projector.weight", "text_projector.weight"}
    release = read_release(folder / "stages" / "one" / "release")[1]
    assert (release["kind"], release["parts"]["image"]["included"], release["parts"]["text"]["included"]) == (
        "adapter",
        False,
        False,
    )


def test_cut_between_blocks_of_an_open_clip_tower(run, open_clip_folder):
    before = zoo.load(open_clip_folder("native"))
    stage = {
        "train": {"encoder:transformer.resblocks.1.*": 1e-3, "encoder:ln_post.*": 1e-3, "head": 1e-3},
        "cache": {"image": "blocks.1"},
    }
    after = zoo.load(run(stage=stage, init_from=f"local-dir:{open_clip_folder('native')}"))
    assert {name.split(".")[1:4][-1] for name in moved(before, after) if "resblocks" in name} == {"resblocks"}
    assert all(".resblocks.1." in name or "ln_post" in name or name == "image_projector.weight" for name in moved(before, after))


def test_towers_by_name_with_an_embedder(run, open_clip_folder, tiny_embedder):
    """ProCLIP's shape: an open_clip image tower with its own projection, an embedder, a projector of this zoo."""
    model = {
        "family": "proclip",
        "embed_dim": 16,
        "image": {"name": f"local-dir:{open_clip_folder('native')}"},
        "image_projector": None,
        "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 16},
        "text_projector": {"name": "proclip", "options": {"expansion": 2}},
    }
    stage = {
        "train": {"projector": 1e-3},
        "teacher": f"local-dir:{open_clip_folder('native')}",
        "losses": {
            "instance": {"loss": "feature_distillation", "student": "text_embedding", "teacher": "teacher_text_embedding"}
        },
        "cache": {"text": True, "teacher_text": True},
    }
    after = zoo.load(run(model, stage=stage))
    before = FAMILIES.get("proclip").from_settings({key: value for key, value in model.items() if key != "family"})
    assert all(name.startswith("text_projector.") for name in moved(before, after))


@pytest.mark.parametrize("family", ["siglip", "lit", "longclip", "coca"])
def test_families(family, run, family_settings):
    model = {"family": family, **family_settings(family)}
    stages = {
        "siglip": {
            "train": {"head": 1e-3, "projector": 1e-3, "aux": 1e-2},
            "losses": {"siglip": {}},
            "cache": {"image": "output"},
        },
        "lit": {"train": {"head": 1e-3, "projector": 1e-3}, "cache": {"image": "output", "text": True}},
        "longclip": {"train": ROLES, "losses": {"long_clip": {"components": 4}}, "data": {"second_caption": "first_sentence"}},
        "coca": {"train": {**ROLES, "language": 1e-3}, "losses": {"clip": {}, "caption": {"weight": 2.0}}},
    }
    before = FAMILIES.get(family).from_settings(family_settings(family))
    after = zoo.load(run(model, stage=stages[family]))
    names = {name for name in moved(before, after) if name in dict(after.named_parameters())}
    trained = {after.role_of(name) for name in names}
    assert trained <= set(stages[family]["train"])
    assert {"head", "projector"} <= trained
    if family == "longclip":
        assert torch.equal(before.text.positions_kept, after.text.positions_kept)


def test_lit_refuses_its_encoder(run, family_settings):
    with pytest.raises(RecipeError, match="family lit keeps its image encoder locked"):
        run({"family": "lit", **family_settings("lit")}, stage={"train": {"encoder": 1e-4, "head": 1e-3}})


@pytest.mark.parametrize("family", ["siglip", "lit", "longclip", "coca"])
def test_recipes_in_the_cards_are_recipes(family):
    text = (ROOT / "zoo" / "families" / family / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert blocks
    for block in blocks:
        values = yaml.safe_load(block)
        recipe = load_recipe(copy.deepcopy(values))
        from modalign.zoo.configure import check_keys

        settings = {key: value for key, value in values["model"].items() if key != "family"}
        check_keys(FAMILIES.get(values["model"]["family"]).Config, settings, "model")
        assert recipe.stages
