"""`modalign train RECIPE [--stage S] [--a.b value] [--run_dir DIR] [--init_from PATH] [--print_config] [--strict] [--allow_module M]`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modalign.zoo.errors import RecipeError

from ..recipe import Recipe, find_recipe, load_recipe, parse_override, shipped_recipes
from ..switches import is_switch_of, with_values


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        from .train_help import print_help

        print_help(_named(arguments))
        return 0
    recipe_name, options = _split(list(arguments))
    stage = options.pop("stage", None)
    print_config, strict = (bool(options.pop(name, False)) for name in _SWITCHES)
    recipe = load_recipe(recipe_name, options)
    if print_config:
        print(recipe.to_yaml(), end="")
        return 0
    from ..run import train

    train(recipe, stage, strict=strict)
    return 0


def _named(arguments: Sequence[str]) -> str | None:
    """The recipe among words that may also be values of options; None if there is none."""
    for word in arguments:
        if not word.startswith("-"):
            with contextlib.suppress(RecipeError):
                find_recipe(Path(word))
                return word
    return None


_SWITCHES = ("print_config", "strict")


def _split(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """RECIPE and options; an option is `--key value`, `--key=value`, or a bare switch."""
    names: list[str] = []
    options: dict[str, Any] = {}
    arguments = with_values(arguments, lambda key: key in _SWITCHES or is_switch_of(Recipe, key))
    while arguments:
        word = arguments.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not arguments:
                raise RecipeError(f"--{key} needs a value")
            value = arguments.pop(0)
        options[key] = value if key in ("stage", "run_dir", "init_from") else parse_override(value)
    if len(names) != 1:
        raise RecipeError(f"give one recipe (got {', '.join(names) or 'none'}); shipped: {', '.join(shipped_recipes())}")
    return names[0], options
