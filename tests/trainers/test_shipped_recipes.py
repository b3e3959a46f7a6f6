"""Every shipped recipe of pictures and texts runs: two steps of each stage, with random weights of the real shapes and toy data.

Those of time series are in test_shipped_series_recipes.py.
"""

import io
import json

import pytest

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.trainers.kinds import kind_of_recipe
from modalign.trainers.recipe import shipped_recipes

FINETUNE = {  # recipe -> parts that train
    "clip/finetune": {"image_projector", "text_projector", "logit_scale"},
    "clip/finetune_deep": {"image", "image_projector", "text_projector", "logit_scale"},
    "siglip/finetune": {"image_projector", "text_projector", "logit_scale", "logit_bias"},
    "siglip/finetune_deep": {"image", "image_projector", "text_projector", "logit_scale", "logit_bias"},
}
FROM_NOTHING = [n for n in shipped_recipes() if "/finetune" not in n and kind_of_recipe(load_recipe(n)).name == "pairs"]


def languages():
    """Every language a shipped recipe names."""
    recipes = [load_recipe(name) for name in FROM_NOTHING]
    named = [recipe.evaluate.languages for recipe in recipes if recipe.evaluate is not None]
    named += [recipe.stage_data(stage).languages for recipe in recipes for stage in recipe.stages]
    return sorted({"en"}.union(*filter(None, named)), key=lambda lang: (lang != "en", lang))


@pytest.fixture(scope="module")
def toy_assets(tmp_path_factory, tiny_embedder, picture_of):
    """A MODALIGN_DATA folder that holds every asset the recipes name, small."""
    import shutil

    import timm
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    from modalign.datasets.shards.writer import write_shards

    root = tmp_path_factory.mktemp("assets")
    torch.manual_seed(0)
    image = root / "efficientnet-lite0"
    image.mkdir()
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), image / "model.safetensors")
    about = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875}
    about |= {"classifier": "classifier", "num_classes": 1000}
    (image / "config.json").write_text(
        json.dumps({"architecture": "tf_efficientnet_lite0", "num_classes": 1000, "pretrained_cfg": about})
    )
    for name in ("multilingual-e5-small", "all-minilm-l6-v2"):
        shutil.copytree(tiny_embedder, root / name)
        config = BertConfig.from_pretrained(tiny_embedder, max_position_embeddings=64)  # as long as the recipes' texts may be
        BertModel(config, add_pooling_layer=False).save_pretrained(root / name)

    spoken = languages()

    def samples():
        for number in range(12):
            stream = io.BytesIO()
            picture_of(number).save(stream, "PNG")
            captions = {lang: [f"thing {number}", f"item {number}"] for lang in spoken}
            yield {"key": f"k{number}", "image": stream.getvalue(), "image_ext": "png", "captions": captions}

    parts = {"openmoji": (), "noto_cldr": (), "tuxpaint": ("symbols",), "flickr8k_multilingual": ("dev",)}
    for asset, more in parts.items():
        for split in ("train", "test", *more):
            write_shards(samples(), root / asset / split)
    return root


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_two_steps_of_every_stage(name, toy_assets, own_home, monkeypatch, tmp_path):
    monkeypatch.setenv("MODALIGN_DATA", str(toy_assets))
    run = train(_small(name, tmp_path / "run"))
    assert json.loads((run / "results.json").read_text())["stages"]
    assert zoo.load(run).encode_text(["thing 3"]).isfinite().all()


@pytest.mark.parametrize("name", sorted(FINETUNE))
def test_finetune_starts_from_a_release(name, toy_assets, own_home, monkeypatch, tmp_path):
    monkeypatch.setenv("MODALIGN_DATA", str(toy_assets))
    start = train(_small(f"{name.partition('/')[0]}/flickr8k", tmp_path / "start"))
    shards = str(toy_assets / "openmoji" / "train")
    overrides = {
        "init_from": str(start),
        "data.train": shards,
        "run_dir": str(tmp_path / "run"),
        "data.batch_size": 4,
        "trainer.accelerator": "cpu",
    }
    overrides |= {"stages.finetune.epochs": 1, "trainer.progress": False}
    run = train(load_recipe(name, overrides))
    before, after = zoo.load(start).state_dict(), zoo.load(run).state_dict()
    changed = {key.split(".")[0] for key in before if not before[key].equal(after[key])}
    assert changed == FINETUNE[name]


def _small(name, run, **more):
    overrides = {"run_dir": str(run), "data.batch_size": 4, "trainer.accelerator": "cpu", "trainer.progress": False}
    recipe = load_recipe(name, overrides)
    if "image_size" in recipe.model["image"]:
        overrides["model.image.image_size"] = 64
    for stage, settings in recipe.stages.items():
        overrides |= {f"stages.{stage}.epochs": None, f"stages.{stage}.steps": 2, f"stages.{stage}.data.num_workers": 0}
        overrides[f"stages.{stage}.data.batch_size"] = 4
        if settings.model is not None:
            overrides[f"stages.{stage}.model.image.image_size"] = 64
    return load_recipe(name, overrides | more)


@pytest.mark.parametrize("name", ["proclip/noto_cldr", "proclip/openmoji", "proclip/openmoji_full"])
def test_self_distillation_starts_at_zero(name, toy_assets, own_home, monkeypatch, tmp_path):
    """Specification of stage 2: at step 0 the student is its teacher, so both distillation terms are exactly zero."""
    import csv

    monkeypatch.setenv("MODALIGN_DATA", str(toy_assets))
    overrides = {"stages.tune.steps": 1, "trainer.log_every": 1, "evaluate": None}
    if name.endswith("full"):  # augmented pictures: the same for student and teacher
        overrides["stages.tune.data.augment"] = {"scale": 0.6, "flip": 0.5}
    recipe = _small(name, tmp_path / "run", **overrides)
    run = train(recipe)
    with (run / "metrics.csv").open() as stream:
        row = next(row for row in csv.DictReader(stream) if row["stage"] == "tune")
    assert float(row["loss/instance"]) == 0.0 and float(row["loss/structure"]) == 0.0 and float(row["loss/clip"]) > 0
