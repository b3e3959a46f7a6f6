"""Trains the recipes of stacks and writes their table: `python benchmarks/stack_runs.py RUNS [--only TEXT ...] [--collect]`.

As benchmarks/forecast_runs.py: finished runs and rows of the result file are kept, interrupted runs go on, several may work on one folder.
AlignGPT's levels are made first (`modalign data levels`), into RUNS/levels; grounding is also measured on photographs (coco-grounded/test).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import yaml
from long_runs import fill, kept
from measure import RESULTS, where

RECIPES = (
    "llava/flickr8k",
    "vpp_llava/grounding",
    "vpp_llava/grounding_off",
    "aligngpt/flickr8k",
    "aligngpt/flickr8k_off",
    "llava/demo",
)
SEEDS = (0, 1)
#: task -> the numbers its rows show
SHOWN = {"caption": ("BLEU-1", "BLEU-4", "CIDEr", "ROUGE-L"), "grounding": ("accuracy@0.5", "accuracy@0.25", "mean_iou")}


def cases() -> dict[str, list[str]]:
    """Run name -> arguments of `modalign train`, both seeds of a recipe behind the first of every other."""
    return {
        f"{recipe.replace('/', '-')}-{seed}": [f"configs/{recipe}.yaml", "--seed", str(seed)]
        for seed in SEEDS
        for recipe in RECIPES
    }


def prepare(folder: Path) -> None:
    """The levels that AlignGPT's recipe names, made by a contrastive model of the same photographs, where they are not there yet."""
    file = Path("runs/levels/flickr8k.json")
    if file.exists():
        return
    clip, command = folder / "clip-flickr8k", [sys.executable, "-m", "modalign.trainers.cli"]
    if not (clip / "release").exists():
        train = ["train", "configs/clip/flickr8k.yaml", "--run_dir", str(clip), "--trainer.progress", "false"]
        subprocess.run([*command, *train], check=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = "asset:flickr8k_multilingual/train"
    subprocess.run([*command, "data", "levels", data, "--model", str(clip), "--languages", "en", "--out", str(file)], check=True)


def also(run_dir: Path) -> dict | None:
    """Grounding on photographs of a finished run, measured once."""
    out = run_dir / "coco.json"
    if not out.exists():
        command = [sys.executable, "-m", "modalign.trainers.cli", "eval", str(run_dir), "--task", "grounding"]
        data = ["--data", "asset:coco-grounded/test", "--train_data", "asset:coco-grounded/train", "--json", str(out)]
        if subprocess.run([*command, *data], capture_output=True).returncode:
            return None
    return json.loads(out.read_text())


def read(name: str, run_dir: Path) -> list[dict]:
    """What one finished run says: a row for every set it was measured on."""
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    cost = json.loads((run_dir / "cost.json").read_text()) if (run_dir / "cost.json").exists() else {}
    report = list(json.loads((run_dir / "results.json").read_text())["stages"].values())[-1]
    reports = [report, also(run_dir)] if report["task"] == "grounding" else [report]
    steps = " + ".join(str(stage["steps"]) for stage in recipe["stages"].values())
    common = {"name": name, "seed": recipe["seed"], "steps": steps, "batch_size": recipe["data"]["batch_size"], **cost}
    return [
        {
            **common,
            "task": one["task"],
            "data": one["data"],
            "n": one["n"],
            "results": {
                label: {key: values[key] for key in SHOWN[one["task"]]}
                for label, values in {"model": one["metrics"], **one["baselines"]}.items()
            },
        }
        for one in reports
        if one is not None
    ]


def collect(folder: Path) -> None:
    """Writes the result files of all finished runs, and of what they have already."""
    earlier = kept("stack_runs", cases())
    rows: list[dict] = []
    for name in cases():
        done = (folder / name / "results.json").exists()
        rows += read(name, folder / name) if done else [one for one in earlier if one["name"] == name]
    facts = where(("torch", "transformers", "lightning", "peft"))
    content = {
        "title": "Recipes of stacks",
        "command": "python benchmarks/stack_runs.py runs/stacks",
        "rows": rows,
        "facts": facts,
    }
    (RESULTS / "stack_runs.json").write_text(json.dumps(content, indent=1) + "\n")
    text = markdown(rows, facts)
    (RESULTS / "stack_runs.md").write_text(text)
    print(text)


def markdown(rows: list[dict], facts: dict) -> str:
    """A table for each task and set."""
    lines = ["# Recipes of stacks", "", "Means over the seeds, in brackets the smallest and largest.", ""]
    for task, data in dict.fromkeys((one["task"], one["data"]) for one in rows):
        mine = [one for one in rows if (one["task"], one["data"]) == (task, data)]
        counted = ", ".join(f"{value} {key}" for key, value in mine[0]["n"].items())
        lines += [
            f"## {task}, {data} ({counted})",
            "",
            "| recipe | by | seeds | " + " | ".join(SHOWN[task]) + " | steps | processor time |",
        ]
        lines.append("|---" * (len(SHOWN[task]) + 5) + "|")
        for recipe in dict.fromkeys(one["name"].rpartition("-")[0] for one in mine):
            runs = [one for one in mine if one["name"].rpartition("-")[0] == recipe]
            lines += [_line(recipe, label, runs, task) for label in runs[0]["results"]]
        lines.append("")
    return "\n".join([*lines, *(f"- {key}: {value}" for key, value in facts.items()), ""])


def _line(recipe: str, label: str, runs: list[dict], task: str) -> str:
    cells = []
    for key in SHOWN[task]:
        values = [one["results"][label][key] for one in runs if label in one["results"]]
        spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 and min(values) != max(values) else ""
        cells.append(f"{mean(values):.3f}{spread}")
    own = label == "model"
    cost = f"{mean(one['cpu_seconds'] for one in runs) / 60:.0f} min" if own and all("cpu_seconds" in one for one in runs) else ""
    steps = f"{runs[0]['steps']} of {runs[0]['batch_size']}" if own else ""
    return f"| {recipe} | {label} | {len(runs) if own else ''} | " + " | ".join(cells) + f" | {steps} | {cost} |"


if __name__ == "__main__":
    words = sys.argv[1:]
    trains = not {"--collect", "--help", "-h"} & set(words)
    if trains and ("--only" not in words or any("aligngpt" in word for word in words)):
        prepare(Path(words[0]).resolve())
    fill(__doc__ or "", "stack_runs", cases(), collect)
