"""Mean and range over runs of one recipe with several seeds: `python benchmarks/seeds.py NAME RUN RUN ...`.

Reads the evaluation of every stage from each run's results.json and writes benchmarks/results/NAME.json and NAME.md: per stage and
language the mean over the runs, and for the mean of the languages also the smallest and the largest value. Where some of the measured
languages were never trained on, they have a mean of their own. Where the recipe also measures `crosslingual`, a second table has it.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import yaml

#: with more languages than this, they are one row each and the stages are columns
FEW = 20
WAYS, KS = ("text_to_image", "image_to_text"), ("R@1", "R@5", "R@10")
RESULTS = Path(__file__).parent / "results"


def collect(stages: list[dict], trained: set[str]) -> dict:
    """Stage -> language -> way -> K -> {mean, min, max} over runs; `trained` are the languages of the last stage."""
    table: dict = {}
    for stage in stages[0]:
        tables = [{**run[stage]["by_language"], "mean": run[stage]["metrics"]} for run in stages]
        for group, languages in groups(list(tables[0]), trained).items():
            for way in WAYS:
                for k in KS:
                    values = [mean(t[lang][way][k] for lang in languages) for t in tables]
                    table.setdefault(stage, {}).setdefault(group, {}).setdefault(way, {})[k] = spread(values)
    return table


def spread(values: list[float]) -> dict[str, float]:
    """Mean, smallest and largest."""
    return {"mean": round(mean(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}


def groups(languages: list[str], trained: set[str]) -> dict[str, list[str]]:
    """Each language by itself, all but English, those of them the last stage was trained on and those it was not, and all."""
    single = {lang: [lang] for lang in languages if lang != "mean"}
    others = [lang for lang in single if lang != "en"]
    seen, unseen = [lang for lang in others if lang in trained], [lang for lang in others if lang not in trained]
    split = {f"{len(seen)} others of the last stage (mean)": seen, f"{len(unseen)} never trained on (mean)": unseen}
    means = {"others (mean)": others, **(split if seen and unseen else {})}
    return {**single, **{name: found for name, found in means.items() if found}, "mean": ["mean"]}


def crosslingual(stages: list[dict], trained: set[str]) -> dict:
    """Stage -> language -> number -> {mean, min, max}; `before` is the embedder itself, the same in every stage with one embedder."""
    table: dict = {}
    for stage in stages[0]:
        reports = [run[stage].get("also", {}).get("crosslingual") for run in stages]
        if reports[0] is None:
            continue
        sides = {"before": [r["baselines"]["before_projector"]["by_language"] for r in reports]}
        sides["after"] = [r["by_language"] for r in reports]
        for group, languages in groups(list(reports[0]["by_language"]), trained).items():
            for number, read in CROSSLINGUAL.items():
                for side, tables in sides.items():
                    values = [mean(read(t[lang]) for lang in (t if languages == ["mean"] else languages)) for t in tables]
                    table.setdefault(stage, {}).setdefault(group, {})[f"{number} {side}"] = spread(values)
    return table


CROSSLINGUAL = {
    "MEXA": lambda table: table["mexa"],
    "nearest P@1": lambda table: table["to_pivot"]["nn"]["P@1"],
    "CSLS P@1": lambda table: table["to_pivot"]["csls"]["P@1"],
}


def markdown(name: str, table: dict, translated: dict, about: dict) -> str:
    """The tables, and what they were measured with."""
    lines = [f"# {name}", ""]
    lines += [f"Retrieval in percent, mean over {len(about['seeds'])} seed(s); in brackets smallest and largest.", ""]
    lines += ["| stage | captions | t→i R@1 | R@5 | R@10 | i→t R@1 | R@5 | R@10 |", "|---|---|---|---|---|---|---|---|"]
    single = [group for group in next(iter(table.values())) if not is_wide(group)]
    many = len(single) > FEW
    for stage, by_group in table.items():
        for group, ways in by_group.items():
            if is_wide(group) or not many:
                cells = [cell(ways[way][k], is_wide(group)) for way in WAYS for k in KS]
                lines.append(f"| {stage} | {group} | " + " | ".join(cells) + " |")
    if many:
        lines += by_language("Text to image R@10 by language", table, single, lambda ways: ways["text_to_image"]["R@10"])
    if translated:
        lines += crosslingual_lines(translated, single if many else [])
    return "\n".join([*lines, "", *[f"- {key}: {value}" for key, value in about.items()], ""])


def by_language(title: str, table: dict, languages: list[str], read: Callable[[dict], dict]) -> list[str]:
    """One row per language, one column per stage."""
    lines = ["", f"{title}; the JSON beside this file has all numbers.", "", "| captions | " + " | ".join(table) + " |"]
    lines.append("|---" * (len(table) + 1) + "|")
    return lines + [
        f"| {lang} | " + " | ".join(cell(read(groups[lang]), False) for groups in table.values()) + " |" for lang in languages
    ]


def crosslingual_lines(translated: dict, languages: list[str]) -> list[str]:
    """MEXA and translation by nearest neighbours; by language only for those not in a table of their own."""
    first = next(iter(translated.values()))
    numbers = list(next(iter(first.values())))
    lines = ["", "Captions and their translations into English, percent, before and after the projector.", ""]
    lines += ["| stage | captions | " + " | ".join(numbers) + " |", "|---|---" + "|---" * len(numbers) + "|"]
    for stage, by_group in translated.items():
        for group, values in by_group.items():
            if group not in languages:
                lines.append(f"| {stage} | {group} | " + " | ".join(cell(values[number], False) for number in numbers) + " |")
    if languages:
        last = list(translated)[-1]
        shown = {f"{number}": {lang: {"x": translated[last][lang][number]} for lang in translated[last]} for number in numbers}
        known = [lang for lang in languages if lang in translated[last]]
        lines += by_language(f"The same by language, stage {last}", shown, known, lambda values: values["x"])
    return lines


def is_wide(group: str) -> bool:
    """Whether a row is of several languages, or of the one that all stages see."""
    return group in ("en", "mean") or group.endswith("(mean)")


def cell(values: dict, wide: bool) -> str:
    """`mean [min-max]`."""
    return f"{values['mean']:.1f}" + (f" [{values['min']:.1f} to {values['max']:.1f}]" if wide else "")


def recall_cells(ways: dict) -> list[str]:
    """Both directions at every K, with the range over the seeds at 10."""
    return [cell(values, k == "R@10") for way in WAYS for k, values in ways[way].items()]


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
    stages = [json.loads((run / "results.json").read_text())["stages"] for run in runs]
    first, last = next(iter(stages[0].values())), list(recipes[0]["stages"].values())[-1]
    trained = set(last["data"].get("languages") or recipes[0]["data"]["languages"] or first["by_language"])
    about = {
        "seeds": [recipe["seed"] for recipe in recipes],
        "data": f"{first['data']}: {first['n']['images']} pictures, {first['n']['texts']} captions",
        "seconds per stage (first run)": {
            stage: json.loads((runs[0] / "stages" / stage / "done.json").read_text())["seconds"] for stage in recipes[0]["stages"]
        },
        **about_machine(),
        "command": f"python benchmarks/seeds.py {name} " + " ".join(f"runs/seed-{recipe['seed']}" for recipe in recipes),
    }
    table, translated = collect(stages, trained), crosslingual(stages, trained)
    content = {"about": about, "results": table, **({"crosslingual": translated} if translated else {})}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown(name, table, translated, about))
    print(markdown(name, table, translated, about))


if __name__ == "__main__":
    main()
