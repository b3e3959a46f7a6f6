"""The command line: `modalign train | eval | embed | search | assets … | data … | zoo …`.

Every command is a typed function; its signature and docstring are its options and its help. Only the module of the command that is
asked for is imported.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from modalign.zoo.errors import ModalignError, RecipeError, nearest

from .allow import allow_modules
from .switches import is_yes_or_no, with_values, words_first

#: command -> (module, function, positional arguments, one line)
COMMANDS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "train": ("modalign.trainers.commands.train", "main", (), "train a recipe, or go on with it"),
    "eval": ("modalign.trainers.evaluation.command", "evaluate", ("model",), "measure a model on shards"),
    "forecast": (
        "modalign.trainers.commands.forecast",
        "forecast",
        ("model", "history"),
        "what follows a series, in its own units",
    ),
    "chat": ("modalign.trainers.commands.chat", "chat", ("model", "question"), "ask a model about pictures, or talk to it"),
    "ground": ("modalign.trainers.commands.ground", "ground", ("model", "image", "phrase"), "where a model sees something"),
    "serve": ("modalign.trainers.commands.serve", "serve", ("model",), "a page to talk to a model, on this machine"),
    "merge": ("modalign.trainers.commands.merge", "merge", ("model",), "fold adapters into a whole release"),
    "convert": ("modalign.trainers.commands.convert", "convert", ("folder",), "a release of what the original LLaVA code wrote"),
    "embed": ("modalign.trainers.commands.embed", "embed", ("model",), "write the vectors of shards to a file"),
    "search": ("modalign.trainers.commands.search", "search", ("model", "query"), "find the pictures that fit a text"),
    "export": ("modalign.trainers.commands.export", "export", ("model",), "write a model in another library's layout"),
    "push": ("modalign.trainers.commands.push", "push", ("model",), "upload a release to the Hugging Face hub"),
    "zoo list": ("modalign.trainers.commands.zoo", "list_zoo", (), "families, parts, losses and recipes there are"),
    "zoo show": ("modalign.trainers.commands.zoo", "show", ("name",), "what is known of a family, part, recipe or release"),
    "assets list": ("modalign.datasets.assets.commands", "list_assets", (), "weights and data that can be had by name"),
    "assets get": ("modalign.datasets.assets.commands", "get", ("name",), "fetch and convert an asset"),
    "assets where": ("modalign.datasets.assets.commands", "where", ("name",), "where an asset is"),
    "data pack": ("modalign.datasets.packing.pack", "pack", ("source",), "make shards of a table or a folder"),
    "data series": ("modalign.datasets.series.pack", "pack_series", ("table",), "make shards of a table of time series"),
    "data index": ("modalign.datasets.commands.index", "index", ("shards",), "make others' plain tars readable as they are"),
    "data inspect": ("modalign.trainers.commands.inspect", "inspect_batch", ("batch",), "what a training step sees"),
    "data check": ("modalign.datasets.commands.check", "check", ("shards",), "verify shards, sample by sample"),
    "data show": (
        "modalign.trainers.commands.show",
        "show",
        ("shards",),
        "a contact sheet of shards; what a model learns of them",
    ),
    "data split": ("modalign.datasets.packing.split", "split", ("shards",), "split shards by group"),
    "data levels": ("modalign.trainers.commands.levels", "levels", ("shards",), "how well pictures and captions fit, in levels"),
    "data bench": ("modalign.datasets.commands.bench", "bench", ("shards",), "samples per second, step by step"),
    "launch slurm": (
        "modalign.trainers.commands.launch",
        "slurm",
        ("recipe",),
        "write the batch file of a run on a SLURM cluster",
    ),
    "doctor": ("modalign.trainers.commands.doctor", "doctor", (), "is this machine fit to train on?"),
    "completion": (
        "modalign.trainers.commands.completion",
        "completion",
        ("shell",),
        "the script that completes commands in a shell",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; errors that are the input's fault become one sentence and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # in a locale that lacks a letter, its code is printed
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        return _dispatch(arguments)
    except ModalignError as error:
        from .parallel.saying import first_to_say

        if first_to_say(error):  # of the ranks that have it
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except BaseException as stop:
        number = getattr(stop, "number", None)  # StoppedBySignal; its module costs seconds to import
        if type(stop).__name__ != "StoppedBySignal" or number is None:
            raise
        print(stop, file=sys.stderr)
        return 128 + int(number)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _usage()
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("modalign"))
        return 0
    if arguments[0] == "--complete":
        from .commands.completion import candidates

        print("\n".join(candidates(arguments[1:])))
        return 0
    words = 2 if any(command.startswith(f"{arguments[0]} ") for command in COMMANDS) else 1
    name = " ".join(arguments[:words])
    if words == 2 and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        _usage(arguments[0])
        return 0
    if name not in COMMANDS:
        raise RecipeError(f"there is no command {name!r}{nearest(name, COMMANDS)} (modalign --help lists them)")
    rest = allow_modules(arguments[words:])
    module, function, positional, _ = COMMANDS[name]
    call = getattr(import_module(module), function)
    if name in ("eval", "forecast", "embed", "search", "chat", "ground", "serve"):
        from .console import quiet_libraries

        quiet_libraries()
    if name == "train":
        return int(call(rest))
    call(**_parse(call, positional, f"modalign {name}", rest))
    return 0


def _usage(group: str = "") -> None:
    print("usage: modalign COMMAND ...   (modalign COMMAND --help says more)\n")
    for name, (_, _, positional, what) in COMMANDS.items():
        if name.startswith(group):
            print(f"  {name:<14} {what}" + (f"  [{' '.join(p.upper() for p in positional)}]" if positional else ""))
    print("\nWith every command: --allow_module M imports module M first, which may register parts; its code runs.")


def _parse(call: Any, positional: tuple[str, ...], program: str, arguments: list[str]) -> dict[str, Any]:
    """Arguments of a function from the command line, typed by its signature."""
    from docstring_parser import parse

    from .typed import OneSentence, with_lists

    documentation = parse(inspect.getdoc(call) or "")
    described = {parameter.arg_name: parameter.description for parameter in documentation.params}
    hints = inspect.get_annotations(call, eval_str=True)
    parser = OneSentence(prog=program, description=documentation.short_description)
    parser.hints, parser.positional = hints, positional
    for name in positional:
        default = inspect.signature(call).parameters[name].default
        optional = {} if default is inspect.Parameter.empty else {"nargs": "?", "default": default}
        parser.add_argument(name, type=hints[name], help=described.get(name, ""), **optional)
    parser.add_function_arguments(call, skip=set(positional))
    arguments = with_values(arguments, lambda name: is_yes_or_no(hints.get(name)))
    values = vars(parser.parse_args(words_first(with_lists(arguments, hints))))
    return {name: values[name] for name in inspect.signature(call).parameters}


if __name__ == "__main__":
    raise SystemExit(main())
