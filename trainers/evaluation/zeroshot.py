"""Task `zeroshot`: which of all classes is a picture of, given only the classes' names?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.zoo.errors import DataError
from modalign.zoo.metrics.templates import Templates, load_templates
from modalign.zoo.metrics.zero_shot import chance_accuracy, class_vectors, zero_shot_accuracy

from .classes import read_classes
from .task import EvaluationTask, Subject, Table, mean_of

CLASSES_AT_ONCE = 128


@dataclass
class ZeroShotTask(EvaluationTask):
    """Zero-shot classification with prompt ensembles.

    Attributes:
        languages: Languages of the class names, each measured by itself; default all there are.
        label: Field of KEY.json that holds a picture's class.
        classes: Where classes get their names: default the labels themselves; `captions`, the first caption of each class's first
            picture; or a JSON or YAML file {label: name} or {label: {language: name}}.
        templates: `imagenet` (80 sentences), `simple` (7), `name` (the name alone), or a file: a sentence with {} per line, or JSON or
            YAML with a list, or a list per language.
    """

    label: str = "label"
    classes: str | None = None
    templates: str = "imagenet"
    name: ClassVar[str] = "zeroshot"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """See `EvaluationTask`."""
        templates = load_templates(self.templates)
        classes = read_classes(subject.shards, self.label, self.classes, self.languages)
        image, label = subject.pictures().image, torch.tensor(classes.of_picture)
        by_language = {}
        steps = classes.names.items()
        for lang, names in steps if subject.progress is None else subject.progress(steps, len(steps), "languages of class names"):
            rows = [row for row, name in enumerate(classes.labels) if name in names]
            by_language[lang] = _of_language(
                subject, image, label, rows, [names[classes.labels[r]] for r in rows], templates, lang
            )
        counts = [len(templates.of(lang)) for lang in by_language]
        return subject.report(
            self.name,
            {"images": len(image), "classes": len(classes.labels), "templates": max(counts)},
            metrics=mean_of(list(by_language.values())),
            baselines={"chance": chance_accuracy(len(classes.labels))},
            by_language=by_language,
        )

    @classmethod
    def tables(cls, report: Mapping[str, Any]) -> list[Table]:
        """See `EvaluationTask`."""
        names = ("top1", "top5", "mean_per_class")
        rows: list[tuple[object, ...]] = [
            (lang, *[table[name] for name in names], table["n"]["images"], table["n"]["classes"])
            for lang, table in report["by_language"].items()
        ]
        if len(rows) > 1:
            rows.append(("mean", *[report["metrics"][name] for name in names], "", ""))
        rows.append(("chance", *[report["baselines"]["chance"][name] for name in names], "", ""))
        n = report["n"]
        counts = f"{n['images']} pictures, {n['classes']} classes, {n['templates']} templates"
        title = f"zero-shot accuracy in percent: {counts}, {report['data']}"
        return [Table(title, ("language", "top 1", "top 5", "mean per class", "pictures", "classes"), rows)]


def _of_language(
    subject: Subject, image: Tensor, label: Tensor, rows: list[int], names: list[str], templates: Templates, lang: str
) -> dict[str, Any]:
    """Accuracy among the classes that have a name in this language, on their pictures."""
    position = torch.full((int(max(int(label.max()), max(rows))) + 1,), -1)
    position[torch.tensor(rows)] = torch.arange(len(rows))
    chosen = position[label] >= 0
    if not bool(chosen.any()):
        raise DataError(f"no picture is of a class with a name in {lang!r}; leave the language out")
    vectors = []
    for start in range(0, len(names), CLASSES_AT_ONCE):
        part = names[start : start + CLASSES_AT_ONCE]
        prompts = [prompt for name in part for prompt in templates.prompts(name, lang)]
        vectors.append(class_vectors(subject.texts.vectors(prompts, keep=False).unflatten(0, (len(part), -1))))
    found = zero_shot_accuracy(image[chosen], torch.cat(vectors), position[label][chosen], over_ranks=subject.over_ranks)
    return {**found, "n": {"images": int(chosen.sum()), "classes": len(rows)}}
