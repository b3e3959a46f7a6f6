"""Classes of a zero-shot evaluation: which picture is of which, and what each is called in every language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modalign.datasets.decoding.sample import Sample, decode_sample
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.captions import UNKNOWN_LANGUAGE
from modalign.zoo.errors import DataError, nearest

#: `classes: captions` takes names from the captions
CAPTIONS = "captions"


@dataclass
class Classes:
    """Classes and pictures.

    Attributes:
        labels: The classes (C).
        of_picture: (I) the class of each picture, as a row of `labels`.
        names: Language -> class -> name; a class may lack a name in some language.
    """

    labels: list[str]
    of_picture: list[int]
    names: dict[str, dict[str, str]]


def read_classes(shards: ShardSet, label: str, source: str | None, languages: Sequence[str] | None) -> Classes:
    """Reads labels and names.

    Args:
        shards: The set; no picture is read.
        label: Field of KEY.json that holds a picture's class: a text or number, or a name per language.
        source: None takes the labels themselves for names; `captions` the first caption of each class's first picture; a JSON or YAML
            file maps labels to a name or to a name per language, and its classes are all that can be answered.
        languages: Keep these; None keeps all.

    Raises:
        DataError: If a sample has no label, a label no name, or a language none at all.
    """
    names: dict[str, dict[str, str]] = {}
    order: dict[str, int] = {}
    of_picture: list[int] = []
    given = None if source in (None, CAPTIONS) else _read_names(Path(str(source)))
    if given is not None:
        names, order = given, {name: row for row, name in enumerate(dict.fromkeys(c for table in given.values() for c in table))}
    for raw in shards.samples([shards.caption_field]):
        sample = decode_sample(raw)
        found, own = _label_of(sample, label, f"{raw.shard}: sample {raw.key!r}")
        if given is not None and found not in order:
            raise DataError(f"{raw.shard}: sample {raw.key!r}: its class {found!r} is not in {source}{nearest(found, order)}")
        if found not in order:
            order[found] = len(order)
            own = {lang: texts[0] for lang, texts in sample.captions.items() if texts} if source == CAPTIONS else own
            for lang, name in own.items():
                names.setdefault(lang, {})[found] = name
        of_picture.append(order[found])
    return Classes(list(order), of_picture, _chosen(names, languages))


def _label_of(sample: Sample, field: str, where: str) -> tuple[str, dict[str, str]]:
    """A sample's class, and its names by language as far as the label itself says them."""
    value = sample.meta.get(field)
    if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value.values()):
        return next(iter(value.values())), {str(lang): name for lang, name in value.items()}
    if isinstance(value, str | int | float) and str(value).strip():
        return str(value), {UNKNOWN_LANGUAGE: str(value)}
    have = ", ".join(sample.meta) or "none"
    raise DataError(f"{where}: field {field!r}: no class, found {value!r} (its fields: {have}); say which with --label")


def _read_names(path: Path) -> dict[str, dict[str, str]]:
    """Language -> class -> name, from a file of class -> name, or class -> language -> name."""
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise DataError(f"{path}: the class names cannot be read ({error.strerror or error})") from None
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not valid JSON or YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: class names are a mapping of labels to a name, or to a name per language")
    names: dict[str, dict[str, str]] = {}
    for label, value in content.items():
        for lang, name in (value if isinstance(value, dict) else {UNKNOWN_LANGUAGE: value}).items():
            if not isinstance(name, str) or not name.strip() or not isinstance(lang, str):
                raise DataError(f"{path}: class {label!r}: its name {lang!r}: {name!r} is no text (quote no and numbers in YAML)")
            names.setdefault(lang, {})[str(label)] = name
    return names


def _chosen(names: Mapping[str, dict[str, str]], languages: Sequence[str] | None) -> dict[str, dict[str, str]]:
    for lang in languages or ():
        if lang not in names:
            raise DataError(f"no class has a name in language {lang!r} (there are: {', '.join(names) or 'none'})")
    return {lang: names[lang] for lang in (names if languages is None else languages)}
