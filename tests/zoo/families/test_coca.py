"""CoCa: outputs and captions against open_clip's own model."""

import open_clip
import pytest
import torch

from modalign import zoo
from modalign.zoo.errors import AssemblyError
from modalign.zoo.families.coca.decoder import greedy
from modalign.zoo.registry import FAMILIES, LOSSES


@pytest.fixture(scope="module")
def ours(open_clip_folder):
    return zoo.load(open_clip_folder("coca"))


@pytest.fixture(scope="module")
def theirs(open_clip_folder):
    return open_clip.create_model(f"local-dir:{open_clip_folder('coca')}").eval()


def batch_of(model, photos, captions):
    tokens = model.text.tokenizer()(captions)
    pixels = torch.stack([model.image.preprocess(photo) for photo in photos[: len(captions)]])
    return {"image": pixels, "text_ids": tokens["ids"], "text_mask": tokens["mask"]}


@torch.no_grad()
def test_outputs_are_open_clips(ours, theirs, photos, captions):
    batch = batch_of(ours, photos, captions)
    outputs = ours(batch)
    wanted = theirs(ours.image.normalise(batch["image"]), batch["text_ids"])
    assert torch.equal(outputs["image_embedding"], wanted["image_features"])
    assert torch.equal(outputs["text_embedding"], wanted["text_features"])
    assert torch.equal(outputs["caption_logits"], wanted["logits"])
    assert torch.equal(outputs["caption_labels"], wanted["labels"])
    assert torch.equal(outputs["logit_scale"], wanted["logit_scale"])
    assert outputs["caption_logits"].shape == (4, 23, 49408)


def test_the_caption_loss_is_open_clips(ours, theirs, photos, captions):
    batch = batch_of(ours, photos, captions)
    outputs = ours(batch)
    loss = LOSSES.get("caption")()
    assert loss.inputs() <= set(outputs)
    value = loss(outputs, batch).value
    their_loss = open_clip.CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=0.0)
    _, wanted = their_loss(
        outputs["image_embedding"],
        outputs["text_embedding"],
        outputs["caption_logits"],
        outputs["caption_labels"],
        outputs["logit_scale"],
    )
    assert 2 * value.item() == pytest.approx(wanted.item(), rel=1e-5)
    value.backward()
    assert ours.decoder.text_projection.grad.abs().sum() > 0
    assert ours.image.model.attn_pool.query.grad.abs().sum() > 0
    ours.zero_grad(set_to_none=True)


def test_hidden_states_give_the_same_loss(ours, open_clip_folder, photos, captions):
    settings = {**ours.settings(), "caption_output": "hidden"}
    model = FAMILIES.get("coca").from_settings(settings).eval()
    model.load_state_dict(ours.state_dict())
    outputs = model(batch_of(model, photos, captions))
    assert "caption_logits" not in outputs
    value = LOSSES.get("caption")(from_hidden=True)(outputs, {}).value
    wanted = LOSSES.get("caption")()(ours(batch_of(ours, photos, captions)), {}).value
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)


@torch.no_grad()
def test_generation_is_the_arg_max_over_open_clips_logits(ours, theirs, photos):
    pictures = photos[:3]
    images = ours.image.normalise(torch.stack([ours.image.preprocess(photo) for photo in pictures]))
    ids = torch.full((3, 1), 49406)
    while ids.shape[1] < 9:
        step = theirs(images, ids, output_labels=False)["logits"][:, -1].argmax(-1)
        ids = torch.cat((ids, step[:, None]), 1)
    tokenizer = open_clip.SimpleTokenizer()
    wanted = []
    for row in ids.tolist():
        words = row[1 : row.index(49407)] if 49407 in row else row[1:]
        wanted.append(tokenizer.decode([token for token in words if token]).strip())
    found = ours.generate(pictures, max_length=10)
    assert found == wanted
    assert len(set(found)) > 1, "the picture has a say"
    assert ours.generate(pictures[1:2], max_length=10) == found[1:2]


def test_greedy_ends_where_it_should():
    """A model that counts: each row ends when it has said its number of words."""
    lengths = torch.tensor([1, 3, 9])

    def step(ids):
        logits = torch.zeros(3, 12)
        said = ids.shape[1] - 1
        for row, length in enumerate(lengths):
            logits[row, 11 if said >= length else 5 + row] = 1.0
        return logits

    ids = greedy(step, 3, start=10, end=11, limit=6, device=torch.device("cpu"))
    assert ids.tolist() == [[10, 5, 11, 0, 0, 0], [10, 6, 6, 6, 11, 0], [10, 7, 7, 7, 7, 11]]
    assert greedy(step, 3, 10, 11, limit=2, device=torch.device("cpu")).tolist() == [[10, 11]] * 3


def test_from_scratch_nothing_is_left_as_the_memory_had_it(open_clip_folder):
    """open_clip leaves the decoder's output matrix uninitialised."""
    name = {"name": f"local-dir:{open_clip_folder('coca')}", "pretrained": False}
    settings = {"embed_dim": 32, "image": name, "text_embedder": name, "image_projector": None, "text_projector": None}
    model = FAMILIES.get("coca").from_settings(settings)
    assert model.decoder.text_projection.std().item() == pytest.approx(32**-0.5, rel=0.05)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert model.sources() == {}


def test_what_is_no_coca(open_clip_folder, tiny_embedder, ours, photos, captions):
    clip = {"name": f"local-dir:{open_clip_folder('native')}"}
    settings = {"embed_dim": 16, "image": clip, "text_embedder": clip, "image_projector": None, "text_projector": None}
    with pytest.raises(AssemblyError, match="coca needs image and text_embedder of an open_clip CoCa model"):
        FAMILIES.get("coca").from_settings(settings)
    batch = batch_of(ours, photos, captions)
    with pytest.raises(AssemblyError, match="coca: 3 pictures and 4 texts do not go together row by row"):
        ours({**batch, "image": batch["image"][:3]})


def test_decoder_is_a_part_of_its_own(ours):
    assert ours.parts["decoder"] == ("decoder.",)
    assert {ours.role_of(name) for name, _ in ours.named_parameters() if name.startswith("decoder.")} == {"language"}
    assert ours.sources()["decoder."] == ours.sources()["image."]


def test_the_role_language_is_the_decoder_and_nothing_else(family_settings, tiny_shards, tmp_path, own_home):
    """Roles: the one role of the text decoder's parameters; a stage that trains it leaves both towers as they are."""
    from modalign.trainers import train
    from modalign.trainers.roles import freeze, select, set_modes, table

    settings = family_settings("coca")
    model = FAMILIES.get("coca").from_settings(settings)
    of_language = {name for name, _ in model.named_parameters() if model.role_of(name) == "language"}
    assert of_language == {name for name, _ in model.named_parameters() if name.startswith("decoder.")}
    trained = select(model, {"language": 1e-3}, "s")
    freeze(model, trained)
    set_modes(model)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == of_language
    assert model.decoder.training and not model.image.training and not model.text.training
    assert {role: count for role, _, count, _ in table(model, trained) if count} == {
        "language": sum(value.numel() for value in model.decoder.parameters())
    }
    part = {entry.name for entry in select(model, {"language:resblocks.0.*": 1e-3}, "s")}
    assert part and all(name.startswith("decoder.resblocks.0.") for name in part)

    recipe = {
        "model": {"family": "coca", **settings},
        "data": {"train": str(tiny_shards), "batch_size": 8, "languages": ["en"]},
        "stages": {"captions": {"train": {"language": 1e-3}, "losses": {"caption": {}}, "steps": 1, "keep": "full"}},
        "trainer": {"accelerator": "cpu", "progress": False},
        "run_dir": str(tmp_path / "run"),
    }
    after = dict(zoo.load(train(recipe)).named_parameters())  # the loss `caption` alone: it gets captions and pictures
    before = dict(FAMILIES.get("coca").from_settings(settings).named_parameters())
    assert {name for name in before if not before[name].equal(after[name])} == of_language
