"""Names of the hub, against a small hub of our own on this machine: one that answers, one that refuses, one that is silent."""

import hashlib
import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import huggingface_hub
import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints import hub
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from modalign.zoo.errors import AssetError, ReleaseError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that a download needs; `root` holds ORG/NAME folders."""

    root = None
    asked: list = []

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = unquote(urlparse(self.path).path)
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and (self.root / parts[2] / parts[3]).is_dir():
            folder = self.root / parts[2] / parts[3]
            files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
            if "tree" in parts:
                tree = [{"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": "0" * 40} for file in files]
                return self.send(json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
            about = {
                "id": f"{parts[2]}/{parts[3]}",
                "sha": COMMIT,
                "siblings": [{"rfilename": file} for file in files],
                "tags": [],
            }
            return self.send(json.dumps(about).encode(), {"Content-Type": "application/json"}, body)
        if len(parts) > 4 and parts[2] == "resolve" and (file := self.root.joinpath(*parts[:2], *parts[4:])).is_file():
            content = file.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            return self.send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def send(self, content, headers, body):
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def point_at(monkeypatch, endpoint, cache):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub, "_listings", {})
    monkeypatch.setattr(hub, "_unreached", {})
    monkeypatch.setattr(hub, "PATIENCE", 2.0)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The folder a running hub serves ORG/NAME folders from."""
    Hub.root, Hub.asked = tmp_path / "hub", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield tmp_path / "hub"
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent(tmp_path, monkeypatch):
    """A hub that takes calls and never answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    point_at(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path / "cache")
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    yield listener
    listener.close()


def downloaded():
    return {path.split("/resolve/")[1].split("/", 1)[1] for path in Hub.asked if "/resolve/" in path}


def test_open_clip_repository(served, open_clip_folder, photos, captions):
    folder = shutil.copytree(open_clip_folder("native"), served / "org" / "clip")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not needed")
    (folder / "training_log.bin").write_bytes(b"not needed")
    model, wanted = zoo.load("hf:org/clip"), zoo.load(open_clip_folder("native"))
    assert torch.equal(model.encode_image(photos), wanted.encode_image(photos))
    assert torch.equal(model.encode_text(captions), wanted.encode_text(captions))
    assert model.sources() == {"image.": "hf:org/clip", "text.": "hf:org/clip"}
    assert downloaded() == {"open_clip_config.json", "open_clip_model.safetensors"}, "safetensors first, and nothing else"
    assert build_image_encoder(ImageEncoderConfig("hf:org/clip")).width == 16


def test_pickled_weights_where_there_are_no_others(served, open_clip_writer, layouts, photos):
    open_clip_writer(served / "org" / "clip", layouts["native"][0], weights="bin")
    assert torch.equal(zoo.load("hf:org/clip").encode_image(photos), zoo.load(served / "org" / "clip").encode_image(photos))


def test_transformers_repositories(served, tiny_embedder, tiny_vit, photos):
    shutil.copytree(tiny_embedder, served / "org" / "text")
    shutil.copytree(tiny_vit, served / "org" / "vision")
    texts = ["thing number 3", "Ding"]
    found = build_text_encoder(TextEmbedderConfig("hf:org/text", max_length=16)).eval()
    wanted = build_text_encoder(TextEmbedderConfig(str(tiny_embedder), max_length=16)).eval()
    assert torch.equal(found.embed(texts), wanted.embed(texts))
    vision = build_image_encoder(ImageEncoderConfig("hf:org/vision")).eval()
    pixels = torch.stack([vision.preprocess(photo) for photo in photos])
    with torch.no_grad():
        assert torch.equal(vision.pooled(pixels), build_image_encoder(ImageEncoderConfig(str(tiny_vit))).eval().pooled(pixels))


def test_random_weights_need_no_download(served, tiny_vit):
    shutil.copytree(tiny_vit, served / "org" / "vision")
    build_image_encoder(ImageEncoderConfig("hf:org/vision", pretrained=False))
    assert not any(file.endswith(".safetensors") for file in downloaded())


def test_timm_repository(served, photos):
    import timm
    from safetensors.torch import save_file

    trunk = timm.create_model("test_vit", num_classes=0)
    folder = served / "org" / "trunk"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": trunk.pretrained_cfg})
    )
    save_file(trunk.state_dict(), folder / "model.safetensors")
    encoder = build_image_encoder(ImageEncoderConfig("hf:org/trunk"))
    assert torch.equal(encoder.trunk.state_dict()["norm.weight"], trunk.state_dict()["norm.weight"])
    assert torch.equal(encoder.trunk.blocks[0].attn.qkv.weight, trunk.blocks[0].attn.qkv.weight)


def test_weights_of_a_timm_name_come_through_our_patience(served, monkeypatch):
    """timm would wait for a hub on its own terms; the file is fetched first and given to it."""
    import timm
    from safetensors.torch import save_file

    name = "test_vit.r160_in1k"
    trunk = timm.create_model("test_vit")
    folder = served / "timm" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file(trunk.state_dict(), folder / "model.safetensors")
    encoder = build_image_encoder(ImageEncoderConfig(f"timm:{name}"))
    assert torch.equal(encoder.trunk.blocks[0].attn.qkv.weight, trunk.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_release(kind, served, open_clip_folder, photos, captions):
    shutil.copytree(open_clip_folder("native"), served / "org" / "clip")
    model = zoo.load("hf:org/clip")
    save_release(model, served / "me" / "release", kind=kind, card="# mine\n")
    (served / "me" / "release" / "notes.csv").write_text("not needed")
    again = zoo.load("hf:me/release")
    assert torch.equal(again.encode_image(photos), model.encode_image(photos))
    assert torch.equal(again.encode_text(captions), model.encode_text(captions))
    assert "notes.csv" not in downloaded()


def test_tagged_weights_of_open_clip(served, open_clip_folder, layouts, photos, monkeypatch):
    """`open_clip:MODEL/TAG` looks up the hub repository of a tag and takes preprocessing from the tag."""
    import open_clip

    shutil.copytree(open_clip_folder("native"), served / "org" / "clip")
    (served / "org" / "clip" / "open_clip_config.json").unlink()
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", layouts["native"][0])
    about = {
        "hf_hub": "org/clip/",
        "quick_gelu": False,
        **layouts["native"][1],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", {"mine": about})
    model = zoo.load("open_clip:ViT-tiny/mine")
    assert torch.equal(model.encode_image(photos), zoo.load(open_clip_folder("native")).encode_image(photos))
    about["hf_hub"] = "org/clip/open_clip_model.pt"
    assert torch.equal(zoo.load("open_clip:ViT-tiny/mine").logit_scale, model.logit_scale), "the safe form of a named file"


def test_a_repository_that_is_not_there(served):
    served.mkdir()
    for load in (zoo.load, lambda name: build_image_encoder(ImageEncoderConfig(name))):
        with pytest.raises(AssetError, match="hf:org/nothing: the hub has no such repository, or not for you"):
            load("hf:org/nothing")


def test_a_repository_without_weights(served, tiny_vit):
    folder = shutil.copytree(tiny_vit, served / "org" / "vision")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ReleaseError, match=r"hf:org/vision has no weights that can be read here .looked for model\*\.safetensors"
    ):
        build_image_encoder(ImageEncoderConfig("hf:org/vision"))


@pytest.mark.parametrize("name", ["hf:org/clip", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_a_hub_that_does_not_answer(name, silent):
    with pytest.raises(
        AssetError,
        match=r"the hub cannot be reached .(no answer|ReadTimeout).* and the cache does not hold it; connect",
    ):
        zoo.load(name)


def test_a_call_that_hangs_is_left_behind(silent, monkeypatch):
    """Name resolution has no timeout of its own."""
    released = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *arguments, **settings: released.wait())
    with pytest.raises(AssetError, match=r"the hub cannot be reached .no answer within 0 s"):
        zoo.load("hf:org/clip")
    released.set()


def test_a_timm_name_when_the_hub_does_not_answer(silent):
    with pytest.raises(AssetError, match=r"hf:timm/test_vit\.r160_in1k: the hub cannot be reached"):
        build_image_encoder(ImageEncoderConfig("timm:test_vit.r160_in1k"))


def test_a_hub_that_refuses_the_connection(silent):
    silent.close()
    with pytest.raises(AssetError, match=r"the hub cannot be reached .(ConnectError|no answer)"):
        zoo.load("hf:org/clip")


def test_what_was_downloaded_serves_when_the_hub_is_away(served, tmp_path, open_clip_folder, photos, monkeypatch):
    shutil.copytree(open_clip_folder("native"), served / "org" / "clip")
    wanted = zoo.load("hf:org/clip").encode_image(photos)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    point_at(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path / "cache")
    listener.close()
    assert torch.equal(zoo.load("hf:org/clip").encode_image(photos), wanted)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False
