"""A loss alone in a recipe gets everything it reads, and nothing else is made."""

import io
import json

import pytest
import torch

from modalign.trainers import train
from modalign.trainers.build import build_family
from modalign.trainers.examples import PairCollate
from modalign.trainers.needs import needs_of, teacher_number, teacher_prefix
from modalign.trainers.recipe import CacheConfig, DataConfig, StageConfig
from modalign.trainers.stage_data import build_loader
from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.explicit_negatives import explicit_negatives_loss
from modalign.zoo.losses.grouped_negatives import GroupedNegativesLoss
from modalign.zoo.registry import LOSSES


@pytest.fixture(scope="session")
def negatives_shards(tmp_path_factory, picture_of):
    """12 pictures, each with three texts that do not fit it."""
    from modalign.datasets.shards.writer import write_shards

    def samples():
        for number in range(12):
            stream = io.BytesIO()
            picture_of(number).save(stream, "PNG")
            wrong = [f"item {(number + step) % 60}" for step in (20, 30, 40)]
            about = {"key": f"k{number:03d}", "image": stream.getvalue(), "image_ext": "png", "negatives": wrong}
            yield about | {"captions": {"en": [f"thing number {number}"]}}

    folder = tmp_path_factory.mktemp("negatives") / "shards"
    write_shards(samples(), folder)
    return folder


def test_captions_are_read_with_their_pictures_for_the_loss_caption_alone():
    for settings in ({}, {"from_hidden": True}):
        needs = needs_of(LOSSES.get("caption")(**settings).inputs())
        assert needs.image and needs.text and needs.captioning
        assert not (needs.second or needs.negatives or needs.grouped or needs.teacher_text or needs.teacher_image)


def test_what_is_read_of_teachers():
    needs = needs_of(LOSSES.get("ensemble_distillation")(teachers=3).inputs())
    assert needs.teacher_image == needs.teacher_text == ("teacher2_", "teacher3_", "teacher_")
    text_only = needs_of(frozenset({"text_embedding", "teacher_text_embedding", "teacher2_second_text_embedding"}))
    assert not text_only.image and text_only.teacher_image == () and text_only.teacher_text == ("teacher2_", "teacher_")
    assert needs_of(frozenset({"teacher_logit_scale", "teacher2_logit_bias"})).teacher_image == ()
    assert needs_of(frozenset({"teacher_caption_logits"})).teacher_image == ("teacher_",)
    assert [teacher_number(teacher_prefix(number)) for number in (1, 2, 12)] == [1, 2, 12]


def grouped_batch(tiny_model, shards, folder, needs, negatives=2, **cache):
    model = build_family(tiny_model, "model").eval()
    data = DataConfig(train=str(shards), batch_size=6, languages=["en"], negatives=negatives)
    stage = StageConfig(train={"head": 1e-3}, losses={}, cache=CacheConfig(**cache))
    about = {"where": "stages.s", "seed": 0, "rank": 0, "world_size": 1, "folder": folder}
    return model, next(iter(build_loader(model, [], stage, data, needs, **about)))


def test_every_caption_is_followed_by_negatives_of_its_own_sample(tiny_model, negatives_shards, own_home, tmp_path):
    loss = GroupedNegativesLoss(negatives=2, scale=10.0)
    needs = needs_of(loss.inputs())
    assert needs.grouped and not needs.text and not needs.negatives
    model, batch = grouped_batch(tiny_model, negatives_shards, tmp_path, needs)
    assert "text_ids" not in batch and "negative_text_ids" not in batch, "positives are not encoded twice"
    with torch.no_grad():
        outputs = model(batch)
    value = loss(outputs, batch).value

    numbers = [int(key[1:]) for key in batch["keys"]]
    groups = outputs["grouped_text_embedding"].view(6, 3, -1)
    for number, group in zip(numbers, groups, strict=True):
        torch.testing.assert_close(group[:1], model.encode_text([f"thing number {number}"]))
        known = model.encode_text([f"item {(number + step) % 60}" for step in (20, 30, 40)])
        alike = (group[1:] @ known.T).max(1)
        assert alike.values.min() > 1 - 1e-5 and len(set(alike.indices.tolist())) == 2
    apart = explicit_negatives_loss(outputs["image_embedding"], groups[:, 0], groups[:, 1:], 10.0)
    assert value.item() == pytest.approx(apart.item(), rel=1e-5)


def test_groups_and_negatives_and_captions_together(tiny_model, negatives_shards, own_home, tmp_path):
    needs = needs_of(frozenset({"image_embedding", "text_embedding", "negative_text_embedding", "grouped_text_embedding"}))
    _, batch = grouped_batch(tiny_model, negatives_shards, tmp_path, needs)
    assert [len(batch[f"{name}text_ids"]) for name in ("", "negative_", "grouped_")] == [6, 12, 18]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_grouped_negatives_train_alone(tiny_recipe, negatives_shards, accumulate):
    stage = tiny_recipe["stages"]["teacher"] | {"losses": {"grouped_negatives": {"negatives": 2}}, "accumulate": accumulate}
    recipe = tiny_recipe | {"stages": {"one": stage}, "evaluate": None}
    recipe["data"] = {"train": str(negatives_shards), "batch_size": 4, "negatives": 2}
    run = train(recipe)
    assert json.loads((run / "stages" / "one" / "done.json").read_text())["steps"] == 3


@pytest.mark.parametrize(
    ("read", "cache", "message"),
    [
        ("grouped_text_embedding", {"text": True}, "cache.text: only captions are cached, not the negatives"),
        ("negative_text_embedding", {"text": True}, "cache.text: only captions are cached, not the negatives"),
        ("caption_logits", {"text": True}, "cache.text: a loss predicts captions"),
        ("caption_logits", {"image": "output"}, "cache.image: a loss predicts captions"),
    ],
)
def test_what_cannot_come_from_a_cache_is_refused_before_anything_is_computed(
    tiny_model, negatives_shards, own_home, tmp_path, read, cache, message
):
    with pytest.raises(RecipeError, match=message):
        grouped_batch(tiny_model, negatives_shards, tmp_path, needs_of(frozenset({"image_embedding", read})), **cache)
    assert not list(negatives_shards.rglob("*.features"))


def test_a_batch_holds_only_what_is_asked_for():
    examples = [{"key": "a", "text": "x", "second": None, "negatives": ["y"], "ids": {}}]

    def lengths(texts):
        return {"ids": torch.tensor([len(texts)])}

    assert set(PairCollate(text=lengths, negatives=False)(examples)) == {"text_ids"}
    assert set(PairCollate(text=lengths, plain=False, negatives=False, grouped=True)(examples)) == {"grouped_text_ids"}
