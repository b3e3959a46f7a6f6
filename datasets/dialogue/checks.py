"""The checks of plain JSON values that all parts of the schema are made of. Nothing is converted: a value is right or an error."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from modalign.zoo.errors import DataError, nearest

from ..shards.captions import check_text
from .place import Place


def listed(at: Place, value: Any, what: str, *, empty: bool = False) -> list[Any]:
    """Returns a value that must be a list.

    Args:
        at: Where it stands.
        value: What stands there.
        what: What it should be a list of, for the message.
        empty: Whether it may be empty.

    Raises:
        SchemaError: If it is something else.
    """
    if not isinstance(value, list) or not (value or empty):
        found = "empty" if value == [] else type(value).__name__
        raise at.error(f"must be a {'' if empty else 'non-empty '}list of {what}, it is {found}")
    return value


def mapped(at: Place, value: Any, required: Collection[str], optional: Collection[str] = ()) -> Mapping[str, Any]:
    """Returns a value that must be an object with given names; a name that is not known is an error, as it may be a slip.

    Raises:
        SchemaError: Naming the name that lacks or is not known.
    """
    if not isinstance(value, dict):
        raise at.error(f"must be an object with {', '.join(map(repr, required))}, it is {type(value).__name__}")
    for name in required:
        if name not in value:
            raise at.error(f"{name!r} is missing; an entry needs {', '.join(map(repr, required))}")
    for name in value:
        if name not in required and name not in optional:
            raise at.error(f"{name!r} is not known here{nearest(str(name), [*required, *optional])}")
    return value


def text_of(at: Place, value: Any, name: str, *, blank: bool = False) -> str:
    """Returns a value that must be text, neither empty nor (unless ``blank``) only spaces, and Unicode.

    Raises:
        SchemaError: If it is not.
    """
    if not isinstance(value, str) or not value:
        found = "empty" if value == "" else type(value).__name__
        raise at.error(f"{name!r} must be a non-empty text, it is {found}")
    if not blank or value.strip():
        try:
            check_text(value, name)
        except DataError as error:
            raise at.error(str(error)) from None
    return value


def optional_text(at: Place, entry: Mapping[str, Any], name: str) -> str | None:
    """Returns a text that may be left out (or null).

    Raises:
        SchemaError: If it is there and no text.
    """
    value = entry.get(name)
    return None if value is None else text_of(at, value, name)


def number_of(at: Place, value: Any, name: str) -> float:
    """Returns a value that must be a finite number.

    Raises:
        SchemaError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise at.error(f"{name!r} must be a number, it is {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise at.error(f"{name!r} must be a finite number, it is {number}")
    return number


def index_of(at: Place, value: Any, name: str, count: int, what: str) -> int:
    """Returns a value that must number one of ``count`` things, from 0.

    Args:
        at: Where it stands.
        value: What stands there.
        name: Its name.
        count: How many things there are.
        what: What is numbered, for the message.

    Raises:
        SchemaError: If it is no whole number, or there is no such thing.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise at.error(f"{name!r} must be a whole number from 0 on, it is {value!r}")
    if value >= count:
        raise at.error(f"{name!r} is {value}, but the sample has {count} {what}(s), numbered from 0")
    return value
