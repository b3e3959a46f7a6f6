"""Plain mappings -> typed objects: the types and docstrings of a constructor are the schema of its settings.

Settings come from files that nobody vouches for (a recipe of the web, the config.json of somebody's release), so nothing in them may name
code. Structure is therefore built here: a dataclass is filled key by key, an untyped value stays the plain data it is, and only values of
plain types (numbers, words, choices, lists and tables of them) are handed to jsonargparse, which knows how to read `1e-3` as a float.
Given a dataclass or an untyped argument, jsonargparse itself would import what a string or a `class_path` names.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .errors import RecipeError, nearest

T = TypeVar("T")
_PLAIN = (bool, int, float, str, type(None))
_LONGEST = 300  # letters of a value in a message
_UNION = (typing.Union, types.UnionType)


def fill(cls: type[T], settings: Mapping[str, Any], where: str, skip: frozenset[str] = frozenset(), **fixed: Any) -> T:
    """Builds `cls(**settings)` after checking every key and type.

    Args:
        cls: A dataclass or class with a typed constructor.
        settings: Plain values (from YAML or JSON).
        where: Dotted place of the settings, used in messages.
        skip: Constructor arguments that settings may not set.
        fixed: Arguments passed as they are.

    Raises:
        RecipeError: On an unknown key (with the nearest valid one), a missing key or a value of the wrong type.
    """
    hidden = skip | set(fixed)
    check_keys(cls, settings, where, hidden)
    _check_complete(cls, settings, where, hidden)
    return cls(**_typed(constructor_types(cls), settings, where), **fixed)


def check_keys(cls: type, settings: Any, where: str, skip: frozenset[str] | set[str] = frozenset()) -> None:
    """Raises `RecipeError` at the first key, at any depth, that the constructor of `cls` does not take."""
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{where}: expected a mapping of settings, got {settings!r}")
    hints = constructor_types(cls)
    for key, value in settings.items():
        if key not in hints or key in skip:
            known = [name for name in hints if name not in skip]
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")
        _check_nested(hints[key], value, f"{where}.{key}")


def constructor_types(cls: type) -> dict[str, Any]:
    """Argument name -> type of the constructor, in order."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    constructor: Any = inspect.getattr_static(cls, "__init__")
    hints = typing.get_type_hints(constructor)
    names = [name for name in inspect.signature(constructor).parameters if name not in ("self", "args", "kwargs")]
    return {name: hints.get(name, Any) for name in names}


def _check_nested(hint: Any, value: Any, where: str) -> None:
    if (inner := _dataclass_in(hint)) is not None:
        if value is not None or hint is inner:
            check_keys(inner, value, where)
    elif (items := _items(hint, value)) is not None:
        for key, item_hint, item in items:
            _check_nested(item_hint, item, f"{where}.{key}")


def _check_complete(cls: type, settings: Mapping[str, Any], where: str, hidden: frozenset[str] | set[str]) -> None:
    parameters = inspect.signature(cls).parameters
    for name in constructor_types(cls):
        needed = name in parameters and parameters[name].default is inspect.Parameter.empty
        if needed and name not in settings and name not in hidden:
            raise RecipeError(f"{where}: the setting {name!r} is missing")


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in _UNION else (hint,)


def _dataclass_in(hint: Any) -> Any:
    return next((option for option in _options(hint) if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def _items(hint: Any, value: Any) -> list[tuple[Any, Any, Any]] | None:
    """(key, type, value) of the entries of a table or list whose type is not plain; None if there is none such."""
    for option in _options(hint):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if not arguments or is_plain(option):
            continue
        if isinstance(value, Mapping) and isinstance(origin, type) and issubclass(origin, Mapping):
            return [(key, arguments[-1], item) for key, item in value.items()]
        if isinstance(value, list | tuple) and origin in (list, Sequence):
            return [(number, arguments[0], item) for number, item in enumerate(value)]
    return None


def is_plain(hint: Any) -> bool:
    """Whether a type is made of numbers, words, choices, and lists and tables of them: nothing that could name code."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return True
    if origin in _UNION or origin in (list, tuple, dict, Sequence, Mapping):
        return all(argument is Ellipsis or is_plain(argument) for argument in typing.get_args(hint))
    return hint in _PLAIN


def _typed(hints: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {name: _value(hints[name], value, f"{where}.{name}") for name, value in settings.items()}


def _value(hint: Any, value: Any, where: str) -> Any:
    """The value as its type asks: read if the type is plain, filled if it is a dataclass, built entry by entry, or left as it is."""
    if is_plain(hint):
        return _read(hint, value, where)
    if value is None and type(None) in _options(hint):
        return None
    if (inner := _dataclass_in(hint)) is not None:
        return _filled(inner, value, where)
    if (items := _items(hint, value)) is not None:
        built = [(key, _value(item_hint, item, f"{where}.{key}")) for key, item_hint, item in items]
        return dict(built) if isinstance(value, Mapping) else [item for _, item in built]
    for option in _options(hint):
        if option is Any or (option in (dict, list) and isinstance(value, option)):
            return copy.deepcopy(value)
        if is_plain(option) and option is not type(None):
            return _read(option, value, where)
    raise RecipeError(f"{where}: expected {_said(hint)}, got {value!r}")


def _filled(cls: type, value: Any, where: str) -> Any:
    try:
        return fill(cls, value, where)
    except (TypeError, ValueError) as error:  # of the settings' own checks
        raise RecipeError(f"{where}: {_one_line(str(error))}") from None


def _read(hint: Any, value: Any, where: str) -> Any:
    from jsonargparse import ArgumentError

    try:
        return _reader(hint).parse_object({"value": _without_dates(value)}).value
    except (ArgumentError, TypeError, ValueError, KeyError, OverflowError, RecursionError):
        is_word = (
            isinstance(value, _PLAIN) and value is not None and any(typing.get_origin(one) is list for one in _options(hint))
        )
        written = f"; a list is written [{shown(value).strip(chr(39))}]" if is_word else ""
        raise RecipeError(f"{where}: expected {_said(hint)}, got {shown(value)}{written}") from None


def _without_dates(value: Any) -> Any:
    """A copy with dates as texts: YAML reads 2024-01-01 as a date, and no setting is one."""
    if isinstance(value, Mapping):
        return {key: _without_dates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_dates(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else copy.deepcopy(value)


@functools.cache
def _reader(hint: Any) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def _said(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def shown(value: Any) -> str:
    """A value in a message, its beginning if it is long: whole numbers of thousands of digits have no text at all."""
    if isinstance(value, int) and abs(value) >= 10**100:
        return "a whole number of more than 100 digits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:600]
