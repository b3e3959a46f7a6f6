"""Fine-tuning without forgetting: Tux Paint's stamps, then OpenMoji's drawings; writes results/finetune.json and .md.

    python benchmarks/finetune.py runs/tuxpaint-0 runs/tuxpaint-1 runs/tuxpaint-2

The runs are of `configs/clip/tuxpaint.yaml` with seeds 0, 1, 2. Each finished model is tuned on the English names of OpenMoji's training
drawings: not at all, by `configs/clip/finetune.yaml` as it is, by the same without its distillation, naively, at the rate and for as
long as a model is trained from nothing, and by `configs/clip/finetune_deep.yaml`. Both test sets are measured each time: what the model
knew (R@10 on Tux Paint), what it learnt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from seeds import RESULTS, about_machine

from modalign import zoo
from modalign.datasets.shards import ShardSet
from modalign.trainers import load_recipe, train
from modalign.trainers.evaluation.retrieval import RetrievalTask
from modalign.trainers.evaluation.task import Subject
from modalign.trainers.recipe import CacheConfig
from modalign.trainers.stage_data import eval_features

LANGUAGES = ["en", "ar", "de", "es", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr"]  # the tongues both sets have
SETS = {"old": "asset:tuxpaint/test", "new": "asset:openmoji/test"}
PLAIN: dict[str, Any] = {
    "stages.finetune.teacher": None,
    "stages.finetune.losses": {"clip": {}},
    "stages.finetune.cache": {"image": "output", "text": True},
}
NAIVE = PLAIN | {
    "stages.finetune.train": {"head": 1.0e-3, "projector": 1.0e-3, "aux": 1.0e-3},
    "stages.finetune.dropout": {},
    "stages.finetune.epochs": 60,
}
#: twenty minutes on a CPU core, so of the first run only
DEEP = "clip/finetune_deep.yaml: image encoder too, layer decay (first seed only)"
#: label -> recipe and what is changed in it; None: the model as it is
CONDITIONS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "no fine-tuning": None,
    "clip/finetune.yaml": ("clip/finetune", {}),
    "its rate and length, no distillation": ("clip/finetune", PLAIN),
    "naive: rate 1e-3, 60 epochs, no distillation": ("clip/finetune", NAIVE),
    DEEP: ("clip/finetune_deep", {}),
}


def measured(model: Any, data: str) -> dict[str, float]:
    """R@1 and R@10, text to image, in English and as the mean of the other languages."""
    shards = ShardSet(data)
    features = eval_features(model, shards, LANGUAGES, CacheConfig(image="output", text=True))
    report = RetrievalTask(LANGUAGES, first_caption=True).measure(Subject(model, "model", shards, data, features))
    table = {lang: recalls["text_to_image"] for lang, recalls in report["by_language"].items()}
    found = {f"en R@{k}": table["en"][f"R@{k}"] for k in (1, 10)}
    return found | {f"others R@{k}": mean(table[lang][f"R@{k}"] for lang in LANGUAGES[1:]) for k in (1, 10)}


def tuned(start: Path, recipe: str, overrides: dict[str, Any], folder: Path, seed: int) -> Any:
    """The model after fine-tuning; a finished run is taken as it is."""
    common = {"init_from": str(start), "data.train": "asset:openmoji/train", "data.languages": ["en"], "seed": seed}
    train(load_recipe(recipe, common | overrides | {"run_dir": str(folder), "trainer.progress": False}))
    return zoo.load(folder)


def over_seeds(rows: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Set -> number -> {mean, min, max}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in SETS:
        for key in rows[0][name]:
            values = [row[name][key] for row in rows]
            cell = {"mean": round(mean(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}
            found.setdefault(name, {})[key] = cell
    return found


def markdown(results: dict[str, Any], about: dict[str, Any]) -> str:
    """The table, and what it was measured with."""
    columns = [("old", "en R@10"), ("old", "others R@10"), ("new", "en R@1"), ("new", "en R@10"), ("new", "others R@10")]
    lines = ["# finetune", "", (__doc__ or "").split("\n\n")[2].replace("\n", " "), ""]
    lines += ["Text to image, percent, mean over the seeds; in brackets smallest and largest.", ""]
    lines += ["| fine-tuned on OpenMoji | " + " | ".join(f"{name}: {key}" for name, key in columns) + " |", "|---" * 6 + "|"]
    for label, tables in results.items():
        cells = [tables[name][key] for name, key in columns]
        lines.append(f"| {label} | " + " | ".join(f"{c['mean']:.1f} [{c['min']:.1f} to {c['max']:.1f}]" for c in cells) + " |")
    return "\n".join([*lines, "", *[f"- {key}: {value}" for key, value in about.items()], ""])


def main() -> None:
    """Reads the command line."""
    starts = [Path(run) for run in sys.argv[1:]]
    seeds = [yaml.safe_load((run / "recipe.yaml").read_text())["seed"] for run in starts]
    results = {}
    for label, condition in CONDITIONS.items():
        rows = []
        for start, seed in list(zip(starts, seeds, strict=True))[: 1 if label == DEEP else None]:
            name = "".join(char if char.isalnum() else "-" for char in label)
            folder = start.with_name(f"{start.name}-{name}")
            model = zoo.load(start) if condition is None else tuned(start, *condition, folder, seed)
            rows.append({part: measured(model, data) for part, data in SETS.items()})
        results[label] = over_seeds(rows)
        print(label, json.dumps(results[label]), flush=True)
    about: dict[str, Any] = {
        "seeds": seeds,
        "old": f"{SETS['old']}, {len(ShardSet(SETS['old']))} pictures",
        "new": f"{SETS['new']}, {len(ShardSet(SETS['new']))} pictures",
        "others": f"mean of {', '.join(LANGUAGES[1:])}; only the English names of OpenMoji were trained on",
        "chance R@10": "; ".join(f"{name} {1000 / len(ShardSet(data)):.1f}" for name, data in SETS.items()),
        **about_machine(),
        "command": "python benchmarks/finetune.py " + " ".join(f"runs/tuxpaint-{seed}" for seed in seeds),
    }
    (RESULTS / "finetune.json").write_text(json.dumps({"about": about, "results": results}, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "finetune.md").write_text(markdown(results, about))


if __name__ == "__main__":
    main()
