"""Numbers that stand in several places are the same number: recipes' baselines and the README's tables are those of the result files."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECIPES = [path for path in sorted((ROOT / "configs").glob("*/*.yaml")) if "baselines:" in path.read_text(encoding="utf-8")]


def results(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]


def mean_of(tables, metric):
    way, k = metric.split("/")
    return tables["mean" if "mean" in tables else "en"][way][k]["mean"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_baselines_of_recipes_are_measured_ones(path):
    frozen = results("baselines")
    data = "flickr8k" if path.stem == "flickr8k" else path.stem.removesuffix("_full")
    for label, values in yaml.safe_load(path.read_text(encoding="utf-8"))["evaluate"]["baselines"].items():
        if label.startswith("two frozen encoders"):
            tables = frozen[data]
        else:
            assert label.startswith("clip/flickr8k"), label
            (tables,) = results("flickr8k").values()
        assert len(values) == 6
        for metric, value in values.items():
            assert value == pytest.approx(mean_of(tables, metric), abs=0.051), f"{label}, {metric}"


def test_there_are_recipes_with_baselines():
    assert len(RECIPES) >= 6


def percent(cell):
    return f"{cell['mean']:.1f}"


def test_the_readme_s_first_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = {row[0]: row[1:] for row in re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)}
    stages, frozen = results("openmoji"), results("baselines")["openmoji"]
    wanted = {
        "teacher": stages["teacher"],
        "ProCLIP stage 1": stages["inherit"],
        "ProCLIP stage 2": stages["tune"],
        "trained on the names": stages["all_languages"],
        "baseline": {"en": frozen["en"], "others (mean)": frozen["13 others (mean)"]},
    }
    assert len(found) == len(wanted)
    for start, tables in wanted.items():
        (cells,) = (cells for label, cells in found.items() if label.startswith(start))
        assert cells == tuple(percent(tables[group]["text_to_image"]["R@10"]) for group in ("en", "others (mean)")), start


def test_the_readme_s_second_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    noto, tux, frozen = results("noto_cldr"), results("tuxpaint"), results("baselines")

    def hits(tables, group):
        return percent(tables[group]["text_to_image"]["R@10"])

    first, last, stage = noto["inherit"], noto[list(noto)[-1]], tux[list(tux)[-1]]
    twenty = frozen["noto_cldr, names in 20 languages"]
    photos = {name: results(f"{name}flickr8k") for name in ("", "siglip_", "lit_", "matryoshka_")}
    shown = [
        f"| {hits(first, 'en')}, baseline {hits(frozen['noto_cldr'], 'en')} | Sinhala {hits(first, 'si')}; "
        f"mean of all 120 others {hits(first, 'others (mean)')}, baseline {hits(frozen['noto_cldr'], '120 others (mean)')} |",
        f"| {hits(last, 'en')}, baseline {hits(twenty, 'en')} | Sinhala {hits(last, 'si')}; 101 without a single name "
        f"{hits(last, '101 never trained on (mean)')}, baseline {hits(twenty, '101 never trained on (mean)')} |",
        f"| {hits(stage, 'en')}, baseline {hits(tux['linear'], 'en')} | 46 without a single name "
        f"{hits(stage, '46 never trained on (mean)')}, baseline {hits(tux['linear'], '46 never trained on (mean)')} |",
        f"| {hits(next(iter(photos[''].values())), 'en')}, baseline {hits(frozen['flickr8k'], 'en')} | |",
        "| " + ", ".join(hits(list(photos[name].values())[-1], "en") for name in ("siglip_", "lit_", "matryoshka_")) + " | |",
    ]
    for row in shown:
        assert row in text, row


@pytest.mark.parametrize("page", ["README.md", "docs/finetuning.md"])
def test_what_fine_tuning_is_said_to_do(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = results("finetune")
    rows = {"clip/finetune.yaml": "clip/finetune.yaml", "naive": next(label for label in tables if label.startswith("naive"))}
    for label in ["no fine-tuning", *rows.values()]:
        for name, key in (("old", "en R@10"), ("old", "others R@10"), ("new", "en R@10")):
            if label == "no fine-tuning" or page != "README.md" or name == "old":
                assert percent(tables[label][name][key]) in text, f"{page}: {label}, {name} {key}"
