"""The plain baseline of every set: two frozen encoders and two matrices, trained by InfoNCE; writes results/baselines.json and .md.

    python benchmarks/baselines.py [SET ...]      # openmoji noto_cldr "noto_cldr, names in 20 languages" tuxpaint flickr8k

Encoders, picture size and batch are those of the set's own recipe, English captions only (in one row those of all languages that the
recipe's last stage sees), and 60 passes at 1e-3 without dropout or norm: what anybody gets in a minute. Three seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from seeds import KS, RESULTS, WAYS, about_machine, recall_cells, spread
from seeds import groups as groups_of

from modalign.trainers import load_recipe, train
from modalign.trainers.recipe import Recipe

RECIPES = {
    "openmoji": "proclip/openmoji",
    "noto_cldr": "proclip/noto_cldr",
    "noto_cldr, names in 20 languages": "proclip/noto_cldr",
    "tuxpaint": "clip/tuxpaint",
    "flickr8k": "clip/flickr8k",
}
#: sets whose baseline sees the captions that the recipe's last stage sees
AS_LAST_STAGE = ("noto_cldr, names in 20 languages",)
SEEDS = (0, 1, 2)


def baseline(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Trains the baseline of a set; its recall by language."""
    recipe = load_recipe(RECIPES[name])
    model = {key: value for key, value in recipe.model.items() if key in ("embed_dim", "image", "text_embedder")}
    matrices = {"image_projector": {"name": "linear"}, "text_projector": {"name": "linear"}}
    assert recipe.evaluate is not None
    values: dict[str, Any] = {
        "title": f"two frozen encoders, two matrices: {RECIPES[name]}",
        "model": {"family": "clip", **model, **matrices},
        "data": {
            "train": recipe.data.train,
            "test": recipe.data.test,
            "batch_size": recipe.data.batch_size,
            "languages": last_languages(recipe) if name in AS_LAST_STAGE else ["en"],
        },
        "stages": {
            "linear": {
                "train": {"head": 1.0e-3, "projector": 1.0e-3, "aux": 1.0e-3},
                "losses": {"clip": {}},
                "cache": {"image": "output", "text": True},
                "epochs": 60,
            }
        },
        "evaluate": {"languages": recipe.evaluate.languages, "first_caption": recipe.evaluate.first_caption},
        "run_dir": str(folder),
        "seed": seed,
    }
    values["trainer"] = {"progress": False}
    run = train(load_recipe(values))
    return json.loads((run / "results.json").read_text(encoding="utf-8"))["stages"]["linear"]["by_language"]


def last_languages(recipe: Recipe) -> list[str] | None:
    """The languages that the recipe itself sees in the end; None for all."""
    return recipe.stage_data(list(recipe.stages)[-1]).languages


def summary(tables: list[dict[str, Any]], trained: set[str]) -> dict[str, Any]:
    """Group of languages -> way -> K -> {mean, min, max} over seeds; those the recipe trains on and those it does not stand apart."""
    names = list(tables[0])
    others = groups_of(names, trained)
    all_others = others.pop("others (mean)", [])
    kinds = {"en": ["en"], f"{len(all_others)} others (mean)": all_others}
    kinds |= {name: langs for name, langs in others.items() if name.endswith("(mean)")} | {"mean": names}
    return {
        group: {way: {k: spread([mean(table[lang][way][k] for lang in langs) for table in tables]) for k in KS} for way in WAYS}
        for group, langs in kinds.items()
        if langs and (group != "mean" or len(names) > 1)
    }


def markdown(results: dict[str, Any], about: dict[str, Any]) -> str:
    """The table, and what it was measured with."""
    lines = ["# baselines", "", (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(), ""]
    lines += ["Retrieval in percent, mean over the seeds; in brackets smallest and largest of R@10.", ""]
    lines += ["| set | captions | t→i R@1 | R@5 | R@10 | i→t R@1 | R@5 | R@10 |", "|---" * 8 + "|"]
    for name, groups in results.items():
        for group, ways in groups.items():
            lines.append(f"| {name} | {group} | " + " | ".join(recall_cells(ways)) + " |")
    return "\n".join([*lines, "", *[f"- {key}: {value}" for key, value in about.items()], ""])


def main() -> None:
    """Reads the command line."""
    chosen = sys.argv[1:] or list(RECIPES)
    path = RESULTS / "baselines.json"
    results: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() and sys.argv[1:] else {}
    for name in chosen:
        folders = [Path("runs/baselines") / f"{''.join(filter(str.isalnum, name))}-{seed}" for seed in SEEDS]
        tables = [baseline(name, folder, seed) for folder, seed in zip(folders, SEEDS, strict=True)]
        results[name] = summary(tables, set(last_languages(load_recipe(RECIPES[name])) or tables[0]))
    about = {"seeds": list(SEEDS), **about_machine(), "command": "python benchmarks/baselines.py"}
    path.write_text(json.dumps({"about": about, "results": results}, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(markdown(results, about))
    print(markdown(results, about))


if __name__ == "__main__":
    main()
