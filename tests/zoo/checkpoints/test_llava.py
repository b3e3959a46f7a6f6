"""LLaVA folders of transformers, tiny and random: loaded they give transformers' logits to the bit, under every spelling of their names."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modalign import zoo
from modalign.zoo.checkpoints.llava.base import load_llava
from modalign.zoo.checkpoints.llava.folder import is_llava_folder
from modalign.zoo.checkpoints.llava.names import runtime_name, stack_name, to_stack
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import ReleaseError
from modalign.zoo.language.encode import IMAGE_PLACEHOLDER
from modalign.zoo.language.turns import ImagePart, TextPart, conversation

from ..stack import written

SIDE = 28
TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 7,
}
GRIDS = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]


def image_token(words):
    words.add_tokens(["<image>"], special_tokens=True)
    return words.convert_tokens_to_ids("<image>")


def pinpoints(grids):
    return [[rows * SIDE, columns * SIDE] for columns, rows in grids]


def clip():
    return transformers.CLIPVisionConfig(**TINY)


def siglip():
    return transformers.SiglipVisionConfig(**TINY)


CLIP_PROCESSOR = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
NEXT = {"image_grid_pinpoints": pinpoints(GRIDS)}
ONEVISION = {"image_grid_pinpoints": pinpoints([(i, j) for i in (1, 2, 3) for j in (1, 2, 3)])}
#: family, vision, language, settings of the configuration, image processor, processor
FOLDERS = {
    "llava": ("llava", clip, "llama", {}, lambda: transformers.CLIPImageProcessor(**CLIP_PROCESSOR)),
    "llava_layers": (
        "llava",
        clip,
        "mistral",
        {"vision_feature_layer": [-2, -3]},
        lambda: transformers.CLIPImageProcessor(**CLIP_PROCESSOR),
    ),
    "llava_full": (
        "llava",
        clip,
        "llama",
        {"vision_feature_select_strategy": "full"},
        lambda: transformers.CLIPImageProcessor(**CLIP_PROCESSOR),
    ),
    "llava_siglip": (
        "llava",
        siglip,
        "llama",
        {"vision_feature_select_strategy": "full", "vision_feature_layer": -1},
        lambda: transformers.SiglipImageProcessor(**SQUARE),
    ),
    "llava_next": ("llava_next", clip, "mistral", NEXT, lambda: transformers.LlavaNextImageProcessor(**CLIP_PROCESSOR, **NEXT)),
    "llava_onevision": (
        "llava_onevision",
        siglip,
        "qwen2",
        {
            **ONEVISION,
            "vision_aspect_ratio": "anyres_max_2",
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": -1,
        },
        lambda: transformers.LlavaOnevisionImageProcessor(**SQUARE, **ONEVISION),
    ),
    "llava_onevision_tied": (
        "llava_onevision",
        siglip,
        "qwen2",
        {
            **ONEVISION,
            "vision_aspect_ratio": "anyres_max_9",
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": -1,
            "tied": True,
        },
        lambda: transformers.LlavaOnevisionImageProcessor(**SQUARE, **ONEVISION),
    ),
}
CLASSES = {
    "llava": (transformers.LlavaConfig, transformers.LlavaForConditionalGeneration, transformers.LlavaProcessor),
    "llava_next": (transformers.LlavaNextConfig, transformers.LlavaNextForConditionalGeneration, transformers.LlavaNextProcessor),
    "llava_onevision": (
        transformers.LlavaOnevisionConfig,
        transformers.LlavaOnevisionForConditionalGeneration,
        transformers.LlavaOnevisionProcessor,
    ),
}


def write_llava(folder, name, *, seed=0):
    """A folder as transformers writes it."""
    family, vision, language, settings, image_processor = FOLDERS[name]
    config_class, model_class, processor_class = CLASSES[family]
    words, settings = written.tokenizer(), dict(settings)
    token, tied = image_token(words), settings.pop("tied", False)
    text = written.language_config(language, tie_word_embeddings=tied)
    if family == "llava_onevision":
        settings["video_token_id"] = 0
    config = config_class(vision_config=vision(), text_config=text, image_token_id=token, tie_word_embeddings=tied, **settings)
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    more = {"patch_size": 7, "num_additional_image_tokens": int(vision is clip)}
    if family == "llava_onevision":
        video = transformers.LlavaOnevisionVideoProcessor(**SQUARE)
        more = {"num_image_tokens": 16, "vision_aspect_ratio": config.vision_aspect_ratio, "video_processor": video}
    strategy = config.vision_feature_select_strategy
    processor = processor_class(
        image_processor=image_processor(), tokenizer=words, vision_feature_select_strategy=strategy, **more
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = write_llava(tmp_path_factory.mktemp(name) / name, name)
        return made[name]

    return folder


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / folder.name)


ONE = conversation(("user", [ImagePart(0), TextPart("\nWhat is it?")]))
TWO = conversation(("user", [ImagePart(0), TextPart(" or "), ImagePart(1), TextPart("?")]))
TEXT = conversation(("user", "How many birds are there?"))
TALKS = {
    "one": (ONE, [written.photo(60, 40)]),
    "tall": (ONE, [written.photo(20, 90)]),
    "two": (TWO, [written.photo(30, 50, 1), written.photo(70, 40, 2)]),
    "text": (TEXT, []),
}


def inputs_of(model, theirs, talk):
    """Our batch, and the same for transformers: pictures as normalised tiles, each placeholder as its image token."""
    dialogue, images = TALKS[talk]
    batch = model.collate()([model.prepare()("a", dialogue, images, prompt=True)])
    batch.pop("labels")
    ids = torch.where(batch["ids"] == IMAGE_PLACEHOLDER, theirs.config.image_token_id, batch["ids"])
    given = {"input_ids": ids}
    if images:
        pixels = model.image.normalise(batch["image"])
        if model.family != "llava":
            tiles = pixels.split(batch["image_tiles"].tolist())
            most = max(len(part) for part in tiles)
            pixels = torch.stack([torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])]) for part in tiles])
            given["image_sizes"] = batch["image_sizes"].flip(1)
        if model.family == "llava_onevision":
            given["batch_num_images"] = torch.tensor([len(images)])
        given["pixel_values"] = pixels
    return batch, given


@torch.no_grad()
def difference(folder, model, talk):
    theirs = CLASSES[model.family][1].from_pretrained(folder).eval()
    batch, given = inputs_of(model, theirs, talk)
    return (model(batch)["logits"] - theirs(**given).logits).abs().max().item()


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_transformers_to_the_bit(folder_of, name, talk):
    model = load_llava(folder_of(name))
    assert model.family == FOLDERS[name][0] and not model.training
    assert difference(folder_of(name), model, talk) == 0.0


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_and_pixels_are_those_of_transformers_processor(folder_of, name):
    """Pixels up to one step of 255 and a little: its processors resize through floats."""
    model = load_llava(folder_of(name))
    processor = transformers.AutoProcessor.from_pretrained(folder_of(name))
    theirs = transformers.AutoConfig.from_pretrained(folder_of(name))
    batch, _ = inputs_of(model, type("Theirs", (), {"config": theirs}), "one")
    layouts = {"mistral_instruct": "[INST] <image>\nWhat is it? [/INST]", "vicuna_v1": "USER: <image>\nWhat is it? ASSISTANT:"}
    layouts["qwen_1_5"] = "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    found = processor(text=layouts[model.config.chat.template], images=TALKS["one"][1], return_tensors="pt")
    ids = torch.where(batch["ids"] == IMAGE_PLACEHOLDER, theirs.image_token_id, batch["ids"])
    assert found["input_ids"].tolist() == ids.tolist()
    pixels = found["pixel_values"].flatten(0, found["pixel_values"].ndim - 4)
    off = (model.image.normalise(batch["image"]) - pixels).abs() * model.image.std * 255
    assert off.max() < 2.5 and off.mean() < 0.3


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("llava", {"mode": "own", "layer": -2, "prefix": False, "template": "vicuna_v1"}),
        ("llava_layers", {"mode": "own", "layer": [-2, -3], "prefix": False, "template": "mistral_instruct"}),
        ("llava_full", {"mode": "own", "layer": -2, "prefix": True, "template": "vicuna_v1"}),
        ("llava_siglip", {"mode": "own", "layer": -1, "prefix": False, "template": "vicuna_v1"}),
        ("llava_next", {"mode": "anyres", "layer": -2, "prefix": False, "template": "mistral_instruct"}),
        ("llava_onevision", {"mode": "anyres", "layer": -1, "prefix": False, "template": "qwen_1_5"}),
    ],
)
def test_settings_are_read_from_the_folder(folder_of, name, wanted):
    config = load_llava(folder_of(name)).config
    found = {
        "mode": config.picture.mode,
        "layer": config.feature_layer,
        "prefix": config.keep_prefix,
        "template": config.chat.template,
    }
    assert found == wanted
    if name == "llava_next":
        assert [tuple(grid) for grid in config.picture.grids] == GRIDS and config.picture.most is None
    if name == "llava_onevision":
        assert config.picture.most == 2 and config.picture.several == "whole" and len(config.picture.grids) == 9


# names


def renamed(folder, tmp_path, rename):
    """A copy whose weights have other names."""
    copy = copied(folder, tmp_path)
    state = load_file(copy / "model.safetensors")
    save_file({rename(name): tensor for name, tensor in state.items()}, copy / "model.safetensors", {"format": "pt"})
    return copy


def legacy(name):
    """As the first conversions on the hub are written."""
    name = name.removeprefix("model.") if name.startswith(("model.vision", "model.multi", "model.image")) else name
    if name.startswith("model.language_model."):
        name = f"language_model.model.{name.removeprefix('model.language_model.')}"
    if name.startswith("lm_head"):
        name = f"language_model.{name}"
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        name = f"vision_tower.vision_model.{name.removeprefix('vision_tower.')}"
    return name


def current(name):
    """As the modules are named today."""
    return runtime_name(stack_name(name))


@pytest.mark.parametrize("rename", [legacy, current])
@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "llava_onevision_tied"])
def test_old_names_and_those_of_today_load_alike(folder_of, tmp_path, name, rename):
    folder = folder_of(name)
    copy = renamed(folder, tmp_path, rename)
    before, after = (set(load_file(place / "model.safetensors")) for place in (folder, copy))
    assert before != after, "otherwise nothing would be shown"
    found, wanted = load_llava(copy).state_dict(), load_llava(folder).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert difference(copy, load_llava(copy), "one") == 0.0, "and transformers reads them too"


@pytest.mark.parametrize("name", FOLDERS)
def test_names_go_to_transformers_runtime_names_and_back(folder_of, name):
    model = load_llava(folder_of(name))
    theirs = CLASSES[model.family][1].from_pretrained(folder_of(name))
    own = {runtime_name(key): value for key, value in model.state_dict().items()}
    for key, value in theirs.named_parameters():
        assert torch.equal(own.pop(key), value), key
    assert all("position_ids" in key for key in own)
    assert all(stack_name(runtime_name(key)) == key for key in model.state_dict())


def test_names_of_the_original_are_known():
    pairs = {
        "model.embed_tokens.weight": "language_base.model.embed_tokens.weight",
        "model.layers.3.mlp.up_proj.weight": "language_base.model.layers.3.mlp.up_proj.weight",
        "model.norm.weight": "language_base.model.norm.weight",
        "lm_head.weight": "language_base.lm_head.weight",
        "model.mm_projector.0.weight": "projector.layers.0.weight",
        "model.mm_projector.2.bias": "projector.layers.3.bias",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.0.layer_norm1.bias": "image.model.encoder.layers.0.layer_norm1.bias",
        "model.image_newline": "newline",
    }
    assert {name: stack_name(name) for name in pairs} == pairs
    with pytest.raises(ReleaseError, match=r"shown: no part of LLaVA has a weight 'model\.mm_projector\.1\.weight' \(1 such\)"):
        to_stack({"model.mm_projector.1.weight": torch.zeros(1)}, "model", "shown")
    with pytest.raises(ReleaseError, match="two projectors of one model"):
        to_stack(
            {"model.mm_projector.0.weight": torch.zeros(1), "multi_modal_projector.linear_1.weight": torch.zeros(1)}, "model", "x"
        )


# what is refused


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("multi_modal_projector.linear_2.bias", r"missing: projector\.layers\.3\.bias"),
        ("multi_modal_projector.linear_1.weight", r"missing: projector\.layers\.0\.weight"),
        ("image_newline", "missing: newline"),
        ("lm_head.weight", r"missing: language_base\.lm_head\.weight"),
        ("layers.1.mlp.up_proj.weight", r"missing: language_base\.model\.layers\.1\.mlp\.up_proj\.weight"),
        ("encoder.layers.0.layer_norm1.bias", r"missing: image\.model\.encoder\.layers\.0\.layer_norm1\.bias"),
    ],
)
def test_a_missing_weight_is_an_error_and_never_left_at_random(folder_of, tmp_path, part, told):
    copy = copied(folder_of("llava_next"), tmp_path)
    state = load_file(copy / "model.safetensors")
    name = next(name for name in state if name.endswith(part))
    state.pop(name)
    save_file(state, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ReleaseError, match=rf"its weights do not fill the model \({told}\); a part is never left at random"):
        load_llava(copy)


def test_a_weight_too_many_or_of_another_shape_is_an_error(folder_of, tmp_path):
    copy = copied(folder_of("llava"), tmp_path)
    state = load_file(copy / "model.safetensors")
    save_file(state | {"something.weight": torch.zeros(2)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ReleaseError, match=r"no part of LLaVA has a weight 'something\.weight'"):
        load_llava(copy)
    name = next(name for name in state if name.endswith("linear_1.weight"))
    save_file(state | {name: torch.zeros(3, 3)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ReleaseError, match=r"of another shape: projector\.layers\.0\.weight"):
        load_llava(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ReleaseError, match=r"has no weights \(model\*\.safetensors\)"):
        load_llava(copy)


def changed(folder, tmp_path, **values):
    copy = copied(folder, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | values))
    return copy


def test_what_cannot_be_followed_is_refused(folder_of, tmp_path):
    for number, (name, values, told) in enumerate(
        (
            ("llava_siglip", {"vision_feature_select_strategy": "default"}, "would drop a piece of the picture"),
            ("llava", {"projector_hidden_act": "relu"}, "its projector has relu or no biases"),
            ("llava", {"multimodal_projector_bias": False}, "no biases"),
        )
    ):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ReleaseError, match=told):
            load_llava(changed(folder_of(name), tmp_path / str(number), **values))


def test_a_folder_that_does_not_say_how_pictures_are_prepared_is_an_error(folder_of, tmp_path):
    copy = copied(folder_of("llava"), tmp_path)
    for file in ("preprocessor_config.json", "processor_config.json"):
        (copy / file).unlink(missing_ok=True)
    with pytest.raises(ReleaseError, match=r"has no preprocessor_config\.json, so nothing says how pictures are prepared"):
        load_llava(copy)


def test_only_llava_folders_are_llava_folders(folder_of, tmp_path):
    assert all(is_llava_folder(folder_of(name)) for name in FOLDERS)
    written.write_language(tmp_path / "language")
    assert not is_llava_folder(tmp_path / "language") and not is_llava_folder(tmp_path)
    with pytest.raises(ReleaseError, match="is of no LLaVA that transformers has"):
        load_llava(tmp_path / "language")


# and then


def shaken(model):
    trained = [name for name, _ in model.named_parameters() if model.role_of(name) in ("projector", "adapter")]
    with torch.no_grad():
        for name in trained:
            model.get_parameter(name).add_(0.1)
    return frozenset(trained)


def logits(model):
    dialogue, images = TALKS["two"]
    batch = model.collate()([model.prepare()("a", dialogue, images, prompt=True)])
    with torch.no_grad():
        return model({name: value for name, value in batch.items() if name != "labels"})["logits"]


@pytest.mark.parametrize("kind", ["full", "adapter"])
@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision_tied"])
def test_what_starts_from_a_folder_is_released_and_loaded(folder_of, tmp_path, name, kind):
    folder = copied(folder_of(name), tmp_path)
    model = load_llava(folder, {"lora": {"rank": 2, "dropout": 0.0}})
    assert torch.equal(logits(model), logits(load_llava(folder))), "LoRA begins as nothing"
    trained = shaken(model)
    save_release(model, tmp_path / "release", kind=kind, trained=trained, public=False)
    if kind == "full":
        shutil.rmtree(folder)
        assert torch.equal(logits(zoo.load(tmp_path / "release")), logits(model))
        return
    assert torch.equal(logits(zoo.load(tmp_path / "release")), logits(model))
    state = load_file(folder / "model.safetensors")
    changed_name = next(key for key in state if key.endswith("layers.0.mlp.up_proj.weight"))
    save_file(state | {changed_name: state[changed_name] + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ReleaseError, match=r"is an adapter on .* with weights sha256 .* but what is there now has"):
        zoo.load(tmp_path / "release")


def test_zoo_load_takes_a_folder(folder_of):
    assert torch.equal(logits(zoo.load(folder_of("llava"))), logits(load_llava(folder_of("llava"))))
