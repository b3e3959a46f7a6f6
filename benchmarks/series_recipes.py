"""Trains the other recipes of time series and writes their table: `python benchmarks/series_recipes.py RUNS [--only TEXT ...] [--collect]`.

As benchmarks/forecast_runs.py: finished runs and rows of the result file are kept, interrupted runs go on, several may work on one folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import yaml
from long_runs import fill, kept
from measure import RESULTS, where

#: recipe -> seeds
RECIPES: dict[str, tuple[int, ...]] = {
    "calf/demo": (0, 1, 2),
    "calf/daily": (0, 1, 2),
    "fsca/daily": (0, 1, 2),
    "calf/spoken_digits": (0, 1, 2),
    "fsca/spoken_digits": (0, 1, 2),
    "fsca/spoken_digits_shown": (0,),
    "calf/imputation": (0,),
    "calf/household_power": (0,),
    "calf/appliance_energy": (0,),
    "calf/beijing_pm": (0,),
    "fsca/household_power": (0,),
    "fsca/appliance_energy": (0,),
    "fsca/beijing_pm": (0,),
    "calf/etth1_few_shot": (0, 1, 2),
    "fsca/etth1_few_shot": (0, 1, 2),
    "calf/etth1_zero_shot": (0,),
    "fsca/etth1_zero_shot": (0,),
}
#: task -> the numbers its rows show
SHOWN = {
    "forecast": ("mse", "mae"),
    "imputation": ("mse", "mae"),
    "classification": ("accuracy",),
    "short_term": ("smape", "mase", "owa"),
}


def cases() -> dict[str, list[str]]:
    """Run name -> arguments of `modalign train`."""
    return {
        f"{recipe.replace('/', '-')}-{seed}": [f"configs/{recipe}.yaml", "--seed", str(seed)]
        for recipe, seeds in RECIPES.items()
        for seed in seeds
    }


def read(name: str, run_dir: Path) -> dict:
    """What one finished run says."""
    report = list(json.loads((run_dir / "results.json").read_text())["stages"].values())[-1]
    shown = SHOWN[report["task"]]
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    cost = json.loads((run_dir / "cost.json").read_text()) if (run_dir / "cost.json").exists() else {}
    rows = {"model": report["metrics"], **report["baselines"]}
    return {
        "name": name,
        "task": report["task"],
        "data": report["data"],
        "n": report["n"],
        "seed": recipe["seed"],
        "results": {name: {key: values[key] for key in shown} for name, values in rows.items()},
        **cost,
    }


def markdown(found: dict[str, list[dict]], facts: dict) -> str:
    """One block per recipe: the model, with its spread over seeds, above everything that stands beside it."""
    lines = [
        "# Recipes of time series",
        "",
        "Means over the seeds, in brackets the smallest and largest; errors of scaled values.",
        "",
    ]
    lines += ["| recipe | forecast | seeds | result | processor time | memory |", "|---|---|---|---|---|---|"]
    for recipe, runs in found.items():
        for name in runs[0]["results"]:
            cells = [
                _cell(key, [one["results"][name][key] for one in runs if name in one["results"]])
                for key in runs[0]["results"][name]
            ]
            own = name == "model"
            cost = f"{runs[0]['cpu_seconds'] / 60:.1f} min" if own and "cpu_seconds" in runs[0] else ""
            memory = f"{runs[0]['peak_megabytes']} MB" if own and runs[0].get("peak_megabytes") else ""
            head = f"{recipe} ({runs[0]['task']}, {runs[0]['data']})" if own else ""
            label = "**this recipe**" if own else name.replace("_", " ")
            lines.append(f"| {head} | {label} | {len(runs) if own else ''} | {', '.join(cells)} | {cost} | {memory} |")
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items()), ""])


def _cell(key: str, values: list[float]) -> str:
    spread = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 and min(values) < max(values) else ""
    return f"{key} {mean(values):.4g}{spread}"


def collect(folder: Path) -> None:
    """Writes the result files of all finished runs, and of what they have already."""
    rows = {one["name"]: one for one in kept("series_recipes", cases())}
    rows |= {name: read(name, folder / name) for name in cases() if (folder / name / "results.json").exists()}
    found: dict[str, list[dict]] = {}
    for recipe, seeds in RECIPES.items():
        runs = [rows[name] for seed in seeds if (name := f"{recipe.replace('/', '-')}-{seed}") in rows]
        if runs:
            found[recipe] = runs
    facts = where(("torch", "transformers", "lightning", "peft"))
    content = {"command": "python benchmarks/series_recipes.py runs/series", "rows": list(rows.values()), "facts": facts}
    (RESULTS / "series_recipes.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / "series_recipes.md").write_text(markdown(found, facts))
    print(markdown(found, facts))


if __name__ == "__main__":
    fill(__doc__ or "", "series_recipes", cases(), collect)
