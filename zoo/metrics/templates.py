"""Prompt templates of zero-shot classification: sentences with `{}` where the class's name goes.

The lists of OpenAI's CLIP come from open_clip, which ships them as data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import DataError, nearest

#: name -> what it is; `imagenet` and `simple` are open_clip's lists
NAMED = {
    "imagenet": "the 80 templates of OpenAI's ImageNet evaluation",
    "simple": "the 7 of them that were chosen for most of the gain",
    "name": "the class's name alone",
}
#: the key of templates for languages that have none of their own
OTHER = "other"


class Templates:
    """Templates by language.

    Args:
        by_language: Language -> templates; `other` stands for all that are not named.
    """

    def __init__(self, by_language: Mapping[str, Sequence[str]]) -> None:
        self.by_language = {lang: list(texts) for lang, texts in by_language.items()}

    def of(self, language: str) -> list[str]:
        """The templates of a language: its own, else those of `other`, else the name alone."""
        return self.by_language.get(language) or self.by_language.get(OTHER) or ["{}"]

    def prompts(self, name: str, language: str) -> list[str]:
        """Every template of a language with a class's name put in."""
        return [template.replace("{}", name) for template in self.of(language)]


def load_templates(source: str) -> Templates:
    """Templates by name or from a file.

    Args:
        source: `imagenet` (80), `simple` (7), `name` (the name alone); or a file: text with a template per line, or JSON or YAML with a
            list, or with a mapping of languages (and `other`) to lists. A list holds for every language.

    Raises:
        DataError: If there is no such name or file, or a template has not exactly one `{}`.
    """
    if source in NAMED:
        return Templates({OTHER: _named(source)})
    path = Path(source)
    if not path.is_file():
        raise DataError(f"templates: there is no list or file {source!r}{nearest(source, NAMED)}")
    content = _read(path)
    by_language = content if isinstance(content, dict) else {OTHER: content}
    for lang, templates in by_language.items():
        _check(path, lang, templates)
    return Templates(by_language)


def _named(name: str) -> list[str]:
    if name == "name":
        return ["{}"]
    import open_clip

    functions = open_clip.OPENAI_IMAGENET_TEMPLATES if name == "imagenet" else open_clip.SIMPLE_IMAGENET_TEMPLATES
    return [function("{}") for function in functions]


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix in (".yaml", ".yml"):
            return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the templates cannot be read ({str(error).splitlines()[0]})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check(path: Path, lang: str, templates: Any) -> None:
    if not isinstance(templates, list) or not templates:
        raise DataError(
            f"{path}: templates of {lang!r} are a list of sentences with {{}} for the class's name, got {templates!r}"
        )
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise DataError(f"{path}: template {template!r} of {lang!r} needs exactly one {{}}, where the class's name goes")
