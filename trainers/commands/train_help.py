"""`modalign train [RECIPE] --help`: every key with type, default and meaning; with a recipe also what it sets, and its model's keys."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from modalign.zoo.configure import constructor_types
from modalign.zoo.registry import FAMILIES

from ..recipe import DataConfig, EvaluateConfig, Recipe, StageConfig, TrainerConfig, load_recipe, shipped_recipes

_USAGE = """\
usage: modalign train RECIPE [--stage S] [--run_dir DIR] [--init_from MODEL] [--print_config] [--strict] [--a.b value ...]

Trains all stages of a recipe; the same command continues a run that was stopped."""
_SWITCHES = {
    "--stage S": "run this stage only; the stages it builds on must be finished",
    "--print_config": "print the recipe as it would run, and stop",
    "--strict": "stop where the newest checkpoint is damaged, instead of going on from the one before",
    "--allow_module M": "import module M first (it may register parts); code runs from it",
}
_WIDTH = 118


def print_help(name: str | None) -> None:
    """Prints the help.

    Args:
        name: The recipe that was named, if any.
    """
    recipe = None if name is None else load_recipe(name, {"init_from": "MODEL"})
    print(_USAGE)
    print(textwrap.fill(f"RECIPE is a YAML file or a shipped recipe: {', '.join(shipped_recipes())}", _WIDTH))
    print("A setting that is yes or no needs no value: --trainer.deterministic. Losses and parts: modalign zoo show NAME.\n")
    for option, what in _SWITCHES.items():
        print(f"  {option}\n      {what}")
    if recipe is not None and recipe.init_from == "MODEL":
        recipe.init_from = None
    for title, cls, prefix, values in _sections(recipe):
        print(f"\n{title}")
        for line in _lines(cls, prefix, values):
            print(line)


def _sections(recipe: Recipe | None) -> Iterator[tuple[str, type, str, Any]]:
    """(title, class of settings, prefix of its keys, the recipe's own values)."""
    yield "recipe", Recipe, "", recipe
    if recipe is not None and recipe.model is not None and "family" in recipe.model:
        family = recipe.model["family"]
        yield f"model, of family {family}", FAMILIES.get(family).Config, "model.", recipe.model
    yield "data", DataConfig, "data.", None if recipe is None else recipe.data
    if recipe is None:
        yield "each stage", StageConfig, "stages.NAME.", None
    for name, stage in () if recipe is None else recipe.stages.items():
        yield f"stage {name}", StageConfig, f"stages.{name}.", stage
    yield "trainer", TrainerConfig, "trainer.", None if recipe is None else recipe.trainer
    yield "evaluate", EvaluateConfig, "evaluate.", None if recipe is None else recipe.evaluate


def _lines(cls: Any, prefix: str, values: Any) -> Iterator[str]:
    described, defaults = _descriptions(cls), _defaults(cls)
    for name, hint in constructor_types(cls).items():
        if cls is Recipe and name in ("data", "stages", "trainer", "evaluate"):
            continue  # sections of their own
        value, default = _value(values, name), defaults.get(name)
        if (inner := _dataclass_in(hint)) is not None:
            if described.get(name):
                yield from _entry(f"--{prefix}{name}", "settings", "", described[name])
            yield from _lines(inner, f"{prefix}{name}.", value)
            continue
        about = "required" if default is dataclasses.MISSING else f"default {_plain(default)}"
        here = "" if value is dataclasses.MISSING or value == default else f", here {_plain(value)}"
        yield from _entry(f"--{prefix}{name}", type_name(hint), f"{about}{here}", described.get(name, ""))


def _entry(option: str, kind: str, about: str, what: str) -> Iterator[str]:
    yield f"  {option}  {kind}" + (f"  ({about})" if about else "")
    if what:
        yield textwrap.fill(what, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _value(values: Any, name: str) -> Any:
    if isinstance(values, Mapping):
        return values.get(name, dataclasses.MISSING)
    return getattr(values, name, dataclasses.MISSING)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value == "":
        return '""'
    text = re.sub(r"'([\w./-]+)'", r"\1", str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _defaults(cls: type) -> dict[str, Any]:
    """Field -> default; MISSING for those that must be given."""
    found = {}
    for field in dataclasses.fields(cls):
        factory = field.default_factory
        found[field.name] = field.default if factory is dataclasses.MISSING else factory()
    return found


def _descriptions(cls: type) -> dict[str, str]:
    """Field -> what its class, or one it inherits it from, says of it."""
    from docstring_parser import parse

    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= {p.arg_name: " ".join((p.description or "").split()) for p in parse(base.__doc__ or "").params}
    return found


def _dataclass_in(hint: Any) -> type | None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
    return next((option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def type_name(hint: Any) -> str:
    """A type in the words of YAML: `float or null`, `list of str`, `mapping of str to float`, `first | random`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin is typing.Union or isinstance(hint, types.UnionType):
        return " or ".join(type_name(option) for option in inner)
    if origin in (list, tuple):
        return f"list of {type_name(inner[0])}"
    if origin is dict:
        return f"mapping of {type_name(inner[0])} to {type_name(inner[1])}"
    if hint is type(None):
        return "null"
    return {Any: "any", bool: "true | false"}.get(hint, getattr(hint, "__name__", str(hint)))
