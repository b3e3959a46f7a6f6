"""Yes-or-no settings on the command line: a bare `--dry_run` is `--dry_run true`."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

_ANSWERS = ("true", "false", "yes", "no", "on", "off", "null", "none")


def with_values(arguments: Sequence[str], is_switch: Callable[[str], bool]) -> list[str]:
    """Writes out the value of every bare switch.

    Args:
        arguments: Words of a command line.
        is_switch: Whether an option (without its dashes) is a yes-or-no setting.

    Returns:
        The words; a switch without a value has become `--name=true`, so that no word behind it is taken for one.
    """
    words = []
    for place, word in enumerate(arguments):
        behind = arguments[place + 1].lower() if place + 1 < len(arguments) else ""
        bare = word.startswith("--") and "=" not in word and behind not in _ANSWERS and is_switch(word[2:])
        words.append(f"{word}=true" if bare else word)
    return words


def is_yes_or_no(hint: Any) -> bool:
    """Whether a type is bool, or bool or None."""
    return hint is bool or (bool in typing.get_args(hint) and set(typing.get_args(hint)) <= {bool, type(None)})


def is_switch_of(cls: type, key: str) -> bool:
    """Whether a dotted key (`trainer.progress`, `stages.NAME.cache.text`) of a dataclass of settings is a yes-or-no setting."""
    hint: Any = cls
    for name in key.split("."):
        hint = _inner(hint, name)
    return is_yes_or_no(hint)


def _inner(hint: Any, name: str) -> Any:
    """The type of a key within a type: a dataclass's field, or the values of a mapping; None where nothing is known."""
    if typing.get_origin(hint) is dict:
        return typing.get_args(hint)[1]
    for option in typing.get_args(hint) or (hint,):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return typing.get_type_hints(option).get(name)
    return None


def words_first(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with those that are no options in front, where argparse finds them even if they may be missing.

    Args:
        arguments: Words of which every option has its value behind it.
    """
    words: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            words.append(word)
            continue
        options.append(word)
        if "=" not in word and word != "--help" and rest and not rest[0].startswith("--"):
            options.append(rest.pop(0))
    return [*words, *options]
