"""`--allow_module M`: the one way to code that is not modalign's own, for every command, and only when the user says so."""

from __future__ import annotations

import sys
from importlib import import_module

from modalign.zoo.errors import RecipeError

OPTION = "--allow_module"


def allow_modules(arguments: list[str]) -> list[str]:
    """Imports what `--allow_module M[,M]` names, from the current folder too, and returns the other arguments.

    Raises:
        RecipeError: If there is no such module.
    """
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option != OPTION:
            rest.append(word)
            continue
        names = value if equals else next(words, "")
        if not names:
            raise RecipeError(f"{OPTION} needs the name of a module")
        for module in filter(None, names.split(",")):
            _import(module)
    return rest


def _import(module: str) -> None:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise RecipeError(f"{OPTION} {module}: {error}; it must lie in the current folder or be installed") from None
