"""Every command of docs/evaluation.md is run, with a tiny release for MODEL, tiny shards for SHARDS and a small TABLE."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from modalign import zoo
from modalign.trainers import train
from modalign.trainers.cli import main
from modalign.zoo.registry import FAMILIES
from modalign.zoo.series.description import SeriesDescription

from ..zoo.stack import written
from .dialogue.conftest import sample

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines() if line.strip()]
FILES = dict(re.findall(r"`([\w.]+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.S))
RECIPE = re.search(r"```yaml\n(evaluate:.*?)```", PAGE, re.S).group(1)


@pytest.fixture(scope="module")
def place(tiny_model, picture_of, tmp_path_factory):
    """A folder with the release, shards of 14 samples, and the page's files."""
    from modalign.datasets.shards.writer import write_shards

    def samples():
        for number in range(14):
            stream = io.BytesIO()
            picture_of(number).save(stream, "PNG")
            captions = {"en": [f"thing number {number}", f"item {number}"], "de": [f"Ding Nummer {number}"]}
            yield {"key": f"k{number}", "image": stream.getvalue(), "image_ext": "png", "captions": captions} | {
                "label": f"class {number % 3}",
                "kind": number % 3,
            }

    folder = tmp_path_factory.mktemp("docs")
    write_shards(samples(), folder / "shards")
    torch.manual_seed(0)
    model = FAMILIES.get("proclip").from_settings({k: v for k, v in tiny_model.items() if k != "family"}).eval()
    zoo.save_release(model, folder / "release")
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    _forecaster(folder)
    _talker(folder)
    return folder


def _talker(folder):
    """A stack of random parts, and shards with everything that can be asked."""
    from modalign.datasets.shards.writer import write_shards

    write_shards(map(sample, range(14)), folder / "asked")
    written.write_clip(folder / "clip")
    written.write_language(folder / "lm", words=written.tokenizer(chat_template=written.CHATML, start=False))
    settings = {"image": {"name": str(folder / "clip")}, "language": {"name": str(folder / "lm")}, "chat": {"max_length": 200}}
    zoo.save_release(FAMILIES.get("llava").from_settings(settings).eval(), folder / "talker")


#: tasks of conversations
ASKED = ("caption", "vqa", "grounding", "pope")


def _forecaster(folder):
    """A DLinear as it starts, and ten days of hours to measure it on."""
    hours = [f"2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00" for hour in range(240)]
    rows = [f"{time},{hour % 24 + hour % 7},{hour % 5}" for hour, time in enumerate(hours)]
    (folder / "town.csv").write_text("\n".join(["time,load,wind", *rows]))
    model = FAMILIES.get("dlinear").from_settings({"look_back": 24, "horizon": 6})
    scale = {"load": [14.0, 7.0], "wind": [2.0, 1.5]}
    model.describe(SeriesDescription(["load", "wind"], frequency="h", scale=scale, split={"train": 0.6, "val": 0.2, "test": 0.2}))
    zoo.save_release(model.eval(), folder / "forecaster")


@pytest.mark.timeout(200)
@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    asks = any(f"--task {task}" in line for task in ASKED)
    model = "talker" if asks else "forecaster" if "TABLE" in line else "release"
    shards = "asked" if asks else "shards"
    words = [{"MODEL": model, "SHARDS": shards, "TABLE": "town.csv"}.get(word, word) for word in shlex.split(line)]
    words += ["--limit", "8", "--max_new_tokens", "4"] if asks else []
    if words[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:], "--json", "two.json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("retrieval in percent") == 1, "only the first rank speaks"
        assert main([*words[words.index("eval") :], "--json", "one.json"]) == 0
        assert json.loads(Path("two.json").read_text()) == json.loads(Path("one.json").read_text())
        return
    assert words[0] == "modalign" and main(words[1:]) == 0
    printed = capfd.readouterr().out
    assert (
        "14 pictures" in printed
        or "crosslingual" in words
        or ("TABLE" in line and " windows x 2 channels of town.csv" in printed)
        or (asks and "pictures shuffled" in printed)
    )
    if "--json" in words:
        report = json.loads(Path(words[words.index("--json") + 1]).read_text(encoding="utf-8"))
        last = "settings" if "TABLE" in line else "by_language"
        assert list(report) == ["task", "model", "data", "n", "metrics", "baselines", last]


def test_the_page_has_commands_of_every_task_and_files():
    assert (
        set(re.findall(r"--task (\w+)", PAGE)) == {"zeroshot", "alignment", "crosslingual", "forecast", *ASKED}
        and len(COMMANDS) >= 10
    )
    assert set(FILES) == {"names.yaml", "prompts.yaml"}


def test_every_option_is_explained_or_common():
    import inspect

    from modalign.trainers.evaluation.command import evaluate

    options = set(inspect.signature(evaluate).parameters) - {"model", "num_workers", "device", "sigma", "neighbourhood"}
    assert not {name for name in options if f"--{name}" not in PAGE}


@pytest.mark.timeout(200)
def test_the_recipes_section(pair_recipe, place, tmp_path):
    """Retrieval first, the others under `also`, all in results.md and the report."""
    pair_recipe["stages"]["pair"] |= {"epochs": 1}
    pair_recipe["data"] |= {name: str(place / "shards") for name in ("train", "test", "val")}
    run = train(pair_recipe | yaml.safe_load(RECIPE) | {"run_dir": str(tmp_path / "run")})
    found = json.loads((run / "stages" / "pair" / "eval.json").read_text())
    assert list(found) == ["task", "model", "data", "n", "metrics", "baselines", "by_language", "also"]
    assert found["task"] == "retrieval" and list(found["also"]) == ["crosslingual", "zeroshot"]
    assert json.loads((run / "results.json").read_text())["stages"] == {"pair": found}
    markdown, page = (run / "results.md").read_text(), (run / "report.html").read_text()
    for text in (markdown, page):
        assert "Retrieval in percent" in text and "MEXA" in text and "zero-shot accuracy" in text
    again = json.loads((run / "stages" / "pair" / "eval_settings.json").read_text())
    assert again["options"]["crosslingual"] == {"pivot": "en", "least_pairs": 5}


@pytest.mark.timeout(200)
def test_a_recipe_without_retrieval(pair_recipe, place, tmp_path):
    pair_recipe["stages"]["pair"] |= {"epochs": 1}
    pair_recipe["data"] |= {name: str(place / "shards") for name in ("train", "test", "val")}
    run = train(pair_recipe | {"evaluate": {"task": "alignment"}, "run_dir": str(tmp_path / "run")})
    found = json.loads((run / "stages" / "pair" / "eval.json").read_text())
    assert found["task"] == "alignment" and "also" not in found
    assert "before and after the projectors" in (run / "report.html").read_text()
    assert (run / "results.md").read_text().count("## pair:") == 2
    assert "Not evaluated" in (run / "release" / "README.md").read_text(), "the card's table is of retrieval"
