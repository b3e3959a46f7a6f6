"""report.html: what a run did and what came out, in one file that opens anywhere."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modalign.zoo.metrics.retrieval import flatten

from ..kinds import kind_of_recipe
from ..recipe import Recipe
from .results import other_tables
from .retrieval import RetrievalTask, counted
from .stages import of_task, read_evaluations

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
h2 { margin-top: 2.2rem }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto }
.hits { display: flex; gap: 10px; flex-wrap: wrap; margin-bottom: 1rem }
figure { margin: 0; width: 118px }
figure img { width: 112px; height: 112px; object-fit: contain; border: 3px solid #e2e2e2; border-radius: 6px }
figure.right img { border-color: #2b9348 }
figcaption { font-size: 12px; line-height: 1.25 }
.note { color: #555 }
"""


def write_report(recipe: Recipe, run: Path, model: Any | None) -> Path:
    """Writes the report of a finished run.

    Args:
        recipe: Its recipe.
        run: Its folder.
        model: The run's release with its test data, to show what it does.

    Returns:
        The file.
    """
    evaluations = read_evaluations(recipe, run)
    title = html.escape(recipe.title or run.name)
    body = [f"<h1>{title}</h1>", _stages(recipe, run), _results(recipe, evaluations), _curves(run)]
    if model is not None:
        body.append(kind_of_recipe(recipe).pictures(recipe, model, evaluations))
    body += [f"<h2>Resolved recipe</h2><pre>{html.escape(recipe.to_yaml())}</pre>", _environment()]
    head = f"<meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
    page = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>"
    path = run / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    cells = ("".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _cell(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _stages(recipe: Recipe, run: Path) -> str:
    rows, notes = [], []
    for name, stage in recipe.stages.items():
        done = json.loads((run / "stages" / name / "done.json").read_text())
        trains = ", ".join(f"{key} {lr:g}" for key, lr in stage.train.items())
        losses = ", ".join(
            f"{float(o.get('weight', 1.0)):g}·{label}" for label, o in ((k, v or {}) for k, v in stage.losses.items())
        )
        best = f"{done['metric']} {done['best']:.4g} at step {done['best_step']}" if "best" in done else "-"
        rows.append((name, trains, losses, done["steps"], f"{done['seconds']:.0f}\u00a0s", best))
        if "second_caption_share" in done:
            share = done["second_caption_share"]
            notes.append(
                f"Stage {name}: {share:.1%} of the samples have a second caption; `modalign zoo show LOSS` says what of the others."
            )
    note = "".join(f"<p class=note>{html.escape(text)}</p>" for text in notes)
    return (
        "<h2>Stages</h2>" + _table(("stage", "trains (learning rate)", "losses", "steps", "time", "best validation"), rows) + note
    )


def _results(recipe: Recipe, evaluations: dict[str, dict[str, Any]]) -> str:
    if not evaluations:
        return "<h2>Results</h2><p>Nothing was evaluated.</p>"
    retrieval = of_task(evaluations, RetrievalTask.name)
    tables = [
        f"<h3>{html.escape(f'{stage}: {table.title}')}</h3>" + _table(table.header, table.rows)
        for stage, table in other_tables(evaluations)
    ]
    return "<h2>Results</h2>" + (_retrieval(recipe, retrieval) if retrieval else "") + "".join(tables)


def _retrieval(recipe: Recipe, evaluations: dict[str, dict[str, Any]]) -> str:
    first = next(iter(evaluations.values()))
    about = f"Retrieval in percent: {counted(first)}."
    keys = [f"{way}/R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]
    rows: list[tuple[object, ...]] = [(name, *[flatten(e["metrics"])[key] for key in keys]) for name, e in evaluations.items()]
    baselines = {"chance": flatten(first["baselines"]["chance"])} | (recipe.evaluate.baselines if recipe.evaluate else {})
    rows += [(f"baseline: {name}", *[values.get(key, "-") for key in keys]) for name, values in baselines.items()]
    header = ("stage (mean of languages)", "t→i R@1", "R@5", "R@10", "i→t R@1", "R@5", "R@10")
    parts = [f"<p>{html.escape(about)}</p>", _table(header, rows)]
    if len(first["by_language"]) > 1:
        parts.append(_by_language(evaluations, "text_to_image") + _by_language(evaluations, "image_to_text"))
    return "".join(parts)


def _by_language(evaluations: dict[str, dict[str, Any]], way: str) -> str:
    languages = list(next(iter(evaluations.values()))["by_language"])

    def cell(evaluation: dict[str, Any], lang: str) -> str:
        return " / ".join(f"{evaluation['by_language'][lang][way][f'R@{k}']:.1f}" for k in (1, 5, 10))

    rows = [(lang, *[cell(evaluation, lang) for evaluation in evaluations.values()]) for lang in languages]
    return f"<h3>{way.replace('_', ' ')}, R@1 / 5 / 10 by language</h3>" + _table(("language", *evaluations), rows)


def _curves(run: Path) -> str:
    path = run / "metrics.csv"
    if not path.exists():
        return ""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    parts = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        mine = [row for row in rows if row["stage"] == stage]
        parts.append(f"<h3>{html.escape(stage)}</h3><img alt='curves of {html.escape(stage)}' src='{_plot(mine)}'>")
    return "<h2>Curves</h2>" + "".join(parts)


def _plot(rows: list[dict[str, str]]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    have = {name for row in rows for name, value in row.items() if value}
    groups = [
        ("loss", sorted(n for n in have if n == "loss" or n.startswith("loss/"))),
        ("validation", sorted(n for n in have if n.startswith("val/") and n.endswith(("R@10", "/mse", "/mae", "/accuracy")))),
        ("samples/s", ["samples_per_second"]),
        ("shares and cosines", sorted(n for n in have if n.endswith(("accuracy", "cosine", "_share")))),
        ("scale", sorted(n for n in have if n.endswith("/scale"))),
    ]
    groups = [(title, [n for n in names if n in have]) for title, names in groups]
    groups = [(title, names) for title, names in groups if names]
    figure, axes = plt.subplots(1, len(groups), figsize=(3.6 * len(groups), 2.7), squeeze=False)
    for axis, (title, names) in zip(axes[0], groups, strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            axis.plot(*zip(*points, strict=True), label=name.removeprefix("loss/").removeprefix("val/"), linewidth=1.2)
        if title == "loss" and _spread(rows, names) > 50:
            axis.set_yscale("log")  # summed terms dwarf the others
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
        axis.grid(alpha=0.25)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _spread(rows: list[dict[str, str]], names: list[str]) -> float:
    """Largest over smallest last value of the curves; 1 where one is zero or below."""
    last = [float(next(row[name] for row in reversed(rows) if row.get(name))) for name in names]
    return max(last) / min(last) if min(last) > 0 else 1.0


def _environment() -> str:
    import os

    import torch

    packages = ("modalign", "torch", "lightning", "transformers", "timm", "open-clip-torch", "webdataset")
    rows: list[tuple[str, object]] = [("Python", platform.python_version()), *[(name, version(name)) for name in packages]]
    rows += [("system", f"{platform.system()} {platform.machine()}"), ("CPU cores", os.cpu_count() or 0)]
    if torch.cuda.is_available():
        rows.append(("GPU", torch.cuda.get_device_name()))
    return "<h2>Environment</h2>" + _table(("what", "version"), rows)
