"""`modalign zoo list | show`."""

from __future__ import annotations

import inspect
from pathlib import Path

from modalign.zoo.errors import ModalignError, RecipeError, nearest
from modalign.zoo.registry import ENCODERS, FAMILIES, LOSSES, METRICS, PROJECTORS, Registry

from ..console import console, print_table
from ..recipe import shipped_recipes

_REGISTRIES: dict[str, Registry] = {
    "family": FAMILIES,
    "encoder": ENCODERS,
    "projector": PROJECTORS,
    "loss": LOSSES,
    "metric": METRICS,
}


def list_zoo() -> None:
    """Lists families, encoders, projectors, losses, metrics and shipped recipes."""
    rows = [(f"{kind}:{name}", _line(registry.get(name))) for kind, registry in _REGISTRIES.items() for name in registry.names()]
    rows += [(f"recipe:{name}", _title(path)) for name, path in shipped_recipes().items()]
    for name, line in rows:
        console.print(f"{name:<34} {line}")


def _line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _title(path: Path) -> str:
    import yaml

    return str((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("title", ""))


def show(name: str) -> None:
    """Shows a family's model card, a part's documentation, a recipe, or a release.

    Args:
        name: `clip`, `loss:clip`, `recipe:proclip/openmoji`, or a run or release folder.
    """
    kind, _, rest = name.partition(":")
    if kind == "recipe" and rest in shipped_recipes():
        console.print(shipped_recipes()[rest].read_text(encoding="utf-8"))
    elif kind in _REGISTRIES and rest:
        _show_class(kind, rest)
    elif name in FAMILIES.names():
        _show_class("family", name)
    elif name in shipped_recipes():
        console.print(shipped_recipes()[name].read_text(encoding="utf-8"))
    else:
        _show_release(name)


def _show_class(kind: str, name: str) -> None:
    cls = _REGISTRIES[kind].get(name)
    card = Path(inspect.getfile(cls)).with_name("README.md")
    if kind == "family" and card.exists():
        console.print(card.read_text(encoding="utf-8"))
        return
    console.print(f"{cls.__module__}.{cls.__name__}{inspect.signature(cls)}\n\n{inspect.getdoc(cls)}")


def _show_release(name: str) -> None:
    from modalign.zoo.checkpoints.release import find_release, locate, read_release

    try:
        folder = find_release(name)
    except ModalignError:
        known = [*FAMILIES.names(), *shipped_recipes(), *(f"{k}:{n}" for k, r in _REGISTRIES.items() for n in r.names())]
        raise RecipeError(f"{name!r} is no family, part, recipe or release{nearest(name, known)}") from None
    config, release = read_release(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    if locate(name).folder is None:
        console.print(f"{name}: a checkpoint of open_clip, family {config['family']}")
    else:
        kind = {"adapter": "an adapter", "full": "a full release"}[release["kind"]]
        console.print(f"{folder}: {kind} of family {config['family']}, {size:.1f} MB")
    rows = [
        (part, about["source"], about["sha256"][:12], "included" if about["included"] else "taken from its source")
        for part, about in release["parts"].items()
    ]
    print_table("pretrained parts", ("part", "source", "sha256", "weights"), rows)
    console.print((folder / "README.md").read_text(encoding="utf-8"))
