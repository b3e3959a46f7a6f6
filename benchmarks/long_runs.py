"""Trainings that take hours, a row of a table each: finished ones are kept, interrupted ones go on, and several may work at once."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import yaml
from measure import RESULTS, where


def digest(recipe: str) -> str:
    """Of what a shipped recipe says, whatever its comments; a result belongs to it."""
    content = yaml.safe_load((RESULTS.parents[1] / recipe).read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def run(name: str, arguments: list[str], folder: Path, known: Container[str] = ()) -> None:
    """Trains one row unless it is finished; notes recipe, processor time and memory beside it."""
    run_dir = folder / name
    if name in known or (run_dir / "results.json").exists():
        return
    command = [
        sys.executable,
        "-m",
        "modalign.trainers.cli",
        "train",
        *arguments,
        "--run_dir",
        str(run_dir),
        "--trainer.progress",
        "false",
    ]
    recipe = digest(arguments[0])  # before, as what it is trained with
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: not finished ({done.stderr.strip().splitlines()[-1:]})", flush=True)
        return
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "recipe": recipe,
        "cpu": where(())["cpu"],
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_seconds": round(time.time() - started, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "peak_megabytes": peak_megabytes(run_dir),
    }
    (run_dir / "cost.json").write_text(json.dumps(cost))
    print(f"{name}: {cost}", flush=True)


def peak_megabytes(run_dir: Path) -> int | None:
    """The stage's own note of its memory."""
    notes = [json.loads(path.read_text()) for path in run_dir.glob("stages/*/done.json")]
    return max((note["peak_megabytes"] for note in notes if "peak_megabytes" in note), default=None)


def kept(result: str, cases: Mapping[str, list[str]]) -> list[dict]:
    """Rows of a result file whose recipe says the same today."""
    path = RESULTS / f"{result}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [one for one in rows if one["name"] in cases and one.get("recipe") == digest(cases[one["name"]][0])]


def fill(about: str, result: str, cases: Mapping[str, list[str]], collect: Callable[[Path], None]) -> None:
    """The command line of a table: trains what is asked for and not yet there, then writes the table.

    Args:
        about: What the script says of itself.
        result: Name of its result file.
        cases: Run name -> arguments of `modalign train`.
        collect: Writes the result files from the folder of runs.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="train runs with one of these in their name")
    parser.add_argument("--collect", action="store_true", help="train nothing")
    asked = parser.parse_args()
    known = {one["name"] for one in kept(result, cases)}
    for name, arguments in cases.items():
        if not asked.collect and (not asked.only or any(text in name for text in asked.only)):
            run(name, arguments, asked.runs, known)
    collect(asked.runs)
