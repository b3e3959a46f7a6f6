"""`modalign train RECIPE [--stage S] [--a.b value] [--run_dir DIR] [--init_from PATH] [--print_config] [--strict] [--allow_module M]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from modalign.zoo.errors import RecipeError

from ..recipe import DataConfig, Recipe, StageConfig, TrainerConfig, load_recipe, parse_override, shipped_recipes


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        _help()
        return 0
    recipe_name, options = _split(list(arguments))
    stage = options.pop("stage", None)
    print_config, strict = (bool(options.pop(name, False)) for name in _SWITCHES)
    for module in str(options.pop("allow_module", "") or "").split(","):
        if module:
            _allow(module)
    recipe = load_recipe(recipe_name, options)
    if print_config:
        print(recipe.to_yaml(), end="")
        return 0
    from ..run import train

    train(recipe, stage, strict=strict)
    return 0


_SWITCHES = ("print_config", "strict")


def _allow(module: str) -> None:
    """Imports a module the user allowed, from the current folder too."""
    import sys

    sys.path.insert(0, "")
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise RecipeError(f"--allow_module {module}: {error}; it must lie in the current folder or be installed") from None


def _split(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """RECIPE and options; an option is `--key value`, `--key=value`, or a bare switch."""
    names: list[str] = []
    options: dict[str, Any] = {}
    while arguments:
        word = arguments.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if not equals and key in _SWITCHES:
            options[key] = True
            continue
        if not equals:
            if not arguments:
                raise RecipeError(f"--{key} needs a value")
            value = arguments.pop(0)
        options[key] = value if key in ("stage", "run_dir", "init_from", "allow_module") else parse_override(value)
    if len(names) != 1:
        raise RecipeError(f"give one recipe (got {', '.join(names) or 'none'}); shipped: {', '.join(shipped_recipes())}")
    return names[0], options


def _help() -> None:
    print(
        "usage: modalign train RECIPE [--stage S] [--run_dir DIR] [--init_from MODEL] [--print_config] [--strict] [--a.b value ...]\n"
    )
    print("Trains all stages of a recipe; the same command continues a run that was stopped.")
    print(f"RECIPE is a YAML file or a shipped recipe: {', '.join(shipped_recipes())}\n")
    for title, cls, prefix in (
        ("recipe", Recipe, ""),
        ("data", DataConfig, "data."),
        ("each stage", StageConfig, "stages.NAME."),
        ("trainer", TrainerConfig, "trainer."),
    ):
        described = _attributes(cls)
        print(f"{title}:")
        for field in dataclasses.fields(cls):
            print(f"  --{prefix + field.name:<28} {described.get(field.name, '')}")
    print("  --strict                       stop where the newest checkpoint is damaged, instead of going on from the one before")
    print("  --allow_module M               import module M first (it may register parts); code runs from it")


def _attributes(cls: type) -> dict[str, str]:
    from docstring_parser import parse

    return {item.arg_name: " ".join((item.description or "").split()) for item in parse(cls.__doc__ or "").params}
