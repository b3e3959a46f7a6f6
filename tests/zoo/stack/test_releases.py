"""Releases of stacks: full ones load without their sources, adapters name their base by hash; LoRA begins as nothing."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import AssemblyError, ReleaseError
from modalign.zoo.registry import FAMILIES

from .test_model import SAMPLES, batch_of, logits_of, total_of

LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.0}


@pytest.fixture
def own_parts(stack_settings, clip_folder, language_folder, tmp_path):
    """Settings of a stack whose sources may be changed or deleted, and their folder."""

    def settings(language="llama", **sections):
        sources = tmp_path / "sources"
        shutil.copytree(clip_folder, sources / "clip")
        shutil.copytree(language_folder(language), sources / "language")
        names = {"image": {"name": f"local-dir:{sources / 'clip'}"}, "language": {"name": f"local-dir:{sources / 'language'}"}}
        return stack_settings(names["language"], image=names["image"], **sections), sources

    return settings


def shaken(model):
    """Every parameter that an adapter run trains away from where it started; their names."""
    trained = [name for name, _ in model.named_parameters() if model.role_of(name) in ("projector", "adapter")]
    torch.manual_seed(3)
    with torch.no_grad():
        for name in trained:
            model.get_parameter(name).add_(0.3 * torch.randn_like(model.get_parameter(name)))
    return frozenset(trained)


def same(model, other):
    batch, found = batch_of(model), batch_of(other)
    assert all(torch.equal(batch[name], found[name]) for name in batch if isinstance(batch[name], torch.Tensor))
    return torch.equal(logits_of(model, batch), logits_of(other, found))


@pytest.mark.parametrize("language", ["llama", "gpt2"])
@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
def test_a_full_release_loads_without_its_sources(own_parts, tmp_path, family, language):
    settings, sources = own_parts(language, lora=LORA if family == "llava_next" else None)
    model = FAMILIES.get(family).from_settings(settings).eval()
    shaken(model)
    save_release(model, tmp_path / "release")
    shutil.rmtree(sources)
    loaded = zoo.load(tmp_path / "release")
    assert type(loaded) is type(model) and not loaded.training and same(model, loaded)
    assert [*loaded.state_dict()] == [*model.state_dict()]
    assert loaded.image.preprocess == model.image.preprocess and loaded.layout == model.layout
    saved = load_file(tmp_path / "release" / "model.safetensors")
    assert {name for name in saved if name.startswith("language")} == {
        name for name in model.state_dict() if name.startswith("language")
    }
    assert sum(t.numel() for t in saved.values()) == sum(p.numel() for p in model.parameters()), "each weight once"


@pytest.mark.parametrize("part", ["projector.layers.0.weight", "language_base.model.norm.weight", "newline"])
def test_a_missing_weight_of_a_release_is_an_error(stack, tmp_path, part):
    save_release(stack("llava_next"), tmp_path / "release")
    state = load_file(tmp_path / "release" / "model.safetensors")
    state.pop(part)
    save_file(state, tmp_path / "release" / "model.safetensors")
    with pytest.raises(ReleaseError, match=rf"missing: {part}"):
        zoo.load(tmp_path / "release")


# LoRA


@pytest.mark.parametrize("language", ["llama", "gpt2", "opt"])
def test_lora_begins_as_nothing(stack, language):
    plain, adapted = stack(language=language), stack(language=language, lora={**LORA, "dropout": 0.3})
    adapted.load_state_dict(plain.state_dict(), strict=False)
    batch = batch_of(plain)
    assert torch.equal(logits_of(adapted, batch), logits_of(plain, batch))
    shaken(adapted)
    assert (total_of(adapted, batch) - total_of(plain, batch)).abs().min() > 1e-3


def test_lora_stands_beside_every_linear_layer_of_the_blocks_and_not_of_the_head(stack):
    model = stack(lora=LORA)
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    only = stack(lora={**LORA, "targets": ["q_proj"]})
    assert sum(".lora_A." in name for name, _ in only.named_parameters()) == 2
    with pytest.raises(AssemblyError, match=r"model\.lora\.targets: .* has no layer 'c_attn'"):
        stack(lora={**LORA, "targets": ["c_attn"]})


def test_lora_adds_its_product(stack):
    """`W x + (alpha / r) B A x` of one layer."""
    model = stack(lora=LORA)
    shaken(model)
    layer = model.language.body.layers[0].mlp.up_proj
    x = torch.randn(3, 16)
    wanted = x @ layer.weight.T + 4.0 * (x @ layer.lora_A["default"].weight.T) @ layer.lora_B["default"].weight.T
    torch.testing.assert_close(layer(x), wanted)


def adapter_of(own_parts, tmp_path, **sections):
    settings, sources = own_parts(lora=LORA, **sections)
    model = FAMILIES.get("llava_next").from_settings(settings).eval()
    save_release(model, tmp_path / "adapter", kind="adapter", trained=shaken(model), public=False)
    return model, sources, tmp_path / "adapter"


def test_an_adapter_holds_what_was_trained_and_finds_the_rest(own_parts, tmp_path):
    model, _, folder = adapter_of(own_parts, tmp_path)
    saved = load_file(folder / "model.safetensors")
    assert {name.partition(".")[0] for name in saved} == {"projector", "newline", "language"}
    assert all(".lora_" in name for name in saved if name.startswith("language"))
    about = json.loads((folder / "release.json").read_text())
    assert about["kind"] == "adapter" and set(about["parts"]) == {"image", "language_base"}
    assert all(len(part["sha256"]) == 64 and not part["included"] for part in about["parts"].values())
    assert same(model, zoo.load(folder))


@pytest.mark.parametrize("part", ["clip", "language"])
def test_an_adapter_on_another_base_is_an_error(own_parts, tmp_path, part):
    _, sources, folder = adapter_of(own_parts, tmp_path)
    state = load_file(sources / part / "model.safetensors")
    name = next(name for name in state if "layers.0" in name)
    state[name] = state[name] + 1e-3
    save_file(state, sources / part / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ReleaseError, match=rf"is an adapter on local-dir:.*{part} with weights sha256 .* but what is there now has"
    ):
        zoo.load(folder)
    shutil.rmtree(sources / part)
    with pytest.raises(ReleaseError, match="which cannot be had"):
        zoo.load(folder)


def test_a_part_that_was_trained_is_part_of_the_adapter(own_parts, tmp_path):
    settings, sources = own_parts()
    model = FAMILIES.get("llava").from_settings(settings).eval()
    trained = frozenset({"language_base.model.norm.weight", *shaken(model)})
    save_release(model, tmp_path / "adapter", kind="adapter", trained=trained, public=False)
    shutil.rmtree(sources / "language")
    assert same(model, zoo.load(tmp_path / "adapter")), "and needs no source of it"


def test_a_saved_conversation_is_prepared_alike(stack, tmp_path):
    model = stack(
        "llava_onevision", chat={"template": "qwen_1_5", "system": "Be short.", "pictures_first": True, "box_decimals": 2}
    )
    save_release(model, tmp_path / "release")
    loaded = zoo.load(tmp_path / "release")
    for name, (dialogue, images) in SAMPLES.items():
        one, other = (made.prepare()(name, dialogue, images) for made in (model, loaded))
        assert one["ids"] == other["ids"] and one["labels"] == other["labels"]
    assert (loaded.config.chat, loaded.config.picture) == (model.config.chat, model.config.picture)
