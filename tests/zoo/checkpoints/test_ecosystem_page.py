"""docs/ecosystem.md does what it says: its commands, its Python and its recipes are run, in order, in one folder."""

import functools
import http.server
import io
import re
import shlex
import shutil
import sys
import tarfile
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from modalign.trainers.cli import main
from modalign.trainers.recipe import load_recipe
from modalign.zoo.registry import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python|yaml)\n(.*?)```", PAGE, re.S)


class Checkpoint(NamedTuple):
    """The one the page calls ./clip: its layout, the width of its joint space, and the folder it lies in."""

    layout: str
    width: int
    folder: Path


@pytest.fixture(params=["timm_mlp", "siglip"])
def place(request, tmp_path, monkeypatch, own_home, open_clip_writer, layouts, tiny_embedder, tiny_shards, picture_of):
    """A folder with everything the page names."""
    import transformers

    cfg, preprocess = layouts[request.param]
    cfg = {**cfg, "vision_cfg": {**cfg["vision_cfg"], "image_size": 224}}  # the size of clip-benchmark's data set for trying out
    open_clip_writer(tmp_path / "clip", cfg, preprocess)
    shutil.copytree(tiny_embedder, tmp_path / "embedder")
    size = {"vocab_size": 80, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.LlamaConfig(**size, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "language-model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_embedder / file, tmp_path / "language-model" / file)
    shutil.copytree(tiny_shards, tmp_path / "shards")
    plain_tars(tmp_path / "laion", picture_of)
    monkeypatch.chdir(tmp_path)
    # a process has one current folder, this one has had others
    monkeypatch.setattr("modalign.zoo.checkpoints.stand_in._made", {})
    return Checkpoint(request.param, cfg["embed_dim"], tmp_path)


def plain_tars(folder, picture_of):
    """Three tars as img2dataset writes them."""
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(5 * shard, 5 * shard + 5):
                stream = io.BytesIO()
                picture_of(number).save(stream, "JPEG")
                for ending, data in (("jpg", stream.getvalue()), ("txt", f"thing number {number}".encode())):
                    info = tarfile.TarInfo(f"{shard:05d}{number:04d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def server(place):
    """The folder of `place` behind a web server; its origin."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(place.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{one.server_address[1]}"
        one.shutdown()


def run_command(line, layout, monkeypatch):
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "modalign.zoo.checkpoints.clip_benchmark"]:
        pytest.importorskip("clip_benchmark", reason="clip-benchmark is an optional companion")
        from modalign.zoo.checkpoints.clip_benchmark import main as benchmark

        monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words[3:], "--num_workers", "0", "--no_amp"])
        benchmark()
        return
    assert words[0] == "modalign"
    if words[1] == "train":  # a few steps instead of ten epochs
        if layout == "siglip":  # as the page says
            assert words[2] == "configs/clip/finetune.yaml" and "configs/siglip/finetune.yaml" in PAGE
            words[2] = "configs/siglip/finetune.yaml"
        words = [
            "modalign",
            "train",
            str(ROOT / words[2]),
            *words[3:],
            "--stages.finetune.epochs",
            "0.2",
            "--data.batch_size",
            "10",
        ]
        words += ["--trainer.accelerator", "cpu", "--trainer.progress", "false"]
    assert main(words[1:]) == 0, line


def test_the_page_from_top_to_bottom(place, server, picture_of, monkeypatch):
    names = {"picture": picture_of(3)}
    for kind, block in BLOCKS:
        if kind == "bash":
            for line in block.splitlines():
                line = line.replace("https://data.example.org", server).replace("[https]", f"[{server}]")
                run_command(line, place.layout, monkeypatch)
        elif kind == "python":
            exec(block, names)
        else:
            values = yaml.safe_load(block)
            if values["model"]["image"]["name"] == "./clip":
                values["model"]["embed_dim"] = place.width
            stages = {"one": {"train": {"projector": 1e-3}, "losses": {"clip": {}}, "steps": 1}}
            assert load_recipe({**values, "stages": stages}).model == values["model"]
            settings = {key: value for key, value in values["model"].items() if key != "family"}
            built = FAMILIES.get(values["model"]["family"]).from_settings(settings)
            assert built.encode_text(["thing"]).shape == (1, settings["embed_dim"])
    assert names["texts"].shape == (2, place.width)
    assert names["short"].shape == (1, 8)
    model, theirs = names["zoo"].load("runs/mine"), names["theirs"].eval()
    with torch.no_grad():
        wanted = theirs.encode_image(names["transform"](names["picture"])[None], normalize=True)
    torch.testing.assert_close(model.encode_image([names["picture"]]), wanted, rtol=0, atol=1e-6)
    assert (place.folder / "result.json").is_file()
    assert next(iter(names["pairs"]))[1].startswith("thing number")
    assert (place.folder / "laion" / "shards.json").is_file()
    assert all((place.folder / "runs" / name / "release" / "config.json").is_file() for name in ("mine", "laion", "far"))


def test_every_kind_of_block_is_there():
    assert len(BLOCKS) == 12
    assert sum(line.startswith("modalign ") for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()) == 9
