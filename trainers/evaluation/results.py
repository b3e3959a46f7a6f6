"""What came out of a run, said plainly: a table by language and stage, what carries over to languages not trained on, answered queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalign.datasets.commands.sheet import contact_sheet

from ..commands.search import best_hits, picture_and_caption
from ..console import console, print_table
from ..recipe import Recipe
from .command import write_json
from .retrieval import RetrievalTask, row_of
from .stages import of_task, results_of
from .task import Subject, Table
from .tasks import TASKS


def report_results(recipe: Recipe, run: Path, evaluations: dict[str, dict[str, Any]], model: Subject | None) -> None:
    """Prints the results and writes `results.json`, `results.md` and, where the recipe has queries, `queries.png`.

    Args:
        recipe: The run's recipe.
        run: Its folder.
        evaluations: Stage -> the content of its eval.json.
        model: The run's release, to answer the recipe's queries.
    """
    if not evaluations:
        return
    retrieval = of_task(evaluations, RetrievalTask.name)
    sentences = transfer(recipe, retrieval)
    write_json(run / "results.json", {"stages": evaluations, "summary": sentences})
    parts = [_markdown(retrieval, sentences)] if retrieval else []
    parts += [_markdown_table(stage, table) for stage, table in other_tables(evaluations)]
    (run / "results.md").write_text("\n".join(parts), encoding="utf-8")
    if retrieval:
        _print_retrieval(retrieval)
    for sentence in sentences:
        console.print(sentence)
    if model is not None and recipe.evaluate is not None and recipe.evaluate.queries:
        _answer(model, recipe.evaluate.queries, run)


def _print_retrieval(evaluations: Mapping[str, dict[str, Any]]) -> None:
    languages = list(next(iter(evaluations.values()))["by_language"])
    if len(evaluations) > 1 or len(languages) > 1:
        rows = [(lang, *[e["by_language"][lang]["text_to_image"]["R@10"] for e in evaluations.values()]) for lang in languages]
        rows.append(("mean", *[e["metrics"]["text_to_image"]["R@10"] for e in evaluations.values()]))
        print_table("text to image R@10 in percent, test pictures", ("language", *evaluations), rows)


def other_tables(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Table]]:
    """(stage, table) of every result but retrieval's, task by task."""
    tasks = dict.fromkeys(task for content in evaluations.values() for task in results_of(content))
    return [
        (stage, table)
        for task in tasks
        if task != RetrievalTask.name
        for stage, report in of_task(evaluations, task).items()
        for table in TASKS.get(task).tables(report)
    ]


def _markdown_table(stage: str, table: Table) -> str:
    lines = [f"## {stage}: {table.title}", "", "| " + " | ".join(cell.replace("|", "/") for cell in table.header) + " |"]
    lines.append("|" + "---|" * len(table.header))
    lines += [
        "| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row) + " |" for row in table.rows
    ]
    return "\n".join([*lines, ""])


def transfer(recipe: Recipe, evaluations: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence per stage: recall in the languages it was trained on and in the others, beside chance."""
    sentences = []
    for name, evaluation in evaluations.items():
        trained = recipe.stage_data(name).languages
        table = {lang: values["text_to_image"]["R@10"] for lang, values in evaluation["by_language"].items()}
        seen = [value for lang, value in table.items() if trained is None or lang in trained]
        unseen = [value for lang, value in table.items() if trained is not None and lang not in trained]
        chance = evaluation["baselines"]["chance"]["text_to_image"]["R@10"]
        text = f"{name}: R@10 {_mean(seen):.1f} in the languages trained on ({len(seen)})" if seen else f"{name}:"
        if unseen and seen and _mean(seen) < 1.5 * chance:
            text += f", {_mean(unseen):.1f} in the {len(unseen)} others, which is too close to chance to speak of transfer"
        elif unseen:
            above = [value - chance for value in (_mean(unseen), _mean(seen))] if seen else [0.0, 1.0]
            share = max(0.0, above[0] / above[1]) if above[1] > 0 else 0.0
            text += f", {_mean(unseen):.1f} in the {len(unseen)} others: {share:.0%} of what is learnt above chance carries over"
        sentences.append(f"{text}; chance {chance:.1f}.")
    return sentences


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _markdown(evaluations: dict[str, dict[str, Any]], sentences: list[str]) -> str:
    first = next(iter(evaluations.values()))
    lines = [
        f"Retrieval in percent, {first['n']['images']} pictures and {first['n']['texts']} captions of `{first['data']}`.",
        "",
    ]
    lines += ["| stage | language | t→i R@1 | R@5 | R@10 | i→t R@1 | R@5 | R@10 |", "|---|---|---|---|---|---|---|---|"]
    for stage, evaluation in evaluations.items():
        for lang, table in {**evaluation["by_language"], "mean": evaluation["metrics"]}.items():
            lines.append(f"| {stage} | {lang} | " + " | ".join(f"{value:.1f}" for value in row_of(table)) + " |")
    return "\n".join([*lines, "", *[f"- {sentence}" for sentence in sentences], ""])


def _answer(model: Subject, queries: list[str], run: Path) -> None:
    """Searches the test pictures for the recipe's queries; one row of pictures each."""
    pictures, captions = [], []
    for query, hits in zip(queries, best_hits(model.model, model.pictures().image, queries, 6), strict=True):
        found = [picture_and_caption(model.shards, row) for row, _ in hits]
        console.print(f"{query!r}: " + ", ".join(caption for _, caption in found))
        pictures += [picture for picture, _ in found]
        captions += [f"{query}: {caption}" if rank == 0 else caption for rank, (_, caption) in enumerate(found)]
    contact_sheet(pictures, captions, run / "queries.png", title="Best pictures for: " + "; ".join(queries), columns=6)
    console.print(f"the pictures: {run / 'queries.png'}")
