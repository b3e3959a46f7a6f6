"""The parts of a model card that are particular to stacks of encoder, projector and language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TAGS = ("image-text-to-text", ("vision-language-model",))
LIMITS = (
    "Answers about pictures of the kind it was trained on. It says things that are not in the picture; it was not tested for fairness, "
    "safety or use on people, and scores outside its data are unknown."
)


def about(model: Any) -> str:
    """One sentence on what it is made of."""
    tokens, hooks = model.layout.tokens_per_tile, ", ".join(model.hooks)
    beside = f"; besides {hooks}" if hooks else ""
    return f"{tokens} tokens for a tile of {model.layout.preprocess.size} pixels{beside}."


def use(model: Any) -> str:
    """How it is used."""
    return (
        '```\nmodalign chat PATH --image picture.jpg "What is this?"\nmodalign eval PATH --task caption --data SHARDS\n```\n\n'
        '```python\nfrom modalign import zoo\n\nmodel = zoo.load("PATH")  # this folder\n'
        'print(model.answer("What is this?", [picture]))   # PIL pictures\n```'
    )


def evaluation(report: Mapping[str, Any]) -> str:
    """The scores with all baselines."""
    columns = {"this model": report["metrics"], **report["baselines"]}
    names = [name for name, value in report["metrics"].items() if isinstance(value, float)]
    rows = [f"| {label} | " + " | ".join(_cell(values.get(name)) for name in names) + " |" for label, values in columns.items()]
    counted = ", ".join(f"{value} {name}" for name, value in report["n"].items())
    head = ["| by | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    return "\n".join([f"{report['task']} on `{report['data']}`: {counted}.", "", *head, *rows])


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"
