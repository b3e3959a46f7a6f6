"""The model card that a release carries: generated, so that it says what the files say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..names import public_source
from . import card_dialogue, card_pairs, card_series

#: what is particular to models of each kind of data
_PARTS = {"pairs": card_pairs, "series": card_series, "dialogue": card_dialogue}


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
    part: Any = _PARTS[getattr(model, "data_kind", "pairs")]
    pipeline, tags = part.TAGS
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
        f"A model of the family `{model.family}`, {count / 1e6:.1f} M parameters, {part.about(model)}",
        f"## Parts\n{parts}",
        f"## Use\n{part.use(model)}",
        f"## Evaluation\n{_evaluation(evaluation, part)}",
        f"## Intended use and limits\n{part.LIMITS}{_trained_on(data)}",
    ]
    return "\n\n".join(lines) + "\n"


def _evaluation(evaluation: Mapping[str, Any] | None, part: Any) -> str:
    if not evaluation:
        return "Not evaluated when this release was written."
    return str(part.evaluation({**evaluation, "data": _shown(evaluation["data"])}))


def _shown(data: str) -> str:
    return public_source(str(data)).removeprefix("local-dir:")


def _trained_on(data: Mapping[str, str] | None) -> str:
    if not data:
        return ""
    return "\n\nTrained on: " + "; ".join(f"`{_shown(name)}` ({licence})" for name, licence in data.items()) + "."


def _one_line(text: str) -> str:
    """A title as Markdown shows it: one line, no markup of its own."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
