"""Typed options on the command line: lists as plain words, and a value of the wrong type as one sentence."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from modalign.zoo.errors import RecipeError

_WRONG_TYPE = re.compile(r'Parser key "(?P<key>[^"]+)":.*(?:Got|Given) value: (?P<value>.*)', re.DOTALL)
_NUMBERS = "numbers"  # a list of them
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "words with commas between them, such as a,b",
    _NUMBERS: "numbers with commas between them, such as 24,168",
    dict: "a map, such as {a: 1, b: 2}",
}


class OneSentence(ArgumentParser):
    """A parser that says in one sentence what a value of the wrong type can be; other mistakes keep their usage line.

    Attributes:
        hints: Option -> type, of the function whose arguments are parsed.
        positional: The arguments without dashes.
    """

    hints: Mapping[str, Any] = {}
    positional: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises a `RecipeError` for a value of the wrong type, else prints usage and message and exits."""
        found = _WRONG_TYPE.match(message)
        if found is None or found["key"] not in self.hints:
            super().error(message, ex)
        key, value = found["key"], found["value"].strip()
        option = key.upper() if key in self.positional else f"--{key}"
        raise RecipeError(f"{option} is {value!r}; it can be {in_words(self.hints[key])}")


def with_lists(arguments: Sequence[str], hints: Mapping[str, Any]) -> list[str]:
    """Writes `--languages en,de` as `--languages=["en", "de"]` and `--seasons 24,168` as `--seasons=[24,168]`.

    Args:
        arguments: Words of a command line.
        hints: Option -> type.

    Returns:
        The words. What is in brackets already, `null`, and what has an empty word between commas stay as they are.
    """
    words: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not (name.startswith("--") and _is_list(hints.get(name[2:]))) or not (equals or rest):
            words.append(word)
            continue
        value = value if equals else rest.pop(0)
        words += (
            [f"{name}={_as_list(value, texts=list[str] in _options(hints[name[2:]]))}"]
            if equals or not value.startswith("--")
            else [word, value]
        )
    return words


def _as_list(value: str, *, texts: bool) -> str:
    parts = [part.strip() for part in value.split(",")]
    plain = value != "null" and not value.lstrip().startswith(("[", "{", '"', "'")) and all(parts)
    if not plain:
        return value
    return json.dumps(parts, ensure_ascii=False) if texts else f"[{value}]"


def _options(hint: Any) -> list[Any]:
    """The types of a union, without None."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [one for one in (typing.get_args(hint) if union else (hint,)) if one is not type(None)]


def _is_list(hint: Any) -> bool:
    return any(one in (list[str], list[int], list[float]) for one in _options(hint))


def in_words(hint: Any) -> str:
    """A type for people: `a whole number`, `bash, zsh or fish`."""
    found: list[str] = []
    for one in _options(hint):
        if typing.get_origin(one) is typing.Literal:
            found += [str(value) for value in typing.get_args(one)]
        else:
            kind = _NUMBERS if one in (list[int], list[float]) else typing.get_origin(one) or one
            found.append(_NAMES.get(kind, getattr(kind, "__name__", str(kind))))
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
