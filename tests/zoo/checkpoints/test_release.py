"""Releases: what is saved is what is loaded, from the folder alone; everything that does not fit is an error that names it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from modalign import zoo
from modalign.zoo.checkpoints import release as release_module
from modalign.zoo.checkpoints.card import model_card
from modalign.zoo.checkpoints.hashing import file_sha256, weights_sha256
from modalign.zoo.checkpoints.release import find_release, load, read_release, save_release
from modalign.zoo.errors import NameGrammarError, ReleaseError
from modalign.zoo.registry import FAMILIES

TEXTS = ["thing number 3", "Ding Nummer 40", "item"]


@pytest.fixture
def sources(tmp_path, tiny_embedder):
    """Two local folders with pretrained parts that a test may delete or change."""
    folder = tmp_path / "sources"
    shutil.copytree(tiny_embedder, folder / "embedder")
    (folder / "trunk").mkdir()
    torch.manual_seed(4)
    trunk = timm.create_model("test_vit", pretrained=False, num_classes=0, pre_norm=True)
    config = {
        "architecture": "test_vit",
        "num_classes": 0,
        "model_args": {"pre_norm": True},
        "pretrained_cfg": trunk.pretrained_cfg,
    }
    (folder / "trunk" / "config.json").write_text(json.dumps(config))
    save_file(trunk.state_dict(), folder / "trunk" / "model.safetensors")
    return folder


@pytest.fixture
def model(sources):
    torch.manual_seed(0)
    settings = {
        "embed_dim": 16,
        "image": {"name": str(sources / "trunk"), "drop_path": 0.1},
        "text_embedder": {"name": f"local-dir:{sources / 'embedder'}", "prefix": "query: ", "max_length": 16},
        "text_projector": {"name": "proclip", "options": {"expansion": 2, "dropout": 0.1}},
    }
    made = FAMILIES.get("proclip").from_settings(settings)
    return made.eval()


@pytest.fixture
def pictures(picture_of):
    return [picture_of(number, 50 + number) for number in range(4)]


def vectors(model, pictures):
    return model.encode_image(pictures), model.encode_text(TEXTS)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


# full


@pytest.mark.parametrize("public", [True, False])
def test_full_release_loads_from_its_folder_alone_bit_for_bit(model, pictures, sources, tmp_path, public, own_home):
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    model.logit_scale.data.fill_(3.25)
    wanted = vectors(model, pictures)
    folder = save_release(model, tmp_path / "release", public=public)
    shutil.rmtree(sources)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    loaded = load(moved)
    assert type(loaded) is type(model)
    assert not any(module.training for module in loaded.modules())
    assert same(vectors(loaded, pictures), wanted)
    assert loaded.logit_scale.item() == 3.25
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_a_release_of_a_loaded_release_is_the_same(model, pictures, sources, tmp_path):
    wanted = vectors(model, pictures)
    first = save_release(model, tmp_path / "first")
    shutil.rmtree(sources)
    second = save_release(load(first), tmp_path / "second")
    assert same(vectors(load(second), pictures), wanted)
    for name in ("config.json", "model.safetensors", "release.json", "image/config.json", "text/config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_asset_sources_are_not_asked_for(model, tmp_path, own_home, pictures, monkeypatch):
    """A release that started from assets loads on a machine that has none of them and no network."""
    folder = save_release(model, tmp_path / "release")

    def change(config):
        config["model"]["image"]["name"] = "asset:efficientnet-lite0"
        config["model"]["text_embedder"]["name"] = "asset:multilingual-e5-small"

    edit(folder / "config.json", change)
    asked = []
    monkeypatch.setattr("modalign.zoo.encoders.sources.local_folder", lambda name: asked.append(str(name)))
    assert same(vectors(load(folder), pictures), vectors(model, pictures))
    assert asked == []


def test_clip_with_a_tower_from_scratch(tiny_model, pictures, tmp_path):
    torch.manual_seed(0)
    settings = {
        "embed_dim": 16,
        "image": tiny_model["image"],
        "text_tower": {"context_length": 12, "width": 16, "heads": 2, "layers": 1, "embed_dim": 16},
        "text_projector": None,
    }
    model = FAMILIES.get("clip").from_settings(settings).eval()
    folder = save_release(model, tmp_path / "release")
    assert read_release(folder)[1]["parts"] == {}, "nothing was pretrained"
    assert same(vectors(load(folder), pictures), vectors(model, pictures))


def test_preprocessing_is_the_releases_own(model, pictures, tmp_path):
    folder = save_release(model, tmp_path / "release")
    before = model.image.preprocess
    edit(folder / "config.json", lambda config: config["image_preprocess"].update(mean=[0.1, 0.2, 0.3], crop_fraction=0.5))
    loaded = load(folder)
    assert loaded.image.preprocess.mean == (0.1, 0.2, 0.3)
    assert loaded.image.preprocess.crop_fraction == 0.5
    assert loaded.image.preprocess.size == before.size
    assert not torch.equal(loaded.encode_image(pictures), model.encode_image(pictures))


def test_files_of_a_release(model, tmp_path):
    folder = save_release(model, tmp_path / "release", card="# mine\n")
    assert (folder / "README.md").read_text() == "# mine\n"
    release = json.loads((folder / "release.json").read_text())
    assert (release["format"], release["kind"]) == ("modalign-release/1", "full")
    state = model.state_dict()
    for part in ("image", "text"):
        wanted = weights_sha256({name: tensor for name, tensor in state.items() if name.startswith(f"{part}.")})
        assert release["parts"][part]["sha256"] == wanted
        assert release["parts"][part]["included"] is True
    assert {path.name for path in tmp_path.iterdir()} == {"sources", "release"}, "nothing is left beside it"


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_public_release_states_no_folder_of_this_machine(model, sources, tmp_path, kind):
    evaluation = {
        "data": str(tmp_path / "shards"),
        "n": {"images": 4, "texts": 4},
        "metrics": {way: {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0} for way in ("text_to_image", "image_to_text")},
        "baselines": {"chance": {"text_to_image": {"R@10": 1.0}}},
    }
    card = model_card(model, "title", evaluation, {str(tmp_path / "train"): "CC0"})
    folder = save_release(model, tmp_path / "release", kind=kind, card=card)
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for private in (str(tmp_path), str(Path.home()), str(Path(zoo.__file__).parents[1])):
                assert private.encode() not in content, f"{path.name} names {private}"
    assert json.loads((folder / "release.json").read_text())["parts"]["image"]["source"] == "local-dir:trunk"
    assert "`local-dir:embedder`" in (folder / "README.md").read_text()


# adapter


def adapter(model, folder, *trained):
    return save_release(model, folder, kind="adapter", trained=frozenset(trained), public=False)


def test_adapter_leaves_out_what_was_not_trained_and_takes_it_from_the_base(model, pictures, tmp_path):
    model.text_projector.out[1].weight.data += 0.1
    folder = adapter(model, tmp_path / "adapter", "text_projector.out.1.weight")
    stored = load_file(folder / "model.safetensors")
    assert not any(name.startswith(("image.", "text.")) for name in stored)
    assert {"logit_scale", "image_projector.linear.weight", "text_projector.out.1.weight"} <= stored.keys()
    parts = read_release(folder)[1]["parts"]
    assert [parts[part]["included"] for part in ("image", "text")] == [False, False]
    assert same(vectors(load(folder), pictures), vectors(model, pictures))


def test_adapter_carries_a_part_of_which_anything_was_trained(model, pictures, sources, tmp_path):
    model.image.trunk.norm.weight.data += 0.1
    folder = adapter(model, tmp_path / "adapter", "image.trunk.norm.weight")
    stored = load_file(folder / "model.safetensors")
    assert {name for name in model.state_dict() if name.startswith("image.")} <= stored.keys()
    shutil.rmtree(sources / "trunk")
    assert same(vectors(load(folder), pictures), vectors(model, pictures))


@pytest.mark.parametrize(("part", "source"), [("image", "trunk"), ("text", "embedder")])
def test_adapter_without_its_base(model, sources, tmp_path, part, source):
    folder = adapter(model, tmp_path / "adapter")
    shutil.rmtree(sources / source)
    with pytest.raises(ReleaseError) as caught:
        load(folder)
    message = str(caught.value)
    assert "is an adapter on" in message
    assert f"{sources / source} ({part}), which" in message
    assert "cannot be had" in message
    assert "there is no folder" in message


@pytest.mark.parametrize(("part", "source"), [("image", "trunk"), ("text", "embedder")])
def test_adapter_on_other_weights_gives_both_hashes(model, sources, tmp_path, part, source):
    folder = adapter(model, tmp_path / "adapter")
    file = sources / source / "model.safetensors"
    state = load_file(file)
    name = next(iter(sorted(state)))
    state[name].view(-1)[0] += 1e-3
    save_file(state, file, metadata={"format": "pt"})
    wanted = read_release(folder)[1]["parts"][part]["sha256"]
    changed = FAMILIES.get("proclip").part_from_source(model.config, f"{part}.").state_dict()
    have = weights_sha256({f"{part}.{name}": tensor for name, tensor in changed.items()})
    with pytest.raises(ReleaseError) as caught:
        load(folder)
    assert wanted != have
    assert wanted[:12] in str(caught.value)
    assert have[:12] in str(caught.value)
    assert str(sources / source) in str(caught.value)


# damage


def test_weights_that_do_not_fit_are_all_named(model, tmp_path):
    folder = save_release(model, tmp_path / "release")
    state = load_file(folder / "model.safetensors")
    del state["logit_scale"]
    state["stranger"] = torch.zeros(2)
    state["image_projector.linear.weight"] = torch.zeros(3, 5)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ReleaseError) as caught:
        load(folder)
    message = str(caught.value)
    assert "missing: logit_scale;" in message
    assert "unexpected: stranger;" in message
    assert "other shape: image_projector.linear.weight" in message


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_each_misfit_alone_is_refused(model, tmp_path, change):
    folder = save_release(model, tmp_path / "release")
    state = load_file(folder / "model.safetensors")
    name = "text_projector.out.1.bias"
    if change == "missing":
        del state[name]
    elif change == "unexpected":
        state = state | {"x" + name: state[name].clone()}
    else:
        state[name] = state[name][:-1].clone()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ReleaseError, match=name):
        load(folder)


def test_many_missing_weights_are_counted(model, tmp_path):
    folder = save_release(model, tmp_path / "release")
    total = len(model.state_dict())
    save_file({"logit_scale": torch.tensor(1.0)}, folder / "model.safetensors")
    with pytest.raises(ReleaseError, match=f"and {total - 1 - 5} more"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_weights(model, tmp_path, keep):
    folder = save_release(model, tmp_path / "release")
    content = (folder / "model.safetensors").read_bytes()
    end = int(len(content) * keep) if isinstance(keep, float) else keep
    (folder / "model.safetensors").write_bytes(content[:end])
    with pytest.raises(ReleaseError, match=r"model\.safetensors: cannot be read .*the file is damaged, get it again"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "cannot read config.json and release.json"),
        ("release.json", "", "cannot read config.json and release.json"),
        ("release.json", "[]", "must each hold a JSON object"),
        ("config.json", "3", "must each hold a JSON object"),
        ("release.json", '{"kind": "full"}', "format None is not 'modalign-release/1'"),
        ("release.json", '{"format": "modalign-release/99"}', "format 'modalign-release/99' is not 'modalign-release/1'; update"),
        ("release.json", '{"format": "modalign-release/1"}', "missing entries (release.json: kind, release.json: parts)"),
        ("config.json", '{"family": "procilp"}', "family 'procilp' is not in this zoo; did you mean 'proclip'?"),
        ("config.json", '{"family": "proclip"}', "missing entries (config.json: model, config.json: image_preprocess)"),
    ],
)
def test_damaged_descriptions(model, tmp_path, file, content, message):
    folder = save_release(model, tmp_path / "release")
    (folder / file).write_text(content)
    with pytest.raises(ReleaseError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "text/config.json", "image/config.json"])
def test_a_missing_file_is_an_error(model, tmp_path, file):
    folder = save_release(model, tmp_path / "release")
    (folder / file).unlink()
    with pytest.raises(ReleaseError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "again" in str(caught.value)


# writing


@pytest.mark.parametrize("where", ["save_processors", "_dump", "state_dict"])
def test_a_crash_while_writing_leaves_the_old_release_as_it_was(model, pictures, tmp_path, monkeypatch, where):
    folder = save_release(model, tmp_path / "release", card="old")
    before = {path.relative_to(folder): file_sha256(path) for path in folder.rglob("*") if path.is_file()}
    wanted = vectors(model, pictures)
    model.logit_scale.data.fill_(1.0)

    def crash(*arguments, **settings):
        raise OSError("no space left on device")

    monkeypatch.setattr(*((release_module, where) if where == "_dump" else (model, where)), crash)
    with pytest.raises(OSError, match="no space left"):
        save_release(model, folder, card="new")
    monkeypatch.undo()
    assert {path.relative_to(folder): file_sha256(path) for path in folder.rglob("*") if path.is_file()} == before
    assert same(vectors(load(folder), pictures), wanted)
    assert {path.name for path in tmp_path.iterdir()} == {"sources", "release"}, "half a release does not stay behind"


def test_a_crash_while_writing_the_first_release_leaves_none(model, tmp_path, monkeypatch):
    monkeypatch.setattr(release_module, "_dump", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_release(model, tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_a_failed_swap_puts_the_old_release_back(model, pictures, tmp_path, monkeypatch):
    folder = save_release(model, tmp_path / "release", card="old")
    real = os.replace

    def replace(source, target):
        if Path(target) == folder and ".tmp-" in Path(source).name:
            raise OSError("the disk went away")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="went away"):
        save_release(model, folder, card="new")
    monkeypatch.undo()
    assert (folder / "README.md").read_text() == "old"
    load(folder)


def test_a_newer_release_replaces_the_older_whole(model, tmp_path):
    folder = save_release(model, tmp_path / "release", card="old")
    (folder / "left over").touch()
    save_release(model, folder, card="new")
    assert (folder / "README.md").read_text() == "new"
    assert not (folder / "left over").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"sources", "release"}


def test_a_folder_with_other_things_is_never_replaced(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("important")
    with pytest.raises(ReleaseError, match="exists and is not a release"):
        save_release(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "important"
    (tmp_path / "empty").mkdir()
    save_release(model, tmp_path / "empty")
    load(tmp_path / "empty")


# finding


def test_run_folder_release_and_name_forms(model, tmp_path, monkeypatch):
    release = save_release(model, tmp_path / "run" / "release")
    monkeypatch.chdir(tmp_path)
    for name in (release, tmp_path / "run", "run", "./run", "run/release", str(release), f"local-dir:{tmp_path / 'run'}"):
        assert find_release(name).resolve() == release.resolve(), name


def test_what_is_no_release_says_why(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    release = save_release(model, tmp_path / "release")
    (tmp_path / "unfinished").mkdir()
    cases = [
        ("unfinished", ReleaseError, "is the run finished"),
        (str(release / "model.safetensors"), ReleaseError, "is a file; give the folder"),
        ("runs/absent", ReleaseError, "there is no folder 'runs/absent'"),
        ("absent", NameGrammarError, "'absent' is not a name"),
        ("timm:resnet18", ReleaseError, "models load from asset:NAME, hf:ORG/NAME, open_clip:MODEL/TAG or a folder"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind) as caught:
            load(name)
        assert message in str(caught.value), name
        assert name in str(caught.value)
