"""The shipped recipes for fine-tuning take models of every make, and start exactly where those stand."""

import csv

import pytest

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.zoo.errors import RecipeError

LAYOUTS = ["native", "quick_gelu", "timm_mlp", "timm_vit", "siglip", "resnet", "coca", "hf_text"]
#: their towers end in a pool that is one with its projection
WITHOUT_HEAD = {"siglip", "resnet"}
DISTILLED = ("loss/image", "loss/image_structure", "loss/text", "loss/text_structure")


@pytest.fixture
def finetune(tiny_shards, tmp_path, own_home):
    def go(recipe, start, **more):
        overrides = {"init_from": str(start), "data.train": str(tiny_shards), "run_dir": str(tmp_path / recipe.replace("/", "-"))}
        overrides |= {"data.batch_size": 8, "stages.finetune.epochs": None, "stages.finetune.steps": 1}
        overrides |= {"trainer.accelerator": "cpu", "trainer.progress": False, "trainer.log_every": 1}
        return train(load_recipe(recipe, overrides | more))

    return go


def first_step(run):
    with (run / "metrics.csv").open() as stream:
        return {name: float(value) for name, value in next(csv.DictReader(stream)).items() if name.startswith("loss/")}


def changed_roles(start, run):
    before, after = (zoo.load(place) for place in (start, run))
    old, new = (dict(model.named_parameters()) for model in (before, after))
    return {before.role_of(name) for name in old if not old[name].equal(new[name])}


def test_every_layout_is_here(layouts):
    assert set(LAYOUTS) == set(layouts)


@pytest.mark.parametrize("recipe", ["finetune", "finetune_deep"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_runs_on_every_layout_and_starts_equal_to_its_teacher(layout, recipe, finetune, open_clip_folder):
    family = "siglip" if layout == "siglip" else "clip"
    run = finetune(f"{family}/{recipe}", open_clip_folder(layout))
    losses = first_step(run)
    assert losses.pop(f"loss/{family}") > 0
    assert losses.keys() == set(DISTILLED) and max(losses.values()) < 1e-10
    wanted = {"projector", "aux"} | ({"head"} - ({"head"} if layout in WITHOUT_HEAD else set()))
    assert changed_roles(open_clip_folder(layout), run) == wanted | ({"encoder"} if recipe == "finetune_deep" else set())


@pytest.mark.parametrize("recipe", ["clip/finetune", "clip/finetune_deep"])
def test_the_softmax_is_refused_for_a_model_of_the_sigmoid_loss(recipe, finetune, open_clip_folder):
    with pytest.raises(
        RecipeError, match=r"stages.finetune.losses: the model has a logit bias.*siglip/finetune.yaml.*ignore_bias"
    ):
        finetune(recipe, open_clip_folder("siglip"))


def test_the_softmax_for_a_model_of_the_sigmoid_loss_if_it_is_asked_for(finetune, open_clip_folder):
    run = finetune("clip/finetune", open_clip_folder("siglip"), **{"stages.finetune.ignore_bias": True})
    assert changed_roles(open_clip_folder("siglip"), run) == {"projector", "aux"}


def own_release(run_dir, tiny_embedder, shards, **model):
    settings = {
        "embed_dim": 24,
        "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
        "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 16},
        **model,
    }
    family = settings.setdefault("family", "clip")
    stage = {"train": {"aux": 1e-3}, "losses": {"siglip" if family == "siglip" else "clip": {}}, "steps": 1}
    recipe = {"model": settings, "data": {"train": str(shards), "batch_size": 8}, "stages": {"one": stage}}
    return train(recipe | {"trainer": {"accelerator": "cpu", "progress": False}, "run_dir": str(run_dir)})


def test_own_releases(finetune, tiny_embedder, tiny_shards, tmp_path):
    """Of several families, with dropout in their projections, and without a projection on one side."""
    dropping = {"image_projector": {"name": "linear", "options": {"dropout": 0.5}}}
    for name, model, roles in (
        ("clip", dropping, {"head", "projector", "aux"}),
        ("siglip", {"family": "siglip", **dropping}, {"head", "projector", "aux"}),
        ("proclip", {"family": "proclip", "text_projector": {"name": "proclip", "options": {"dropout": 0.5}}}, None),
        ("no projector", {"text_projector": None}, {"head", "aux"}),
    ):
        start = own_release(tmp_path / name, tiny_embedder, tiny_shards, **model)
        family = "siglip" if name == "siglip" else "clip"
        run = finetune(f"{family}/finetune", start, run_dir=str(tmp_path / f"{name} tuned"))
        losses = first_step(run)
        assert max(losses[term] for term in DISTILLED) < 1e-10, name
        assert changed_roles(start, run) == (roles or {"head", "projector", "aux"}), name
