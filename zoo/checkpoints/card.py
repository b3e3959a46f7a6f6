"""The model card that a release carries: generated, so that it says what the files say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..names import public_source
from . import card_series


def model_card(
    model: Any,
    title: str = "",
    evaluation: Mapping[str, Any] | None = None,
    data: Mapping[str, str] | None = None,
    started_from: Sequence[str] = (),
) -> str:
    """Markdown with YAML front matter, in the form model hubs read.

    Args:
        model: A model of a family.
        title: One line on what it is.
        evaluation: The JSON of an evaluation (task, data, n, metrics, by_language), shown as a table.
        data: Name -> licence of what it was trained on.
        started_from: Releases whose weights it started with.
    """
    from huggingface_hub import ModelCardData

    sources = {part: public_source(name) for part, name in model.sources().items()}
    started = [public_source(name) for name in started_from]
    bases = [name.partition(":")[2] for name in [*started, *sources.values()] if name.startswith("hf:")]
    series = getattr(model, "data_kind", "pairs") == "series"
    pipeline, tags = card_series.TAGS if series else ("zero-shot-image-classification", ("image-text-retrieval",))
    front = ModelCardData(
        library_name="modalign",
        pipeline_tag=pipeline,
        tags=["modalign", model.family, *tags],
        base_model=bases or None,
        language=sorted(evaluation["by_language"]) if evaluation and evaluation.get("by_language") else None,
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    lineage = [f"- weights: started from `{name}`" for name in started]
    lineage += [f"- {prefix.rstrip('.')}: started from `{name}`" for prefix, name in sources.items()]
    parts = "\n".join(lineage) or "- from random weights"
    lines = [
        f"---\n{front.to_yaml()}\n---",
        f"# {_one_line(title) or model.family}",
        f"A model of the family `{model.family}`, {count / 1e6:.1f} M parameters, {_about(model, series)}",
        f"## Parts\n{parts}",
        f"## Use\n{card_series.use(model) if series else _USE}",
        f"## Evaluation\n{_evaluation(evaluation, series)}",
        f"## Intended use and limits\n{card_series.LIMITS if series else _LIMITS}{_trained_on(data)}",
    ]
    return "\n\n".join(lines) + "\n"


_USE = (
    '```python\nfrom modalign import zoo\n\nmodel = zoo.load("PATH")  # this folder\n'
    "images = model.encode_image([picture])   # PIL pictures -> unit vectors\n"
    'texts = model.encode_text(["a red apple"])\nscores = texts @ images.T\n```'
)


def _about(model: Any, series: bool) -> str:
    return card_series.about(model) if series else f"joint space of width {model.config.embed_dim}."


def _evaluation(evaluation: Mapping[str, Any] | None, series: bool) -> str:
    if not evaluation:
        return "Not evaluated when this release was written."
    if series:
        return card_series.evaluation({**evaluation, "data": _shown(evaluation["data"])})
    if evaluation.get("task", "retrieval") != "retrieval":  # the table below is of retrieval
        return "Not evaluated when this release was written."
    rows = ["| language | text→image R@1 | R@5 | R@10 | image→text R@1 | R@5 | R@10 |", "|---|---|---|---|---|---|---|"]
    for name, table in {**evaluation.get("by_language", {}), "mean": evaluation["metrics"]}.items():
        cells = [f"{table[way][k]:.1f}" for way in ("text_to_image", "image_to_text") for k in ("R@1", "R@5", "R@10")]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    n = evaluation["n"]
    first = " (the first of each language)" if evaluation.get("settings", {}).get("first_caption") else ""
    about = f"Retrieval in percent over {n['images']} pictures and {n['texts']} captions{first} of `{_shown(evaluation['data'])}`"
    chance = evaluation["baselines"]["chance"]["text_to_image"]["R@10"]
    return f"{about}; chance is R@10 {chance:.1f} (text→image).\n\n" + "\n".join(rows)


def _shown(data: str) -> str:
    return public_source(str(data)).removeprefix("local-dir:")


_LIMITS = (
    "Retrieval and ranking of pictures by text within the kind of data it was trained on. "
    "It was not tested for fairness, safety or use on people; scores outside its data are unknown."
)


def _trained_on(data: Mapping[str, str] | None) -> str:
    if not data:
        return ""
    return "\n\nTrained on: " + "; ".join(f"`{_shown(name)}` ({licence})" for name, licence in data.items()) + "."


def _one_line(text: str) -> str:
    """A title as Markdown shows it: one line, no markup of its own."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
