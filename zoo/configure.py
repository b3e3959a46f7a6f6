"""Plain mappings -> typed objects: the types and docstrings of a constructor are the schema of its settings.

jsonargparse checks the types. Unknown keys are looked for first, so that the message can name the nearest valid one.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import RecipeError, nearest

T = TypeVar("T")


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
    settings = dict(settings)
    check_keys(cls, settings, where, skip | set(fixed))
    return cls(**_typed(cls, settings, where, skip | set(fixed)), **fixed)


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


def _check_nested(hint: Any, value: Any, where: str) -> None:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        check_keys(hint, value, where)  # anything but a mapping is refused here: jsonargparse takes a number, or opens a file
    elif isinstance(value, Mapping):
        if (inner := _dataclass_in(hint)) is not None:
            check_keys(inner, value, where)
        elif (item := _dict_of_dataclass(hint)) is not None:
            for key, entry in value.items():
                if entry is not None:
                    check_keys(item, entry, f"{where}.{key}")


def constructor_types(cls: type) -> dict[str, Any]:
    """Argument name -> type of the constructor, in order."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    constructor: Any = inspect.getattr_static(cls, "__init__")
    hints = typing.get_type_hints(constructor)
    names = [name for name in inspect.signature(constructor).parameters if name not in ("self", "args", "kwargs")]
    return {name: hints.get(name, Any) for name in names}


def _dataclass_in(hint: Any) -> type | None:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return next((option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def _dict_of_dataclass(hint: Any) -> type | None:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if typing.get_origin(option) is dict and len(typing.get_args(option)) == 2:
            return _dataclass_in(typing.get_args(option)[1])
    return None


def _typed(cls: type, settings: dict[str, Any], where: str, skip: set[str] | frozenset[str]) -> dict[str, Any]:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, skip=set(skip) & set(constructor_types(cls)), fail_untyped=False)
    try:
        parsed = parser.parse_object(copy.deepcopy(settings))  # it turns nested mappings into its own type, in place
        return dict(vars(parser.instantiate_classes(parsed)))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise RecipeError(f"{where}: {_one_line(str(error))}") from None


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:600]
