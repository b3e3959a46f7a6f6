"""What a report shows of a stack: pictures of the test set with what was asked, answered and right."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw

from modalign.zoo.metrics.box_text import parse_box

from ..evaluation.stages import results_of
from .subject import DialogueSubject

_SIDE = 300


def answered_pictures(subject: DialogueSubject, evaluations: Mapping[str, Any]) -> str:
    """HTML with some questions of the last stage's evaluation.

    Args:
        subject: The model and its test data.
        evaluations: Stage -> the content of its eval.json.
    """
    if not evaluations:
        return ""
    last = results_of(evaluations[list(evaluations)[-1]])
    wanted = {example["key"] for report in last.values() for example in report.get("examples", ())}
    images = {sample.key: sample.images[0] for sample in subject.samples() if sample.key in wanted and sample.images}
    parts = []
    for task, report in last.items():
        figures = [_figure(subject, images[e["key"]], e) for e in report.get("examples", ()) if e["key"] in images]
        parts.append(f"<h2>Answers: {html.escape(task)}</h2><div class=hits>{''.join(figures)}</div>")
    return "".join(parts)


def _figure(subject: DialogueSubject, image: Image.Image, example: Mapping[str, Any]) -> str:
    drawn = image.convert("RGB")
    said = parse_box(example["answer"]) if example["box"] else None
    pen = ImageDraw.Draw(drawn)
    if example["box"]:
        pen.rectangle(tuple(example["box"]), outline=(43, 147, 72), width=4)
    if said is not None:
        x0, y0, x1, y1 = subject.model.box_frame.pixels(said, image.size)
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=(208, 40, 40), width=3)
    drawn.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=80)
    source = base64.b64encode(buffer.getvalue()).decode()
    right = "" if example["box"] else f"<br><span class=note>{html.escape(' / '.join(example['right']))}</span>"
    text = f"{html.escape(example['question'])}<br><b>{html.escape(example['answer']) or '(nothing)'}</b>{right}"
    return (
        f"<figure style='width:{_SIDE}px'><img style='width:{_SIDE - 8}px;height:auto' alt='' src='data:image/jpeg;base64,{source}'>"
        f"<figcaption>{text}</figcaption></figure>"
    )
