"""open_clip checkpoints as models of this zoo: the same vectors to the last bit, the same pixels, and nothing taken for granted."""

import copy
import json
import pickle
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from modalign import zoo
from modalign.zoo.checkpoints import open_clip as checkpoints
from modalign.zoo.checkpoints.release import find_release, read_release, save_release
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from modalign.zoo.errors import AssemblyError, NameGrammarError, ReleaseError
from modalign.zoo.registry import FAMILIES

ALL = ["native", "quick_gelu", "timm_mlp", "timm_vit", "siglip", "resnet", "coca", "hf_text"]
FAMILY = {"siglip": "siglip", "coca": "coca"}


@pytest.mark.parametrize("layout", ALL)
def test_vectors_are_open_clips_to_the_last_bit(layout, open_clip_folder, open_clip_vectors, photos, captions):
    folder = open_clip_folder(layout)
    images, texts = open_clip_vectors(folder, photos, captions)
    model = zoo.load(f"local-dir:{folder}")
    assert model.family == FAMILY.get(layout, "clip")
    assert torch.equal(model.encode_image(photos), images)
    assert torch.equal(model.encode_text(captions), texts)
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert (texts[0] - texts[1]).abs().max() > 1e-3
    assert float(model.logit_scale.detach()) == pytest.approx(3.1)
    if layout == "siglip":
        assert model({})["logit_bias"].item() == pytest.approx(-9.5)


@pytest.mark.parametrize("layout", ALL)
def test_pixels_are_open_clips(layout, open_clip_folder, photos):
    folder = open_clip_folder(layout)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False)
    encoder = zoo.load(folder).image
    for picture in photos:
        assert torch.equal(encoder.normalise(encoder.preprocess(picture)[None])[0], transform(picture)), picture.size


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("fill", [0, 127])
def test_every_resize_mode(resize_mode, interpolation, fill, open_clip_folder, tmp_path):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    folder = shutil.copytree(open_clip_folder("native"), tmp_path / "clip")
    stated = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": interpolation, "resize_mode": resize_mode}
    edit(folder / "open_clip_config.json", lambda config: config.update(preprocess_cfg={**stated, "fill_color": fill}))
    encoder = build_image_encoder(ImageEncoderConfig(str(folder)))
    transform = image_transform_v2(PreprocessCfg(size=32, fill_color=fill, **stated), is_train=False)
    rng = np.random.default_rng(1)
    for shape in ((90, 60), (31, 77), (200, 41), (32, 32), (20, 29), (33, 34)):
        picture = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(shape, Image.Resampling.BICUBIC)
        assert torch.equal(encoder.normalise(encoder.preprocess(picture)[None])[0], transform(picture)), shape


@pytest.mark.parametrize(
    ("weights", "file"), [("bin", "open_clip_pytorch_model.bin"), ("safetensors", "open_clip_model.safetensors")]
)
def test_both_files_of_weights(weights, file, open_clip_writer, layouts, tmp_path, photos, open_clip_vectors):
    folder = open_clip_writer(tmp_path / "clip", layouts["native"][0], weights=weights)
    assert (folder / file).is_file()
    images, _ = open_clip_vectors(folder, photos, ["x"])
    assert torch.equal(zoo.load(folder).encode_image(photos), images)


def test_training_checkpoints_names_and_scales_of_other_shape(open_clip_folder, tmp_path, photos):
    """`{"state_dict": {"module.…"}}` with a logit scale of one dimension, as open_clip's trainer writes with some flags."""
    folder = shutil.copytree(open_clip_folder("native"), tmp_path / "clip")
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    state["logit_scale"] = state["logit_scale"].reshape(1)
    saved = {"epoch": 3, "name": "run", "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(saved, folder / "open_clip_pytorch_model.bin")
    model = zoo.load(folder)
    assert torch.equal(model.encode_image(photos), zoo.load(open_clip_folder("native")).encode_image(photos))
    assert model.logit_scale.shape == ()


def test_names_of_a_folder(open_clip_folder, photos, monkeypatch):
    folder = open_clip_folder("native")
    monkeypatch.chdir(folder.parent)
    wanted = zoo.load(folder).encode_image(photos)
    for name in (f"local-dir:{folder}", str(folder), "./native", "native"):
        assert torch.equal(zoo.load(name).encode_image(photos), wanted), name


@pytest.mark.parametrize("layout", ALL)
def test_roles_and_shapes_of_its_parameters(layout, open_clip_folder):
    model = zoo.load(open_clip_folder(layout))
    roles = {}
    for name, _ in model.named_parameters():
        roles.setdefault(model.role_of(name), []).append(name)
    wanted = {"encoder", "embedder", "projector", "aux"} | ({"head"} if layout not in ("siglip", "resnet") else set())
    assert set(roles) == wanted | ({"language"} if layout == "coca" else set())
    assert roles["aux"] == ["logit_scale", "logit_bias"][: 2 if layout == "siglip" else 1]
    assert all(name.startswith("image_projector.") for name in roles.get("head", ()))
    assert all(name.startswith("text_projector.") for name in roles["projector"])


@pytest.mark.parametrize("layout", ["native", "siglip", "hf_text"])
def test_tokens_are_open_clips_in_worker_processes_too(layout, open_clip_folder, captions):
    folder = open_clip_folder(layout)
    wanted = open_clip.get_tokenizer(f"local-dir:{folder}")(captions)
    tokenize = zoo.load(folder).text.tokenizer()
    assert torch.equal(tokenize(captions)["ids"], wanted)
    sent = pickle.loads(pickle.dumps(tokenize))
    tokens = sent(captions)
    assert torch.equal(tokens["ids"], wanted)
    length = tokens["mask"].sum(1)
    for ids, mask, count in zip(tokens["ids"], tokens["mask"], length, strict=True):
        assert mask[:count].all(), "real tokens first"
        assert not mask[count:].any()
        assert not ids[count:].any(), "and padding after"


# as parts of a recipe


@pytest.mark.parametrize("layout", ALL)
def test_a_cut_changes_nothing(layout, open_clip_folder):
    encoder = build_image_encoder(ImageEncoderConfig(str(open_clip_folder(layout)))).eval()
    size = encoder.preprocess.size
    coarse = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = coarse.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)
    cuts = encoder.cuts()
    assert cuts[-1] == "output"
    assert (len(cuts) > 1) == (layout != "resnet")
    for split in (False, True):
        projection = encoder.split_projection() if split else None
        assert (projection is not None) == (split and layout not in ("siglip", "resnet"))
        whole = encoder.pooled(pixels)
        assert whole.shape == (2, encoder.width)
        for cut in cuts:
            assert torch.equal(encoder.above(encoder.below(pixels, cut), cut), whole), cut
        names = dict(encoder.named_parameters())
        assert {encoder.layer_of(name) for name in names} == set(range(encoder.num_layers))
        for cut in cuts[:-1]:
            encoder.zero_grad(set_to_none=True)
            (encoder.above(encoder.below(pixels, cut).detach(), cut) ** 2).sum().backward()
            reached = {name for name, parameter in names.items() if parameter.grad is not None}
            assert reached == {name for name in names if not encoder.lies_below(name, cut)}, cut
    tokens, mask = encoder(pixels)
    assert tokens.shape == (2, encoder.num_tokens((size, size)), encoder.token_width)
    assert mask.shape == tokens.shape[:2]


def test_towers_in_a_clip_with_other_projections(open_clip_folder, photos, captions):
    """With a projector of its own a family puts it after the tower as it is; without, the tower's own projection is the projector."""
    folder = f"local-dir:{open_clip_folder('native')}"
    settings = {"embed_dim": 16, "image": {"name": folder}, "text_embedder": {"name": folder}}
    own = FAMILIES.get("clip").from_settings({**settings, "image_projector": None, "text_projector": None}).eval()
    assert (own.image.width, own.text.width) == (32, 24)
    assert torch.equal(own.encode_image(photos), zoo.load(folder).encode_image(photos))
    after = FAMILIES.get("clip").from_settings(settings).eval()
    assert (after.image.width, after.text.width) == (16, 16)
    assert after.image_projector.linear.weight.shape == (16, 16)
    with pytest.raises(AssemblyError, match=r"model\.image_projector is off, but its encoder is 16 wide and the joint space 8"):
        FAMILIES.get("clip").from_settings({**settings, "embed_dim": 8, "image_projector": None})


def test_random_towers_of_a_built_in_name(captions):
    image = build_image_encoder(ImageEncoderConfig("open_clip:RN50", pretrained=False, image_size=64))
    assert (image.width, image.preprocess.size, image.preprocess.mean[0]) == (1024, 64, pytest.approx(0.48145466))
    for build, config in (
        (build_image_encoder, ImageEncoderConfig("open_clip:ViT-B-32")),
        (build_text_encoder, TextEmbedderConfig("open_clip:ViT-B-32")),
        (lambda name: zoo.load(name), "open_clip:ViT-B-32"),
    ):
        with pytest.raises(ReleaseError, match=r"names no weights; pretrained: false .* published weights: open_clip:"):
            build(config)


def test_own_image_size_resamples_the_positions(open_clip_folder, tmp_path):
    folder = open_clip_folder("native")
    encoder = build_image_encoder(ImageEncoderConfig(str(folder), image_size=48)).eval()
    theirs = open_clip.create_model(f"local-dir:{folder}", force_image_size=48).eval()
    assert torch.equal(encoder.model.positional_embedding, theirs.visual.positional_embedding)
    assert encoder.num_tokens((48, 48)) == 37
    timm = build_image_encoder(ImageEncoderConfig(str(open_clip_folder("timm_vit")), image_size=96))
    assert timm.num_tokens((96, 96)) == 37


@pytest.mark.parametrize("layout", ["native", "timm_vit", "hf_text"])
def test_gradient_checkpointing_gives_the_same_gradients(layout, open_clip_folder, photos, captions):
    model = zoo.load(open_clip_folder(layout)).train()
    pixels = torch.stack([model.image.preprocess(photo) for photo in photos])
    tokens = model.text.tokenizer()(captions)
    batch = {"image": pixels, "text_ids": tokens["ids"], "text_mask": tokens["mask"]}
    for part in model.text.model.modules() if layout == "hf_text" else ():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad(set_to_none=True)
        outputs = model(batch)
        (outputs["image_embedding"].sum() + outputs["text_embedding"].pow(3).sum()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    hidden, calls = model.image.below(pixels, "blocks.0"), []
    block = model.image.model.transformer.resblocks[0] if layout != "timm_vit" else model.image.model.trunk.blocks[0]
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    model.image.above(hidden, "blocks.0").sum().backward()
    assert len(calls) == 2, "above a cut too: run, and run again for the backward pass"
    assert len(gradients[0]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_resnets_cannot_recompute(open_clip_folder):
    with pytest.raises(AssemblyError, match="cannot recompute activations"):
        zoo.load(open_clip_folder("resnet")).set_grad_checkpointing()


# releases


@pytest.mark.parametrize("layout", ALL)
def test_full_release_and_back(layout, open_clip_folder, photos, captions, tmp_path, tiny_embedder, open_clip_writer):
    source = shutil.copytree(open_clip_folder(layout), tmp_path / "source")
    model = zoo.load(source)
    wanted = model.encode_image(photos), model.encode_text(captions)
    folder = save_release(model, tmp_path / "release")
    shutil.rmtree(source)
    for path in folder.rglob("*"):
        if path.is_file():
            for private in (str(tmp_path), str(tiny_embedder)):
                assert private.encode() not in path.read_bytes(), path
    again = zoo.load(shutil.move(folder, tmp_path / "elsewhere"))
    assert again.family == model.family
    assert torch.equal(again.encode_image(photos), wanted[0])
    assert torch.equal(again.encode_text(captions), wanted[1])
    roles = {name: model.role_of(name) for name, _ in model.named_parameters()}
    assert {name: again.role_of(name) for name, _ in again.named_parameters()} == roles
    second = save_release(again, tmp_path / "second")
    assert (second / "model.safetensors").read_bytes() == (tmp_path / "elsewhere" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("layout", ["native", "coca", "hf_text"])
def test_adapter_release_takes_its_parts_from_the_checkpoint(layout, open_clip_folder, photos, captions, tmp_path):
    model = zoo.load(f"local-dir:{open_clip_folder(layout)}")
    model.image_projector.weight.data += 0.1
    trained = frozenset(name for name, _ in model.named_parameters() if name.startswith("image_projector."))
    folder = save_release(model, tmp_path / "adapter", kind="adapter", trained=trained, public=False)
    stored = load_file(folder / "model.safetensors")
    assert not any(name.startswith(("image.", "text.", "decoder.")) for name in stored)
    again = zoo.load(folder)
    assert torch.equal(again.encode_image(photos), model.encode_image(photos))
    assert torch.equal(again.encode_text(captions), model.encode_text(captions))


def test_a_checkpoint_stands_in_for_a_release(open_clip_folder, photos):
    """What asks for a release folder (`init_from`, `teacher`) gets one that refers to the checkpoint, with nothing trained."""
    name = f"local-dir:{open_clip_folder('native')}"
    folder = find_release(name)
    config, release = read_release(folder)
    assert (config["family"], release["kind"]) == ("clip", "adapter")
    assert [part["included"] for part in release["parts"].values()] == [False, False]
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 30_000
    assert torch.equal(zoo.load(folder).encode_image(photos), zoo.load(name).encode_image(photos))
    assert find_release(name) == folder


# nothing is taken for granted


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.fixture
def clip_copy(open_clip_folder, tmp_path):
    return shutil.copytree(open_clip_folder("native"), tmp_path / "clip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("preprocess_cfg"), "does not state mean and std"),
        (lambda c: c["preprocess_cfg"].pop("mean"), "does not state mean"),
        (lambda c: c["preprocess_cfg"].update(size=64), "says 64 pixels, its image tower takes 32"),
        (lambda c: c["preprocess_cfg"].update(resize_mode="stretch"), "asks for 'bicubic' and 'stretch'"),
        (lambda c: c["preprocess_cfg"].update(mode="BGR"), "asks for pictures in BGR"),
        (lambda c: c.pop("model_cfg"), "has no model_cfg"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(layers=3), "missing: transformer.resblocks.2"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(image_size=64), "of another shape: positional_embedding"),
        (lambda c: c["model_cfg"]["text_cfg"].update(context_length=77), "of another shape: positional_embedding"),
        (lambda c: c["model_cfg"]["text_cfg"].update(unheard_of=1), "cannot build a text tower"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(unheard_of=1), "cannot build an image tower"),
    ],
)
def test_what_contradicts_itself_is_refused(clip_copy, change, message):
    edit(clip_copy / "open_clip_config.json", change)
    with pytest.raises(ReleaseError) as caught:
        zoo.load(clip_copy)
    assert message in str(caught.value)


def test_weights_of_another_kind_are_refused(clip_copy):
    file = clip_copy / "open_clip_model.safetensors"
    state = load_file(file)
    save_file({**state, "lm_head.weight": torch.zeros(2)}, file)
    with pytest.raises(ReleaseError, match=r"'lm_head.weight' is of no part of an open_clip model"):
        zoo.load(clip_copy)
    del state["logit_scale"]
    save_file(state, file)
    with pytest.raises(ReleaseError, match="has no logit_scale"):
        zoo.load(clip_copy)
    file.unlink()
    with pytest.raises(ReleaseError, match=r"has open_clip_config\.json but no weights"):
        zoo.load(clip_copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "open_clip:ViT-B-32/openai",
            "trained with QuickGELU, and ViT-B-32 computes GELU.*write open_clip:ViT-B-32-quickgelu/openai",
        ),
        ("open_clip:ViT-B-32/laion400m_e32", "write open_clip:ViT-B-32-quickgelu/laion400m_e32"),
        ("open_clip:ViT-B-33/openai", "open_clip has no model 'ViT-B-33'; did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79", "has no weights 'laion2b_s34b_b79'; did you mean 'laion2b_s34b_b79k'"),
    ],
)
def test_names_that_would_be_silently_wrong(name, message):
    with pytest.raises(NameGrammarError, match=message):
        zoo.load(name)


def test_every_published_tag_is_settled_before_anything_is_fetched(monkeypatch):
    """Each of open_clip's tags either goes with its architecture or names the one it goes with."""
    monkeypatch.setattr(checkpoints, "_fetch", lambda about, rest: None)
    refused = []
    for model, tag in open_clip.list_pretrained():
        try:
            checkpoints.named_checkpoint(f"{model}/{tag}", weights=True)
        except NameGrammarError as error:
            refused.append(f"{model}/{tag}")
            assert "write open_clip:" in str(error), error
    assert {"ViT-B-32/openai", "ViT-L-14/dfn2b", "RN50/openai"} <= set(refused)
    assert not any("quickgelu" in name for name in refused)
    assert len(refused) < 40


def test_weights_say_which_activation_they_want(open_clip_folder, tmp_path):
    folder = shutil.copytree(open_clip_folder("native"), tmp_path / "clip")
    file = folder / "open_clip_model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "quick_gelu": "true"})
    with pytest.raises(ReleaseError, match=r"the weights say they were trained with QuickGELU, .* says quick_gelu: false"):
        zoo.load(folder)
    edit(folder / "open_clip_config.json", lambda config: config["model_cfg"].update(quick_gelu=True))
    assert zoo.load(folder).quick_gelu() == {"image": True, "text": True}


@pytest.mark.parametrize("part", ["image", "text"])
def test_a_release_says_which_activation_it_was_trained_with(part, open_clip_folder, tmp_path):
    folder = save_release(zoo.load(open_clip_folder("quick_gelu")), tmp_path / "release")
    edit(folder / part / "open_clip_config.json", lambda config: config["model_cfg"].update(quick_gelu=False))
    with pytest.raises(ReleaseError, match=f"its {part} part was trained with QuickGELU, its configuration builds one with GELU"):
        zoo.load(folder)


def test_settings_that_mean_nothing_are_refused(open_clip_folder):
    folder = str(open_clip_folder("native"))
    for settings in ({"drop_path": 0.1}, {"pooling": "cls"}):
        with pytest.raises(AssemblyError, match=f"{next(iter(settings))}: .* has no meaning for"):
            build_image_encoder(ImageEncoderConfig(folder, **settings))
    for settings in ({"pooling": "mean"}, {"max_length": 8}, {"bidirectional": True}, {"prompt": "query"}):
        with pytest.raises(AssemblyError, match=f"{next(iter(settings))}: an open_clip text tower has its own"):
            build_text_encoder(TextEmbedderConfig(folder, **settings))


def test_a_folder_with_two_models_asks_which(open_clip_folder, tmp_path):
    import timm

    folder = shutil.copytree(open_clip_folder("native"), tmp_path / "both")
    trunk = timm.create_model("test_vit", num_classes=0)
    config = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": trunk.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(NameGrammarError, match="holds a model for open_clip and for timm; say which with kind"):
        build_image_encoder(ImageEncoderConfig(str(folder)))
    assert build_image_encoder(ImageEncoderConfig(str(folder), kind="open_clip")).width == 16
    assert zoo.load(folder).family == "clip", "a whole model can only be open_clip's"


def test_hf_text_tower_that_was_moved(open_clip_folder, tiny_embedder, tmp_path, captions):
    """The configuration of a transformers tower is looked for where the description says, else beside it."""
    folder = shutil.copytree(open_clip_folder("hf_text"), tmp_path / "clip")
    wanted = zoo.load(folder).encode_text(captions)
    shutil.copy(tiny_embedder / "config.json", folder / "config.json")
    edit(folder / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name=str(tmp_path / "gone")))
    assert torch.equal(zoo.load(folder).encode_text(captions), wanted)


def test_layouts_were_not_changed(layouts, open_clip_folder):
    for layout in ("native", "siglip"):
        written = json.loads((open_clip_folder(layout) / "open_clip_config.json").read_text())["model_cfg"]
        assert written == copy.deepcopy(layouts[layout][0])
