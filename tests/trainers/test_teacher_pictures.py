"""A teacher sees every picture as it was made to see it, whatever its student gets."""

import copy

import pytest
import torch

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.shards import ShardSet
from modalign.trainers import train
from modalign.trainers.build import build_family
from modalign.trainers.needs import needs_of
from modalign.trainers.recipe import CacheConfig, DataConfig, StageConfig
from modalign.trainers.stage_data import build_loader
from modalign.trainers.task import self_teacher, teacher_view
from modalign.trainers.teacher_pictures import same_features, same_pixels
from modalign.zoo.encoders.image.preprocess import Augmentation

READ = frozenset({"image_embedding", "teacher_image_embedding"})


def model_of(tiny_model, seed=0, **image):
    torch.manual_seed(seed)
    settings = copy.deepcopy(tiny_model)
    settings["image"] |= image
    return build_family(settings, "model").eval()


def first_batch(model, teachers, tiny_shards, folder, cut=None, needs=READ, **augment):
    data = DataConfig(train=str(tiny_shards), batch_size=6, languages=["en"], augment=Augmentation(**augment))
    stage = StageConfig(train={"head": 1e-3}, losses={}, cache=CacheConfig(image=cut))
    about = {"where": "stages.s", "seed": 0, "rank": 0, "world_size": 1, "folder": folder}
    return next(iter(build_loader(model, teachers, stage, data, needs_of(needs), **about)))


def pictures_of(batch, tiny_shards):
    shards = ShardSet(str(tiny_shards))
    place = {key: number for number, key in enumerate(shards.keys)}
    return [decode_sample(shards.read(place[key])).images[0] for key in batch["keys"]]


def seen_by(teacher, batch, prefix="teacher_"):
    with torch.no_grad():
        return teacher(teacher_view(batch, prefix, pictures=True))["image_embedding"]


OTHERS = {"another picture size": {"image_size": 48}, "other weights": {"seed": 1}, "another network": {"name": "timm:test_vit"}}


@pytest.mark.parametrize("cut", [None, "output"])
@pytest.mark.parametrize("other", OTHERS)
def test_it_gives_the_vectors_it_gives_by_itself(tiny_model, tiny_shards, own_home, tmp_path, other, cut):
    settings = dict(OTHERS[other])
    if "name" in settings:
        settings["image_size"] = 160
    student, teacher = model_of(tiny_model), model_of(tiny_model, **{"seed": 0, **settings})
    batch = first_batch(student, [teacher], tiny_shards, tmp_path, cut)
    pictures = pictures_of(batch, tiny_shards)
    torch.testing.assert_close(seen_by(teacher, batch), teacher.encode_image(pictures), rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(student(batch)["image_embedding"], student.encode_image(pictures), rtol=0, atol=1e-5)


def test_several_teachers_each_see_their_own(tiny_model, tiny_shards, own_home, tmp_path):
    student, teachers = model_of(tiny_model), [model_of(tiny_model, image_size=48), model_of(tiny_model, seed=2)]
    needs = READ | {"teacher2_image_embedding"}
    for cut in (None, "output"):
        batch = first_batch(student, teachers, tiny_shards, tmp_path, cut, needs)
        pictures = pictures_of(batch, tiny_shards)
        for prefix, teacher in zip(("teacher_", "teacher2_"), teachers, strict=True):
            torch.testing.assert_close(seen_by(teacher, batch, prefix), teacher.encode_image(pictures), rtol=0, atol=1e-5)


def test_it_looks_at_the_random_view_its_student_has(tiny_model, tiny_shards, own_home, tmp_path):
    """Twice the size of every pixel tells that crop, colours and mirroring were drawn alike."""
    student, teacher = model_of(tiny_model), model_of(tiny_model, image_size=64)
    batch = first_batch(student, [teacher], tiny_shards, tmp_path, scale=0.3, flip=0.5, color=0.3)
    assert batch["teacher_image"].shape[-1] == 64
    small = torch.nn.functional.avg_pool2d(batch["teacher_image"].float(), 2)
    alike = (small - batch["image"].float()).abs().mean((1, 2, 3))
    among = (small - batch["image"].float().roll(1, 0)).abs().mean((1, 2, 3))
    assert alike.max() < 8 < among.min()


def test_nothing_is_made_twice_where_it_is_the_same(tiny_model, tiny_shards, own_home, tmp_path):
    student = model_of(tiny_model)
    for cut in (None, "output"):
        teacher = self_teacher(student)
        batch = first_batch(student, [teacher], tiny_shards, tmp_path, cut)
        assert not any(name.startswith("teacher_") for name in batch)
        assert torch.equal(seen_by(teacher, batch), student(batch)["image_embedding"])


def test_a_cut_is_shared_exactly_where_all_below_it_is_the_same(tiny_model):
    student, teacher = model_of(tiny_model), model_of(tiny_model)
    cuts = student.image.cuts()
    assert all(same_features(student.image, teacher.image, cut) for cut in cuts)
    with torch.no_grad():
        teacher.image.trunk.conv_head.weight += 1.0
    below = [cut for cut in cuts if not student.image.lies_below("trunk.conv_head.weight", cut)]
    assert below and {cut for cut in cuts if same_features(student.image, teacher.image, cut)} == set(below)
    assert same_pixels(student.image, teacher.image)
    assert not same_pixels(student.image, model_of(tiny_model, image_size=48).image)


def test_text_alone_costs_no_pass_through_the_image_encoder(tiny_model, tiny_shards, own_home, tmp_path):
    student, teacher = model_of(tiny_model), model_of(tiny_model, image_size=48)
    needs = frozenset({"image_embedding", "text_embedding", "teacher_text_embedding", "teacher_logit_scale"})
    assert needs_of(needs).teacher_image == ()
    batch = first_batch(student, [teacher], tiny_shards, tmp_path, needs=needs)
    assert "teacher_image" not in batch
    assert set(teacher(teacher_view(batch, "teacher_", pictures=False))) == {"text_embedding", "logit_scale"}


@pytest.mark.parametrize("cut", [None, "output"])
def test_a_stage_trains_with_a_teacher_of_another_make(tiny_recipe, tmp_path, cut):
    """The whole way, several parts of a batch included."""
    teacher = tiny_recipe["stages"]["teacher"]
    teacher["model"]["image"] = {**teacher["model"]["image"], "image_size": 48}
    both = {"loss": "logit_distillation", "weight": 0.5}
    tiny_recipe["stages"] = {
        "teacher": teacher | {"epochs": None, "steps": 1},
        "taught": {
            "teacher": "teacher",
            "train": {"head": 1e-3, "projector": 1e-3},
            "losses": {"clip": {}, "logits": both},
            "cache": {"image": cut},
            "accumulate": 2,
            "steps": 2,
        },
    }
    run = train(tiny_recipe | {"evaluate": None})
    assert (run / "stages" / "taught" / "done.json").exists()
