"""The contract of every family of pictures and texts: forward, backward, roles, release, old releases, scalars of either shape.

That of time series is in test_series_contract.py.
"""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modalign import zoo
from modalign.zoo.checkpoints.release import read_release, save_release
from modalign.zoo.errors import AssemblyError, ReleaseError
from modalign.zoo.registry import FAMILIES

ROLES = {"encoder", "projector", "language", "adapter", "embedder", "head", "aux"}


PAIR_FAMILIES = [name for name in FAMILIES.names() if getattr(FAMILIES.get(name), "data_kind", "pairs") == "pairs"]


@pytest.fixture(scope="module", params=PAIR_FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family, family_settings):
    torch.manual_seed(0)
    made = FAMILIES.get(family).from_settings(family_settings(family)).eval()
    for name, parameter in made.named_parameters():
        if not name.startswith("logit"):
            parameter.data += 0.01 * torch.randn_like(parameter)
    return made


def batch_of(model, photos, captions, rows=4):
    tokens, again = model.text.tokenizer()(captions[:rows]), model.text.tokenizer()(captions[:rows][::-1])
    return {
        "image": torch.stack([model.image.preprocess(photo) for photo in photos[:rows]]),
        "text_ids": tokens["ids"],
        "text_mask": tokens["mask"],
        "second_text_ids": again["ids"],
        "second_text_mask": again["mask"],
    }


def test_outputs(model, photos, captions):
    outputs = model(batch_of(model, photos, captions))
    for name in ("image_embedding", "text_embedding", "second_text_embedding"):
        assert outputs[name].shape == (4, model.config.embed_dim)
        torch.testing.assert_close(outputs[name].norm(dim=-1), torch.ones(4), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs["second_text_embedding"].flip(0), outputs["text_embedding"], rtol=1e-4, atol=1e-5)
    assert outputs["logit_scale"].shape == ()
    assert ("logit_bias" in outputs) == (model.logit_bias is not None) == (model.family == "siglip")
    images, texts = model.encode_image(photos[:4]), model.encode_text(captions[:4])
    torch.testing.assert_close(images, outputs["image_embedding"].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(texts, outputs["text_embedding"].detach(), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter_that_may_train(model, photos, captions):
    batch = batch_of(model, photos, captions)
    trained = copy.deepcopy(model).requires_grad_(True)
    outputs = trained(batch)
    loss = sum(
        (value * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))).sum()
        for value in outputs.values()
        if value.is_floating_point()
    )
    loss.backward()
    without = {name for name, parameter in trained.named_parameters() if parameter.grad is None}
    assert not {name for name in without if "mask_token" not in name}


def test_one_role_each(model):
    roles = {name: model.role_of(name) for name, _ in model.named_parameters()}
    assert set(roles.values()) <= ROLES
    assert {"encoder", "embedder", "projector", "aux"} <= set(roles.values())
    for name, role in roles.items():
        if role == "encoder":
            assert name.startswith("image.")
        if role == "aux":
            assert name in ("logit_scale", "logit_bias")
    parts = [prefix for prefixes in model.parts.values() for prefix in prefixes]
    assert all(name.startswith(tuple(parts)) for name in roles), "every parameter is of a part that init_from can take"


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_release_round_trip(model, kind, photos, captions, tmp_path):
    trained = frozenset(name for name, _ in model.named_parameters())
    folder = save_release(model, tmp_path / "release", kind=kind, trained=trained, public=False)
    again = zoo.load(folder)
    assert type(again) is type(model)
    assert again.config == model.config
    assert torch.equal(again.encode_image(photos), model.encode_image(photos))
    assert torch.equal(again.encode_text(captions), model.encode_text(captions))
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    second = save_release(again, tmp_path / "second", kind=kind, trained=trained, public=False)
    for file in ("config.json", "model.safetensors", "release.json"):
        assert (second / file).read_bytes() == (folder / file).read_bytes(), file
    assert read_release(folder)[1]["quick_gelu"] == model.quick_gelu()


def test_untrained_parts_come_from_their_source(family, family_settings, photos, captions, tmp_path):
    """An adapter of a model nobody trained holds no pretrained part and loads exactly."""
    model = FAMILIES.get(family).from_settings(family_settings(family)).eval()
    folder = save_release(model, tmp_path / "adapter", kind="adapter", public=False)
    stored = load_file(folder / "model.safetensors")
    assert not any(name.startswith(tuple(model.sources())) for name in stored) or not model.sources()
    again = zoo.load(folder)
    assert torch.equal(again.encode_image(photos), model.encode_image(photos))
    assert torch.equal(again.encode_text(captions), model.encode_text(captions))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_scalars_of_either_shape(model, shape, photos, captions, tmp_path):
    """Sharding keeps scalars as vectors of length one; older releases and open_clip as scalars. Each loads into the other."""
    other = copy.deepcopy(model)
    other.logit_scale = torch.nn.Parameter(model.logit_scale.detach().reshape(shape).clone())
    if other.logit_bias is not None:
        other.logit_bias = torch.nn.Parameter(model.logit_bias.detach().reshape(shape).clone())
    other.load_state_dict(model.state_dict())
    copy.deepcopy(model).load_state_dict(other.state_dict())
    outputs = other({})
    assert outputs["logit_scale"].shape == ()
    with torch.no_grad():
        other.logit_scale.fill_(9.0)
    other.after_step()
    assert other.logit_scale.item() == pytest.approx(4.6051702)
    again = zoo.load(save_release(other, tmp_path / "release"))
    assert again.logit_scale.shape == ()
    assert again.logit_scale.item() == pytest.approx(4.6051702)


def test_matryoshka_dimensions(model, photos, captions):
    full = model.encode_image(photos), model.encode_text(captions)
    for vectors, short in zip(full, (model.encode_image(photos, dim=8), model.encode_text(captions, dim=8)), strict=True):
        assert short.shape == (len(vectors), 8)
        torch.testing.assert_close(short, vectors[:, :8] / vectors[:, :8].norm(dim=1, keepdim=True))
    assert torch.equal(model.encode_text(captions, dim=model.config.embed_dim), torch.nn.functional.normalize(full[1], dim=-1))
    for dim in (0, -1, model.config.embed_dim + 1):
        for call in (lambda d: model.encode_image(photos, dim=d), lambda d: model.encode_text(captions, dim=d)):
            with pytest.raises(AssemblyError, match=f"dim: {dim} is not between 1 and {model.config.embed_dim}"):
                call(dim)


def test_gradient_checkpointing_changes_no_gradient(model, photos, captions):
    batch = batch_of(model, photos, captions)
    saving = copy.deepcopy(model).requires_grad_(True).train()
    for module in saving.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    gradients = []
    for enable in (False, True):
        saving.set_grad_checkpointing(enable)
        saving.zero_grad(set_to_none=True)
        outputs = saving(batch)
        (outputs["image_embedding"].pow(3).sum() + outputs["text_embedding"].pow(3).sum()).backward()
        gradients.append([p.grad.clone() for p in saving.parameters() if p.grad is not None])
    assert len(gradients[0]) > 10
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_it_has_a_card(family):
    import inspect

    text = Path(inspect.getfile(FAMILIES.get(family))).with_name("README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {family}\n")
    assert "arXiv" in text or "et al." in text


def test_a_release_from_before_projections_were_split_off(family_settings, photos, captions, tmp_path):
    """A text tower from scratch once kept its projection inside the tower, and scalars were scalars."""
    torch.manual_seed(0)
    model = FAMILIES.get("clip").from_settings(family_settings("clip")).eval()
    folder = save_release(model, tmp_path / "release")
    state = load_file(folder / "model.safetensors")
    state["text.model.text_projection"] = state.pop("text_projector.weight")
    save_file(state, folder / "model.safetensors")
    again = zoo.load(folder)
    assert torch.equal(again.encode_text(captions), model.encode_text(captions))
    state["text_projector.weight"] = state["text.model.text_projection"].clone()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ReleaseError, match=r"unexpected: text\.model\.text_projection"):
        zoo.load(folder)
