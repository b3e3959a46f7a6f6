"""What is left of a model's recall when only the first numbers of its vectors are kept; writes results/truncation.json and .md.

    python benchmarks/truncation.py matryoshka runs/matryoshka-0 runs/matryoshka-1 clip runs/clip-0 runs/clip-1

Words that are no folders name the runs that follow them: several seeds of `configs/matryoshka/flickr8k.yaml`, and of
`configs/clip/flickr8k.yaml`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from seeds import KS, RESULTS, WAYS, about_machine, recall_cells, spread

from modalign import zoo
from modalign.datasets.shards import ShardSet
from modalign.trainers.evaluation.retrieval import RetrievalTask
from modalign.trainers.evaluation.task import Subject
from modalign.trainers.recipe import CacheConfig
from modalign.trainers.stage_data import eval_features

DATA = "asset:flickr8k_multilingual/test"
DIMS = (384, 192, 96, 48, 24)


def recalls(run: Path) -> dict[int, Any]:
    """Width -> recall of a finished run."""
    model, shards = zoo.load(run), ShardSet(DATA)
    subject = Subject(model, run.name, shards, DATA, eval_features(model, shards, ["en"], CacheConfig(image="output", text=True)))
    return {dim: RetrievalTask(["en"], dim=dim).measure(subject)["metrics"] for dim in DIMS}


def main() -> None:
    """Reads the command line."""
    groups: dict[str, list[Path]] = {}
    for word in sys.argv[1:]:
        if Path(word).is_dir():
            groups[list(groups)[-1]].append(Path(word))
        else:
            groups[word] = []
    results: dict[str, Any] = {}
    for name, runs in groups.items():
        tables = [recalls(run) for run in runs]
        results[name] = {
            dim: {way: {k: spread([table[dim][way][k] for table in tables]) for k in KS} for way in WAYS} for dim in DIMS
        }
    about = {
        "data": f"{DATA}, English",
        "runs": {name: len(runs) for name, runs in groups.items()},
        **about_machine(),
        "command": "python benchmarks/truncation.py matryoshka runs/matryoshka-{0,1,2} clip runs/clip-{0,1,2}",
    }
    lines = ["# truncation", "", (__doc__ or "").split("\n\n")[0].split(";")[0] + ".", ""]
    lines += ["Retrieval in percent, mean over the seeds; in brackets smallest and largest of R@10.", ""]
    lines += ["| model | first numbers | t→i R@1 | R@5 | R@10 | i→t R@1 | R@5 | R@10 |", "|---" * 8 + "|"]
    for name, by_dim in results.items():
        for dim, ways in by_dim.items():
            lines.append(f"| {name} | {dim} | " + " | ".join(recall_cells(ways)) + " |")
    text = "\n".join([*lines, "", *[f"- {key}: {value}" for key, value in about.items()], ""])
    (RESULTS / "truncation.json").write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")
    (RESULTS / "truncation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
