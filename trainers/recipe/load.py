"""Reading a recipe: file or shipped name, overrides, types, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from modalign.zoo.configure import fill
from modalign.zoo.errors import RecipeError, nearest

from .check import check_languages, check_recipe
from .settings import EvaluateConfig, Recipe


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads, overrides and checks a recipe.

    Args:
        source: A YAML file, the name of a shipped recipe (`proclip/openmoji`), or plain values.
        overrides: Dotted key -> value, such as `{"data.batch_size": 64}`.

    Raises:
        RecipeError: If the file is missing or not YAML, a key unknown, a value of the wrong type, or stages contradict themselves.
    """
    values, where = (dict(source), "recipe") if isinstance(source, Mapping) else _read(Path(source))
    for key, value in (overrides or {}).items():
        values = _set(values, key.split("."), value)
    check_languages(values, where)
    recipe = fill(Recipe, values, where)
    _fill_in(recipe, measured="evaluate" not in values)
    if recipe.run_dir is None:
        recipe.run_dir = _default_run_dir(Path(where))
        recipe.default_dir = recipe.run_dir  # type: ignore[misc]
    check_recipe(recipe, where)
    return recipe


def _fill_in(recipe: Recipe, *, measured: bool) -> None:
    """Sets what follows from the kind of data a recipe is about.

    Args:
        recipe: The recipe.
        measured: Measure the stages that have something to be measured on.
    """
    from ..data_kind import SERIES
    from ..kinds import kind_of_recipe, task_of_recipe

    kind, data = kind_of_recipe(recipe), recipe.data
    task, by_rows = task_of_recipe(recipe, kind), data.series is None or data.series.split != "none"
    if kind.name == SERIES and isinstance(data.train, str) and by_rows and task != "classification":  # whose series are not split
        data.val, data.test = data.val or data.train, data.test or data.train
    if measured and any(recipe.stage_data(name).test for name in recipe.stages):
        recipe.evaluate = EvaluateConfig()
    if recipe.evaluate is not None and recipe.evaluate.task is None:
        recipe.evaluate.task = task
    for stage in recipe.stages.values():
        if stage.validate is not None and stage.validate.metric is None:
            stage.validate.metric = "accuracy" if task == "classification" else kind.metric


def _default_run_dir(file: Path) -> str:
    """Recipes of several families have the same name, and a run folder holds one run."""
    family = file.resolve().parent
    return f"runs/{family.name}-{file.stem}" if family.parent.name == "configs" else f"runs/{file.stem}"


def _read(path: Path) -> tuple[dict[str, Any], str]:
    path = find_recipe(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, nested too deep
        raise RecipeError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with model, data and stages")
    return values, str(path)


def find_recipe(path: Path) -> Path:
    """The recipe file that a path or a shipped name stands for (`configs/clip/demo.yaml`, `clip/demo`).

    Raises:
        RecipeError: If there is no such file; the message suggests the nearest shipped one.
    """
    if path.is_file():
        return path
    shipped = shipped_recipes()
    name = str(path.with_suffix("")).removeprefix("configs/")
    if name in shipped:
        return shipped[name]
    raise RecipeError(f"there is no recipe {str(path)!r}{nearest(name, shipped)}")


def shipped_recipes() -> dict[str, Path]:
    """FAMILY/NAME -> file of every recipe that comes with the package."""
    from importlib.resources import files

    root = Path(str(files("modalign.configs").joinpath("")))
    return {str(file.relative_to(root).with_suffix("")): file for file in sorted(root.glob("*/*.yaml"))}


def parse_override(text: str) -> Any:
    """The value of a `--a.b value` override, read as YAML; `1e-3` is a number too."""
    try:
        return float(text) if _is_float(text) and not text.lstrip("+-").isdigit() else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower().lstrip("+-") not in ("nan", "inf", "infinity")


def _set(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of `values` with the value at a path replaced, whatever was there."""
    inner = values.get(path[0])
    if len(path) == 1:
        return {**values, path[0]: value}
    return {**values, path[0]: _set(inner if isinstance(inner, Mapping) else {}, path[1:], value)}
