"""Trains every row of the ETTh1 table and writes it: `python benchmarks/forecast_runs.py RUNS [--only TEXT ...] [--collect]`.

Each row is a recipe with overrides, trained by `modalign train` in a process of its own and measured on the whole test part.
Finished runs are kept, interrupted ones go on, and one that another process is training is left to it; so the command can be given
again, and several times at once. `--collect` only writes benchmarks/results/forecast_etth1.json and .md from what is finished; rows
that stand there already stay, as long as the recipe they were trained with says the same today, so the table may be filled on several
days. MODALIGN_DATA says where ETTh1.csv is.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import yaml
from long_runs import fill, kept
from measure import RESULTS, where

SWITCHES = ("pretrained", "random", "attention", "none")
NAMES = {"pretrained": "SmolLM2-135M", "random": "random weights", "attention": "one attention layer", "none": "none"}


def cases() -> dict[str, list[str]]:
    """Run name -> arguments of `modalign train`, the most wanted first."""
    found: dict[str, list[str]] = {}
    for horizon, seeds in ((96, (0, 1, 2)), (192, (0,)), (336, (0,)), (720, (0,))):
        for seed in seeds:
            suffix = "" if horizon == 96 else f"_{horizon}"
            for family in ("calf", "fsca"):
                for switch in SWITCHES:
                    recipe = f"configs/{family}/etth1{suffix}.yaml"
                    found[f"{family}-{switch}-{horizon}-{seed}"] = [recipe, "--model.llm", switch, "--seed", str(seed)]
            for family in ("dlinear", "patchtst"):
                both = ["--model.horizon", str(horizon), "--seed", str(seed)]
                found[f"{family}-{horizon}-{seed}"] = [f"configs/{family}/etth1.yaml", *both]
    return found


def row(name: str, run_dir: Path) -> dict:
    """What one finished run says."""
    stages = json.loads((run_dir / "results.json").read_text())["stages"]
    report = list(stages.values())[-1]
    done = [json.loads(path.read_text()) for path in run_dir.glob("stages/*/done.json")][-1]
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    stage = list(recipe["stages"].values())[-1]
    cost = json.loads((run_dir / "cost.json").read_text()) if (run_dir / "cost.json").exists() else {}
    family, *switch, horizon, seed = name.split("-")
    return {
        "name": name,
        "family": family,
        "llm": switch[0] if switch else None,
        "horizon": int(horizon),
        "seed": int(seed),
        "look_back": recipe["model"]["look_back"],
        "mse": report["metrics"]["mse"],
        "mae": report["metrics"]["mae"],
        "own_units": {key: report["metrics"]["original"][key] for key in ("mse", "mae")},
        "windows": report["n"]["windows"],
        "steps": done["steps"],
        "batch_size": recipe["data"]["batch_size"],
        "most_epochs": stage["epochs"],
        "stride": (recipe["data"].get("series") or {}).get("stride", 1),
        "best_step": done.get("best_step"),
        "best_val": done.get("best"),
        "baselines": {key: {k: value[k] for k in ("mse", "mae")} for key, value in report["baselines"].items()},
        **cost,
    }


def collect(folder: Path) -> None:
    """Writes the result files of all finished runs, and of what they have already."""
    earlier = {one["name"]: one for one in kept("forecast_etth1", cases())}
    rows = [row(name, folder / name) if (folder / name / "results.json").exists() else earlier.get(name) for name in cases()]
    rows = [one for one in rows if one is not None]
    facts = where(("torch", "transformers", "lightning", "peft"))
    content = {"title": "ETTh1", "command": "python benchmarks/forecast_runs.py runs/etth1", "rows": rows, "facts": facts}
    (RESULTS / "forecast_etth1.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / "forecast_etth1.md").write_text(markdown(rows, facts))
    print(markdown(rows, facts))


def markdown(rows: list[dict], facts: dict) -> str:
    """A table for each look-back, for what sees five times the past is another question; in it a line per method and horizon."""
    lines = [
        "# Forecasts of ETTh1",
        "",
        "All windows of the published test part, all seven columns, values scaled by the training rows: MSE and MAE, mean over the seeds,",
        "in brackets the smallest and largest MSE. Every method releases its best checkpoint on the validation part. Processor time and",
        "memory are those of training and measuring together, of the first seed. What looks back further stands in a table of its own.",
        "The two cores had other work too, which makes processor time longer: read it as an order of magnitude.",
    ]
    for look_back in sorted({one["look_back"] for one in rows}):
        mine = [one for one in rows if one["look_back"] == look_back]
        lines += ["", f"## From {look_back} hours", "", *_table(mine)]
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items()), ""])


def _table(rows: list[dict]) -> list[str]:
    lines = [
        "| method | horizon | seeds | MSE | MAE | windows | training | processor time | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for horizon in sorted({one["horizon"] for one in rows}):
        mine = [one for one in rows if one["horizon"] == horizon]
        keys = dict.fromkeys((one["family"], one["llm"]) for one in mine)
        lines += [line(key, [one for one in mine if (one["family"], one["llm"]) == key]) for key in keys]
        lines += [
            f"| {label(name)} | {horizon} | | {value['mse']:.4f} | {value['mae']:.4f} | {mine[0]['windows']} | | | |"
            for name, value in mine[0]["baselines"].items()
        ]
    return lines


def label(baseline: str) -> str:
    """A baseline as the table calls it."""
    return baseline.replace("_", " ").replace("dlinear (seed", "DLinear as `modalign eval` fits it (seed")


def line(key: tuple[str, str | None], runs: list[dict]) -> str:
    """One row of the table."""
    family, switch = key
    shown = {"calf": "CALF", "fsca": "FSCA", "dlinear": "DLinear", "patchtst": "PatchTST"}[family]
    shown += f", {NAMES[switch]}" if switch else ""
    errors, first = [one["mse"] for one in runs], runs[0]
    spread = f" ({min(errors):.4f}-{max(errors):.4f})" if len(runs) > 1 else ""
    training = f"{first['steps']} steps of {first['batch_size']}, at most {first['most_epochs']:g} epochs" + (
        f", every {first['stride']}th window" if first["stride"] > 1 else ""
    )
    cost = f"{first['cpu_seconds'] / 60:.1f} min" if "cpu_seconds" in first else ""
    memory = f"{first['peak_megabytes']} MB" if first.get("peak_megabytes") else ""
    return (
        f"| {shown} | {first['horizon']} | {len(runs)} | {mean(errors):.4f}{spread} | "
        f"{mean(one['mae'] for one in runs):.4f} | {first['windows']} | {training} | {cost} | {memory} |"
    )


if __name__ == "__main__":
    fill(__doc__ or "", "forecast_etth1", cases(), collect)
