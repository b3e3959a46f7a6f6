"""The README's journeys and docs/finetuning.md, from top to bottom, with a tiny model where they have one of `make demo`."""

import json
import shutil

import pytest
import torch

from modalign.trainers import train

from .shown import ROOT, blocks_of, lines_of, run_line
from .zoo.stack import written

TINY = ("--trainer.accelerator", "cpu", "--trainer.progress", "false")
#: recipe -> what makes it fit the tiny language model, or soon done
SHORT = {
    "calf/demo": ("--model.dictionary", "8", "--model.ffn", "16", "--model.heads", "2"),
    "llava/demo": ("--stages.align.steps", "4", "--model.image.image_size", "28", "--evaluate.options.caption.limit", "2"),
}


@pytest.fixture
def demo(tmp_path, monkeypatch, own_home, tiny_model, tiny_shards, series_assets):
    """A folder as the checkout is after `make demo`: runs/openmoji, docs, an asset openmoji with a part for testing, those of calf/demo."""
    monkeypatch.chdir(tmp_path)
    # a process has one current folder, this one has had others
    monkeypatch.setattr("modalign.zoo.checkpoints.stand_in._made", {})
    shutil.copytree(tiny_shards, tmp_path / "asset" / "openmoji" / "test")
    shutil.copytree(tiny_shards, tmp_path / "asset" / "openmoji" / "train")
    (tmp_path / "asset" / "household-power").symlink_to(series_assets / "household-power")
    words = written.tokenizer(chat_template=written.CHATML, start=False)
    written.write_language(tmp_path / "asset" / "smollm2-135m-instruct", words=words, num_hidden_layers=6)
    written.write_clip(tmp_path / "asset" / "efficientnet-lite0")
    monkeypatch.setattr("modalign.datasets.assets.lookup.present", lambda asset: tmp_path / "asset" / asset.name)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    stage = {"train": {"projector": 1e-3, "aux": 1e-3}, "losses": {"clip": {}}, "steps": 2}
    train(
        {
            "title": "tiny",
            "model": tiny_model,
            "data": {"train": str(tiny_shards), "test": str(tiny_shards), "batch_size": 10},
            "stages": {"only": stage},
            "trainer": {"accelerator": "cpu", "progress": False},
            "run_dir": "runs/openmoji",
        }
    )
    return tmp_path


def follow(page, names):
    """Runs all blocks of a page; returns the commands."""
    done = []
    for block in blocks_of(page, "bash", "python"):
        if block.kind == "python":
            exec(block.text, names)
            continue
        for line in lines_of(block):
            if line.startswith(("make ", "modalign train configs/proclip/openmoji.yaml")):
                continue  # the demo itself; `make test` is what runs here
            short = next((more for recipe, more in SHORT.items() if f"train configs/{recipe}.yaml" in line), ())
            run_line(line, *(TINY if line.startswith("modalign train") else ()), *short)
            done.append(line)
    return done


@pytest.mark.timeout(280)
def test_the_readme(demo, capfd):
    names: dict = {}
    done = follow("README.md", names)
    assert len(done) == 18
    assert names["texts"].shape == (3, 16)
    assert json.loads((demo / "runs" / "out.json").read_text())["n"]["images"] == 50
    assert len((demo / "runs" / "forecast.csv").read_text().splitlines()) == 25 and (demo / "runs" / "forecast.png").is_file()
    assert (demo / "runs" / "search.png").is_file() and (demo / "runs" / "shards.png").is_file()
    assert "8 samples" in capfd.readouterr().out
    assert (demo / "runs" / "finetuned" / "release" / "config.json").is_file()


@pytest.mark.timeout(280)
def test_fine_tuning(demo, capfd):
    names: dict = {}
    done = follow("docs/finetuning.md", names)
    assert len(done) == 11
    assert names["texts"].shape == names["images"].shape == (2, 16)
    before, after = (json.loads((demo / f"{name}.json").read_text()) for name in ("before", "after"))
    assert before["n"] == after["n"] == {"images": 2, "texts": 4} and before["baselines"] == after["baselines"]
    assert all((demo / name).is_file() for name in ("my_shards.png", "batch.png", "search.png"))
    with torch.no_grad():
        start = names["zoo"].load("runs/openmoji").encode_text(["a red apple", "ein Segelboot"])
    assert not torch.equal(start, names["texts"]), "nothing was trained"
    shown = json.loads((demo / "runs" / "mine" / "stages" / "finetune" / "eval.json").read_text())
    assert shown["metrics"]["text_to_image"] == pytest.approx(after["metrics"]["text_to_image"])
    assert "- weights: started from `runs/openmoji`" in (demo / "runs" / "mine" / "release" / "README.md").read_text()
    assert "step 3 of 10" in capfd.readouterr().out
