"""A whole run: all stages of a recipe in order, what they are worth, the release, the report; continued wherever it stopped."""

from __future__ import annotations

import fcntl
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from modalign import zoo
from modalign.zoo.checkpoints.card import model_card
from modalign.zoo.checkpoints.durable import write_text
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import RecipeError, nearest

from .console import console, quiet_libraries
from .evaluation.results import report_results
from .evaluation.stages import check_tests, evaluate_stage, of_task, read_evaluations, released
from .evaluation.tasks import ordered_tasks
from .parallel.failure import explained
from .parallel.rank import global_rank
from .recipe import Recipe, load_recipe
from .recipe.alternatives import chosen_stages
from .stage import Place, run_stage


def train(
    recipe: Recipe | str | Path | Mapping[str, Any], stage: str | None = None, *, strict: bool = False, **overrides: Any
) -> Path:
    """Trains a recipe, or goes on with it where it stopped.

    Args:
        recipe: A recipe, a YAML file, the name of a shipped recipe, or plain values.
        stage: Run this stage only; the stages it builds on must be finished.
        strict: Refuse to go on from an older checkpoint where the newest is damaged.
        overrides: Recipe values by name, with `__` for the dots: `data__batch_size=64`.

    Returns:
        The run folder.

    Raises:
        RecipeError: If the recipe is wrong, or the run folder holds another one.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, {key.replace("__", "."): value for key, value in overrides.items()})
    elif overrides:
        raise RecipeError("overrides go with a recipe that is read; change the fields of a Recipe object instead")
    quiet_libraries()
    recipe = chosen_stages(recipe, stage)
    run = Path(str(recipe.run_dir))
    with _locked(run):
        first = global_rank() == 0
        if first:
            _claim(run, recipe)
        names = _stages_to_run(recipe, stage)
        check_tests(recipe, run, names)
        with explained(recipe.trainer.timeout_s) as others:
            for name in names:
                run_stage(recipe, Place(run, name), lambda other: _finished(run, other), others, strict=strict)
                evaluate_stage(recipe, run, name)
        if first and all(Place(run, name).done.exists() for name in recipe.stages):
            _finish(recipe, run)
    return run


def _stages_to_run(recipe: Recipe, stage: str | None) -> list[str]:
    if stage is None:
        return list(recipe.stages)
    if stage not in recipe.stages:
        raise RecipeError(f"there is no stage {stage!r}{nearest(stage, recipe.stages)}")
    return [stage]


def _finished(run: Path, stage: str) -> Path:
    place = Place(run, stage)
    if not place.done.exists():
        raise RecipeError(
            f"stage {stage!r} is not finished in {run}; run it first with --stage {stage}, or all stages without --stage"
        )
    return place.release


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Keeps a second process on this machine from training into the same folder."""
    try:
        if global_rank() == 0:
            _refuse_foreign(run)
        run.mkdir(parents=True, exist_ok=True)
        lock = None if global_rank() > 0 else (run / ".lock").open("w")
    except (OSError, ValueError) as error:  # a file, no permission, no such device; a name no file system takes
        raise RecipeError(
            f"run_dir: the folder {str(run)!r} cannot be made or written to ({error}); give another --run_dir"
        ) from None
    if lock is None:
        yield
        return
    with lock as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecipeError(f"another process is training in {run}; wait for it, or give another --run_dir") from None
        yield


_OWN = ("recipe.yaml", "metrics.csv", "results.json", "results.md", "queries.png", "report.html", "release")


def _refuse_foreign(run: Path) -> None:
    """Refuses a folder that holds files a run would write, or shards, but no run: they are somebody's own."""
    if (run / ".lock").exists() or (run / "stages").is_dir():
        return
    if (run / "shards.json").exists() or any(run.glob("*.tar")):
        raise RecipeError(f"run_dir: {run} holds shards; a run does not belong among them, so give another --run_dir")
    found = [name for name in _OWN if (run / name).exists()]
    if found:
        raise RecipeError(f"{run} holds {', '.join(found)} but no run; a run would overwrite them, so give another --run_dir")


def _claim(run: Path, recipe: Recipe) -> None:
    """Saves the resolved recipe with the run, or checks that the run's is the same.

    How it runs (section `trainer`, workers and patience of the loader) may change between continuations: more devices, other logging. A
    run that never got as far as a checkpoint binds nobody: its recipe may just have been corrected.
    """
    path = run / "recipe.yaml"
    if path.exists() and _has_progress(run):
        finished = {name for name in recipe.stages if Place(run, name).done.exists()}
        changed = _differences(_binding(_read_recipe(path), finished), _binding(asdict(recipe), finished))
        if changed:
            raise RecipeError(
                f"{run} holds a run of another recipe, which differs in {', '.join(changed[:5])}; "
                "give another --run_dir for the new recipe, or the old values to continue"
            )
    write_text(path, recipe.to_yaml())


_FREE = ("trainer", "run_dir", "title", "evaluate")
_FREE_DATA = ("num_workers", "timeout", "error_budget", "allow_remote", "remote_cache_gb")


def _read_recipe(path: Path) -> dict[str, Any]:
    """The recipe a run was started with; settings that did not exist then have their defaults."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return asdict(load_recipe(values))
    except RecipeError:  # of another version: what cannot be read is compared as it stands
        return values


def _binding(values: Mapping[str, Any], finished: Collection[str]) -> dict[str, Any]:
    """What must not change between two continuations.

    Which weights of a stage are released may change until it is finished: it changes nothing of how the stage trains.
    """
    kept = {key: value for key, value in values.items() if key not in _FREE}
    kept["data"] = _without(kept.get("data"))
    stages = {}
    for name, stage in (kept.get("stages") or {}).items():
        stages[name] = {**stage, "data": _without(stage.get("data"))}
        if name not in finished and isinstance(stage.get("validate"), Mapping):
            stages[name]["validate"] = {key: value for key, value in stage["validate"].items() if key != "select"}
    kept["stages"] = stages
    return kept


def _without(data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (data or {}).items() if key not in _FREE_DATA}


def _has_progress(run: Path) -> bool:
    return any(path for pattern in ("stages/*/done.json", "stages/*/checkpoints/step-*") for path in run.glob(pattern))


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted({*before, *now})
        return [d for key in keys for d in _differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))]
    return [] if before == now else [where]


def _finish(recipe: Recipe, run: Path) -> None:
    """Writes the run's release (full) and its report."""
    from .evaluation.report import write_report

    chosen = recipe.release or list(recipe.stages)[-1]
    if not (run / "release" / "release.json").exists():
        model = zoo.load(_finished(run, chosen))
        main = ordered_tasks(recipe.evaluate)[0] if recipe.evaluate else ""
        evaluation = of_task(read_evaluations(recipe, run), main).get(chosen)
        card = model_card(model, recipe.title, evaluation, recipe_data(recipe), started_from(recipe))
        whole = getattr(model, "can_be_whole", True)  # an adapter must find a local base again
        save_release(model, run / "release", kind="full" if whole else "adapter", card=card, public=whole)
    model = released(recipe, run)
    report_results(recipe, run, read_evaluations(recipe, run), model)
    report = write_report(recipe, run, model)
    console.print(f"release: {run / 'release'}   report: {report}")


def started_from(recipe: Recipe) -> list[str]:
    """The releases outside the recipe that its stages take weights from."""
    names = [recipe.init_from, *(stage.init_from for stage in recipe.stages.values())]
    return list(dict.fromkeys(name for name in names if name is not None and name not in recipe.stages))


def recipe_data(recipe: Recipe) -> dict[str, str]:
    """Training source -> licence, as far as the catalogue of assets knows it."""
    from modalign.datasets.assets.catalogue import CATALOGUE

    names: dict[str, str] = {}
    for stage in recipe.stages:
        train = recipe.stage_data(stage).train
        for name in [train] if isinstance(train, str) else list(train or ()):
            asset = CATALOGUE.get(name.removeprefix("asset:").split("/")[0]) if name.startswith("asset:") else None
            names[name if asset else Path(name).name] = asset.licence if asset else "licence not stated"
    return names
