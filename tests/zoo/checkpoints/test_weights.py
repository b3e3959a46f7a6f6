"""Files of weights that somebody else wrote: tensors are read, nothing is run, no header is believed."""

import json
import os
import pickle
import shutil
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.checkpoints.weights import (
    MAX_HEADER,
    check_safetensors,
    load_strictly,
    read_weights,
    unshared,
    weight_names,
)
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from modalign.zoo.errors import ModalignError, ReleaseError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2.5), "c": torch.zeros(0, 4)}


class Payload:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("file", ["x.safetensors", "x.bin", "x.pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_kind_of_file(file, wrapped, tmp_path):
    if file.endswith(".safetensors"):
        named = {f"module.{name}": value for name, value in STATE.items()} if wrapped else STATE
        save_file(named, tmp_path / file)
    else:
        named = {f"module.{name}": value for name, value in STATE.items()} if wrapped else STATE
        torch.save({"epoch": 3, "state_dict": named, "note": "x"} if wrapped else STATE, tmp_path / file)
    state = read_weights(tmp_path / file)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], value) for name, value in STATE.items())
    assert {name.removeprefix("module.") for name in weight_names(tmp_path / file)} == STATE.keys()


def test_only_wanted_names_are_read(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors", lambda name: name.startswith("a.")).keys() == {"a.weight"}


def bomb(path, header, tail=b"{}"):
    path.write_bytes(header.to_bytes(8, "little") + tail)


@pytest.mark.parametrize("header", [2**63 - 1, 2**40, MAX_HEADER + 1, 4096, 3])
def test_header_bombs_are_refused_before_anything_is_allocated(header, tmp_path):
    bomb(tmp_path / "x.safetensors", header)
    tracemalloc.start()
    with pytest.raises(ReleaseError, match=rf"its header claims {header} bytes, the file has 10"):
        read_weights(tmp_path / "x.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_header_that_is_too_long_though_it_is_there(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as stream:
        stream.write((MAX_HEADER + 8).to_bytes(8, "little"))
        stream.truncate(MAX_HEADER + 64)
    with pytest.raises(ReleaseError, match="the limit is"):
        check_safetensors(path)


@pytest.mark.parametrize("content", [b"", b"\0\0\0", (2).to_bytes(8, "little") + b"xx", (2).to_bytes(8, "little") + b"[]"])
def test_damaged_headers(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    for read in (read_weights, weight_names):
        with pytest.raises(ReleaseError, match="cannot be read"):
            read(tmp_path / "x.safetensors")


def test_offsets_that_lie(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("file", ["x.bin", "x.pt", "x.pth"])
@pytest.mark.parametrize("nested", [False, True])
def test_pickled_code_never_runs(file, nested, tmp_path):
    payload = {"a.weight": torch.zeros(2), "evil": Payload(tmp_path / "marker")} if nested else Payload(tmp_path / "marker")
    torch.save(payload, tmp_path / file)
    with pytest.raises(ReleaseError, match="holds code, which is never run"):
        read_weights(tmp_path / file)
    assert not (tmp_path / "marker").exists()


def test_plain_pickles_and_garbage(tmp_path):
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    (tmp_path / "garbage.bin").write_bytes(b"\x80\x05garbage" * 20)
    (tmp_path / "empty.bin").touch()
    torch.save([torch.zeros(2)], tmp_path / "list.bin")
    torch.save({"a": torch.zeros(2), "b": 3}, tmp_path / "number.bin")
    for file, message in (
        ("plain.bin", "cannot be read as tensors alone"),
        ("garbage.bin", "cannot be read as tensors alone"),
        ("empty.bin", "cannot be read as tensors alone"),
        ("list.bin", "holds a list, not tensors by name"),
        ("number.bin", "'b' is no tensor"),
    ):
        with pytest.raises(ReleaseError, match=message):
            read_weights(tmp_path / file)
    assert not (tmp_path / "marker").exists()


def test_the_payload_would_run_otherwise(tmp_path):
    """The marker is a real test: unpickled without care, it appears."""
    torch.save(Payload(tmp_path / "marker"), tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "marker").is_dir()


def test_every_way_in_refuses(open_clip_folder, tiny_embedder, tiny_vit, tmp_path):
    """Header bombs and pickled code in folders of each kind, through the functions that users call."""
    marker = tmp_path / "marker"

    def poisoned(source, number, file, code):
        folder = shutil.copytree(source, tmp_path / f"{number}-{file}")
        for weights in folder.glob("*.safetensors"):
            weights.unlink()
        torch.save(Payload(marker), folder / file) if code else bomb(folder / file, 2**60)
        return f"local-dir:{folder}"

    import timm

    trunk = tmp_path / "trunk"
    trunk.mkdir()
    model = timm.create_model("test_vit", num_classes=0)
    config = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": model.pretrained_cfg}
    (trunk / "config.json").write_text(json.dumps(config))
    release = save_release(zoo.load(open_clip_folder("native")), tmp_path / "release")
    ways = [
        (open_clip_folder("native"), zoo.load, "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        (release, zoo.load, "model.safetensors", None),
        (tiny_embedder, lambda name: build_text_encoder(TextEmbedderConfig(name)), "model.safetensors", "pytorch_model.bin"),
        (tiny_vit, lambda name: build_image_encoder(ImageEncoderConfig(name)), "model.safetensors", "pytorch_model.bin"),
        (trunk, lambda name: build_image_encoder(ImageEncoderConfig(name)), "model.safetensors", "pytorch_model.bin"),
    ]
    for number, (source, load, safe, pickled) in enumerate(ways):
        with pytest.raises(ModalignError, match=r"header|cannot be read"):
            load(poisoned(source, number, safe, False))
        if pickled is not None:
            with pytest.raises(ModalignError):
                load(poisoned(source, number, pickled, True))
    assert not marker.exists()


def test_strict_loading_names_what_does_not_fit():
    layer = torch.nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    load_strictly(layer, state, "mine")
    assert torch.equal(layer.weight, torch.ones(2, 3))
    for change, message in (
        ({"bias": None}, "missing: bias"),
        ({"other": torch.ones(1)}, "unexpected: other"),
        ({"bias": torch.ones(3)}, "of another shape: bias"),
    ):
        changed = {name: value for name, value in {**state, **change}.items() if value is not None}
        with pytest.raises(ReleaseError, match=f"mine: the weights are not those of the description .*{message}"):
            load_strictly(layer, changed, "mine")


def test_shared_tensors_get_memory_of_their_own(tmp_path):
    one = torch.arange(12.0)
    state = unshared({"a": one, "b": one, "c": one[:6], "d": one.reshape(3, 4).T, "e": torch.zeros(0)})
    save_file(state, tmp_path / "x.safetensors")
    again = load_file(tmp_path / "x.safetensors")
    assert torch.equal(again["b"], one)
    assert torch.equal(again["c"], one[:6])
    assert torch.equal(again["d"], one.reshape(3, 4).T)
