"""What the benchmarks share: ways timed in turns in one process, medians of their ratios, and a result file that says where it ran."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(
    ways: Mapping[str, Callable[[], int]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Runs every way once per round, in turns, and returns its items per second in each round.

    Whatever else the machine does then slows all ways alike, and a ratio is taken within a round. The clock counts this process' CPU
    time, which is what "per core" means; `time.perf_counter` counts all time.
    """
    for way in ways.values():
        way()  # caches warm, modules imported
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            items = way()
            rates[name].append(items / (clock() - start))
    return rates


def ratio(rates: Mapping[str, list[float]], one: str, other: str) -> float:
    """Median over the rounds of one rate by the other."""
    return median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def where(packages: tuple[str, ...]) -> dict[str, Any]:
    """Hardware and versions."""
    return {"cpu": _cpu(), "python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores visible" if names else platform.machine()


def write(name: str, title: str, question: str, command: str, table: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    """Writes benchmarks/results/NAME.json and NAME.md, and prints the table.

    Args:
        name: Of the files.
        title: Of the page.
        question: What was asked and how it was measured, in a few sentences.
        command: That makes these files again.
        table: Rows, with the same columns each.
        facts: Hardware, versions and settings.
    """
    RESULTS.mkdir(exist_ok=True)
    content = {"title": title, "command": command, "rows": table, "facts": dict(facts)}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    columns = list(table[0])
    lines = [f"# {title}", "", question, "", f"`{command}`", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in table]
    lines += ["", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    (RESULTS / f"{name}.md").write_text("\n".join(lines))
    print("\n".join(lines))
