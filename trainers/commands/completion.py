"""`modalign completion bash | zsh | fish`: a script for the shell, and the candidates it asks for.

Candidates come from the table of commands and from reading, not importing, the modules, so that a press of the tab key costs no time.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

_SCRIPTS = {
    "bash": """_modalign() {
    local IFS=$'\\n'
    COMPREPLY=($(modalign --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _modalign modalign
""",
    "zsh": """#compdef modalign
_modalign() {
    local -a found
    found=("${(@f)$(modalign --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
if [[ "${funcstack[1]}" == _modalign ]]; then _modalign; else compdef _modalign modalign; fi
""",
    "fish": """complete -c modalign -a '(modalign --complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
""",
}


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Prints the completion script of a shell.

    For bash: `modalign completion bash > ~/.local/share/bash-completion/completions/modalign`; for zsh put it as `_modalign` into a
    folder of `fpath`, or `source <(modalign completion zsh)` after `compinit`; for fish:
    `modalign completion fish > ~/.config/fish/completions/modalign.fish`.

    Args:
        shell: Which.
    """
    print(_SCRIPTS[shell], end="")


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of the words may become.

    Args:
        words: What follows `modalign`; the last is the one being typed, possibly empty.
    """
    from ..cli import COMMANDS

    *before, current = words or [""]
    name = next((" ".join(before[:n]) for n in (2, 1) if " ".join(before[:n]) in COMMANDS), None)
    if name is None:
        heads = [c.removeprefix(" ".join(before)).split() for c in COMMANDS if c.startswith(" ".join([*before, ""]).lstrip())]
        found = [head[0] for head in heads if head]
    elif current.startswith("--"):
        found = [f"--{option}" for option in _options(name)]
    elif name in ("train", "launch slurm") and not [w for w in before[len(name.split()) :] if not w.startswith("-")]:
        found = _recipes()
    else:
        found = []
    return sorted({word for word in found if word.startswith(current)})


def _options(name: str) -> list[str]:
    from ..cli import COMMANDS

    module, function, positional, _ = COMMANDS[name]
    if name == "train":
        return _recipe_options()
    tree = ast.parse(_source(module))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            arguments = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            return [argument for argument in arguments if argument not in positional]
    return []


def _source(module: str) -> str:
    """The text of a module, found without importing the packages around it."""
    _, top, *inner = module.split(".")
    spec = find_spec(f"modalign.{top}")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *inner).with_suffix(".py")
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


@dataclass
class _Section:
    """A class of the recipe's settings, and what its keys start with."""

    cls: str
    prefix: str


_SECTIONS = (_Section("DataConfig", "data."), _Section("TrainerConfig", "trainer."), _Section("EvaluateConfig", "evaluate."))


def _recipe_options() -> list[str]:
    """Keys of the recipe that have a fixed name; those of stages depend on the recipe."""
    tree = ast.parse(_source("modalign.trainers.recipe.settings"))
    fields = {
        node.name: [item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    known = [f"{section.prefix}{name}" for section in _SECTIONS for name in fields.get(section.cls, ())]
    return [*known, "seed", "stage", "run_dir", "init_from", "print_config", "strict", "allow_module"]


def _recipes() -> list[str]:
    """Shipped recipes by the path they have in a checkout."""
    spec = find_spec("modalign.configs")
    if spec is None or not spec.submodule_search_locations:
        return []
    root = Path(spec.submodule_search_locations[0])
    return [f"configs/{path.relative_to(root)}" for path in root.glob("*/*.yaml")]
