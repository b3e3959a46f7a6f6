"""The parts of a model card that are particular to models of pictures and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TAGS = ("zero-shot-image-classification", ("image-text-retrieval",))
LIMITS = (
    "Retrieval and ranking of pictures by text within the kind of data it was trained on. "
    "It was not tested for fairness, safety or use on people; scores outside its data are unknown."
)


def about(model: Any) -> str:
    """One sentence on what it is."""
    return f"joint space of width {model.config.embed_dim}."


def use(model: Any) -> str:
    """How it is used."""
    return (
        '```python\nfrom modalign import zoo\n\nmodel = zoo.load("PATH")  # this folder\n'
        "images = model.encode_image([picture])   # PIL pictures -> unit vectors\n"
        'texts = model.encode_text(["a red apple"])\nscores = texts @ images.T\n```'
    )


def evaluation(report: Mapping[str, Any]) -> str:
    """Recall by language."""
    if report.get("task", "retrieval") != "retrieval":  # the table below is of retrieval
        return "Not evaluated when this release was written."
    rows = ["| language | text→image R@1 | R@5 | R@10 | image→text R@1 | R@5 | R@10 |", "|---|---|---|---|---|---|---|"]
    for name, table in {**report.get("by_language", {}), "mean": report["metrics"]}.items():
        cells = [f"{table[way][k]:.1f}" for way in ("text_to_image", "image_to_text") for k in ("R@1", "R@5", "R@10")]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    n = report["n"]
    first = " (the first of each language)" if report.get("settings", {}).get("first_caption") else ""
    about_it = f"Retrieval in percent over {n['images']} pictures and {n['texts']} captions{first} of `{report['data']}`"
    chance = report["baselines"]["chance"]["text_to_image"]["R@10"]
    return f"{about_it}; chance is R@10 {chance:.1f} (text→image).\n\n" + "\n".join(rows)
