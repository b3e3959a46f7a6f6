"""docs/time_series.md, from top to bottom, with a tiny language model and toy series; and what its tables say is so."""

import csv
import json
import re

import pytest

from modalign import zoo
from modalign.trainers.recipe import shipped_recipes
from modalign.zoo.registry import FAMILIES

from .shown import ROOT, blocks_of, lines_of, run_line

PAGE = "docs/time_series.md"
TINY = ("--trainer.accelerator", "cpu", "--trainer.progress", "false")
NARROW = ("--model.dictionary", "8", "--model.ffn", "16", "--model.heads", "2")  # as wide as the tiny language model


@pytest.fixture
def folder(series_assets, own_home, tmp_path, monkeypatch):
    """An empty folder, toy data under the real names."""
    monkeypatch.setenv("MODALIGN_DATA", str(series_assets))
    monkeypatch.chdir(tmp_path)
    # a process has one current folder, this one has had others
    monkeypatch.setattr("modalign.zoo.checkpoints.stand_in._made", {})
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def follow(folder):
    """Runs all blocks; returns the commands and the names of the Python blocks."""
    names: dict = {}
    done = []
    for block in blocks_of(PAGE):
        if block.kind == "python":
            exec(block.text, names)
        elif block.kind == "yaml":
            (folder / re.match(r"# (\S+)", block.text).group(1)).write_text(block.text, encoding="utf-8")
        else:
            for line in lines_of(block):
                more = () if not line.startswith("modalign train") else TINY if "finetune" in line else (*TINY, *NARROW)
                run_line(line, *more)
                done.append(line)
    return done, names


def rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.timeout(290)
def test_the_page(folder, capfd):
    done, names = follow(folder)
    assert len(done) == 18 and {line.split()[1] for line in done} == {"train", "forecast", "eval", "export"}
    found = rows(folder / "forecast.csv")
    assert len(found) == 24 and found[0]["time"] == "2024-03-03 12:00:00" and (folder / "forecast.png").is_file()
    assert [row["time"] for row in rows(folder / "tomorrow.csv")] == [row["time"] for row in found[:6]]
    assert (folder / "slim.csv").read_bytes() == (folder / "forecast.csv").read_bytes()
    assert names["forecast"].values[:, 0].tolist() == pytest.approx([float(row["load"]) for row in found[:6]], rel=1e-4)
    assert list(rows(folder / "planned-forecast.csv")[0])[:3] == ["time", "load", "load q0.1"]
    measured = json.loads((folder / "measured.json").read_text())
    assert measured["n"]["windows"] == 300 - 24 + 1 and measured["settings"]["part"] == "test"
    assert set(measured["baselines"]) == {
        "train_mean",
        "window_mean",
        "last_value",
        "seasonal_naive_24",
        "seasonal_naive_96",
        "dlinear (seed 0)",
    }
    assert measured["metrics"]["by_channel"].keys() == {"load", "heat", "temperature"} and measured["metrics"]["coverage"]
    printed = capfd.readouterr().out
    assert "dlinear (seed 2)" in printed and "imputation of 50.0% hidden values" in printed and "unadjusted f1" in printed
    assert zoo.load("runs/without").config.llm == "none" and zoo.load("runs/plan").config.series.known == ["workday"]


def test_who_uses_which_columns():
    table = re.findall(r"^\| (\w+) \| (yes|refused)[^|]* \| (yes|refused)[^|]* \| (yes|refused)[^|]* \|$", text(), re.M)
    assert {name for name, *_ in table} == {n for n in FAMILIES.names() if getattr(FAMILIES.get(n), "data_kind", "") == "series"}
    for name, *cells in table:
        wanted = {role for role, cell in zip(("past", "known", "static"), cells, strict=True) if cell == "yes"}
        assert FAMILIES.get(name).uses == wanted, name


def test_the_recipes_it_names_are_there():
    named = set(re.findall(r"`((?:calf|fsca|dlinear|patchtst)/\w+)`", text()))
    longer = {f"{name}{horizon}" for name in ("calf/etth1", "fsca/etth1") for horizon in ("_192", "_336", "_720")}
    shipped = {name for name in shipped_recipes() if name.split("/")[0] in ("calf", "fsca", "dlinear", "patchtst")}
    assert named | longer | {"calf/etth1_few_shot", "fsca/etth1_few_shot"} == shipped


def text():
    return (ROOT / PAGE).read_text(encoding="utf-8")
