"""Mean and range over runs of one recipe with several seeds: `python benchmarks/seeds.py NAME RUN RUN ...`.

Reads the evaluation of every stage from each run's results.json and writes benchmarks/results/NAME.json and NAME.md: per stage and
language the mean over the runs, and for the mean of the languages also the smallest and the largest value.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import yaml

WAYS, KS = ("text_to_image", "image_to_text"), ("R@1", "R@5", "R@10")
RESULTS = Path(__file__).parent / "results"


def collect(runs: list[Path]) -> dict:
    """Stage -> language -> way -> K -> {mean, min, max} over runs."""
    found = [json.loads((run / "results.json").read_text())["stages"] for run in runs]
    table: dict = {}
    for stage in found[0]:
        tables = [{**run[stage]["by_language"], "mean": run[stage]["metrics"]} for run in found]
        for group, languages in groups(list(tables[0])).items():
            for way in WAYS:
                for k in KS:
                    values = [mean(t[lang][way][k] for lang in languages) for t in tables]
                    cell = {"mean": round(mean(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}
                    table.setdefault(stage, {}).setdefault(group, {}).setdefault(way, {})[k] = cell
    return table


def groups(languages: list[str]) -> dict[str, list[str]]:
    """Each language by itself, all but English, and the mean of all."""
    single = {lang: [lang] for lang in languages if lang != "mean"}
    others = [lang for lang in single if lang != "en"]
    return {**single, **({"others (mean)": others} if others else {}), "mean": ["mean"]}


def markdown(name: str, table: dict, about: dict) -> str:
    """The table, and what it was measured with."""
    lines = [
        f"# {name}",
        "",
        f"Retrieval in percent, mean over {len(about['seeds'])} seeds; in brackets smallest and largest.",
        "",
    ]
    lines += ["| stage | captions | t→i R@1 | R@5 | R@10 | i→t R@1 | R@5 | R@10 |", "|---|---|---|---|---|---|---|---|"]
    for stage, by_group in table.items():
        for group, ways in by_group.items():
            wide = group in ("en", "mean", "others (mean)")
            lines.append(f"| {stage} | {group} | " + " | ".join(cell(ways[way][k], wide) for way in WAYS for k in KS) + " |")
    return "\n".join([*lines, "", *[f"- {key}: {value}" for key, value in about.items()], ""])


def cell(values: dict, wide: bool) -> str:
    """`mean [min-max]`."""
    return f"{values['mean']:.1f}" + (f" [{values['min']:.1f} to {values['max']:.1f}]" if wide else "")


def about_machine() -> dict:
    """Versions and hardware."""
    return {
        "versions": {package: version(package) for package in ("torch", "lightning", "transformers", "timm")},
        "hardware": f"{platform.machine()}, CPU, 2 cores shared with other work: the times are upper bounds",
    }


def main() -> None:
    """Reads the command line."""
    name, runs = sys.argv[1], [Path(run) for run in sys.argv[2:]]
    recipes = [yaml.safe_load((run / "recipe.yaml").read_text()) for run in runs]
    first = next(iter(json.loads((runs[0] / "results.json").read_text())["stages"].values()))
    about = {
        "seeds": [recipe["seed"] for recipe in recipes],
        "data": f"{first['data']}: {first['n']['images']} pictures, {first['n']['texts']} captions",
        "seconds per stage (first run)": {
            stage: json.loads((runs[0] / "stages" / stage / "done.json").read_text())["seconds"] for stage in recipes[0]["stages"]
        },
        **about_machine(),
        "command": f"python benchmarks/seeds.py {name} " + " ".join(f"runs/seed-{recipe['seed']}" for recipe in recipes),
    }
    table = collect(runs)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"about": about, "results": table}, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown(name, table, about))
    print(markdown(name, table, about))


if __name__ == "__main__":
    main()
