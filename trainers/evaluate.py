"""`modalign eval`: what a model is worth on a set of shards, as one JSON."""

from __future__ import annotations

import json as json_lib
from pathlib import Path
from typing import Any, Literal

from modalign.datasets.shards import ShardSet
from modalign.zoo.checkpoints.durable import write_text
from modalign.zoo.metrics.retrieval import KS, chance_recall

from .console import console, print_table, track
from .vectors import Features, SetVectors, set_vectors

Task = Literal["retrieval"]


def evaluate_retrieval(
    model: Any,
    name: str,
    shards: ShardSet,
    *,
    data: str,
    languages: list[str] | None = None,
    first_caption: bool = False,
    features: Features | None = None,
    num_workers: int = 0,
) -> tuple[dict[str, Any], SetVectors]:
    """Retrieval between the pictures and captions of a set.

    Args:
        model: A dual encoder.
        name: What the result calls the model.
        shards: The set.
        data: What the result calls the data.
        languages: Caption languages, each measured by itself; `metrics` is their mean. None takes all there are.
        first_caption: Only the first caption of each language.
        features: Cached features to use.
        num_workers: Worker processes that decode.

    Returns:
        ({task, model, data, n, metrics, baselines, by_language}, vectors).
    """
    vectors = set_vectors(
        model,
        shards,
        languages=languages,
        first_caption=first_caption,
        features=features,
        num_workers=num_workers,
        progress=track,
    )
    result = vectors.retrieval()
    images = len(vectors.keys)
    chance = {f"R@{k}": chance_recall(images, k) for k in KS}
    report = {
        "task": "retrieval",
        "model": name,
        "data": data,
        "n": {"images": images, "texts": len(vectors.texts)},
        "metrics": result["metrics"],
        "baselines": {"chance": {"text_to_image": chance}},
        "by_language": result["by_language"],
    }
    return report, vectors


def evaluate(
    model: str,
    data: str,
    task: Task = "retrieval",
    json: str | None = None,
    languages: list[str] | None = None,
    first_caption: bool = False,
    num_workers: int = 0,
    device: str = "cpu",
) -> None:
    """Measures a model on shards and prints a table.

    Args:
        model: A run folder, a release or a name.
        data: Shards: a folder or asset:NAME/SPLIT.
        task: What to measure.
        json: Write the result here too.
        languages: Caption languages; default all.
        first_caption: Only the first caption of each language.
        num_workers: Worker processes that decode pictures.
        device: Where to compute.
    """
    from modalign import zoo

    loaded = zoo.load(model, device)
    report, _ = evaluate_retrieval(
        loaded, model, ShardSet(data), data=data, languages=languages, first_caption=first_caption, num_workers=num_workers
    )
    print_report(report)
    if json:
        write_json(Path(json), report)
        console.print(f"written: {json}")


def print_report(report: dict[str, Any]) -> None:
    """The table of one evaluation."""
    header = ("language", "t→i R@1", "R@5", "R@10", "i→t R@1", "R@5", "R@10")
    rows = [(name, *row_of(table)) for name, table in report["by_language"].items()]
    if len(rows) > 1:
        rows.append(("mean", *row_of(report["metrics"])))
    chance = report["baselines"]["chance"]["text_to_image"]
    rows.append(("chance", chance["R@1"], chance["R@5"], chance["R@10"], "", "", ""))
    print_table(
        f"retrieval in percent: {report['n']['images']} pictures, {report['n']['texts']} captions of {report['data']}",
        header,
        rows,
    )


def row_of(table: dict[str, dict[str, float]]) -> list[Any]:
    """R@1, R@5, R@10 text to image, then image to text."""
    return [table[way][f"R@{k}"] for way in ("text_to_image", "image_to_text") for k in KS]


def write_json(path: Path, values: Any) -> None:
    """Writes indented UTF-8 JSON, all or nothing, making the folder if need be."""
    write_text(path, json_lib.dumps(values, indent=2, ensure_ascii=False) + "\n")
