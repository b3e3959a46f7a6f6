"""One stage from start to release: build, cache, train, keep the best, release."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from modalign.datasets.loading.planned import PlannedLoader
from modalign.zoo.checkpoints.card import model_card
from modalign.zoo.checkpoints.durable import write_text
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import ReleaseError

from .build import StageRelease, Start, add_adapters, build_model, build_teachers
from .caches import computing_on
from .callbacks.agree import SameStart
from .callbacks.csv_log import CsvLog
from .callbacks.ema import AveragedWeights
from .callbacks.meter import Meter, StageProgress
from .callbacks.metric_names import check_metric
from .callbacks.sample_log import SampleLog
from .callbacks.statistics import KeepStatistics
from .callbacks.stop import StopOnSignal
from .callbacks.validate import Validate
from .checkpoint_io import AtomicCheckpointIO, newest
from .console import console, print_table, warn
from .guard import FiniteGuard
from .kinds import kind_of
from .lightning_refusal import lightnings_refusal
from .loggers import build_loggers
from .objective import Objective, check_bias
from .parallel.failure import OtherRanks
from .parallel.rejoin import rejoin
from .parallel.sharded import gathered, is_sharded
from .parallel.strategy import build_strategy, cluster_plugins
from .parallel.world import World, check_world, find_world, own_device
from .recipe import DataConfig, Recipe
from .roles import TrainedParameter, freeze, select, set_dropout, set_grad_checkpointing, table
from .stage_result import load_trained, peak_memory, skipped, take_best, trained_names
from .stream import StageStream
from .task import TrainingTask, self_teacher


@dataclass
class Place:
    """Where a stage keeps its things.

    Attributes:
        run: The run folder.
        name: The stage.
    """

    run: Path
    name: str

    @property
    def folder(self) -> Path:
        """The stage's folder."""
        return self.run / "stages" / self.name

    @property
    def checkpoints(self) -> Path:
        """For resuming only."""
        return self.folder / "checkpoints"

    @property
    def release(self) -> Path:
        """The stage's result."""
        return self.folder / "release"

    @property
    def done(self) -> Path:
        """Exists exactly when the stage is finished."""
        return self.folder / "done.json"


def run_stage(recipe: Recipe, place: Place, release_of: StageRelease, others: OtherRanks, *, strict: bool = False) -> None:
    """Trains a stage, or goes on with it where it stopped; does nothing if it is finished.

    Args:
        recipe: The recipe.
        place: The stage, and where it keeps its things.
        release_of: Releases of the stages before.
        others: Is told of the ranks that the stage's trainer starts.
        strict: Refuse to go on from an older checkpoint where the newest is damaged.

    Raises:
        ModalignError: For anything wrong with recipe, data or files.
    """
    if place.done.exists():
        console.print(f"stage {place.name}: finished earlier")
        return
    stage, where = recipe.stages[place.name], f"stages.{place.name}"
    place.folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    pl.seed_everything(_stage_seed(recipe, place.name), verbose=False)
    start = build_model(recipe, place.name, release_of)
    kind = kind_of(start.model)
    add_adapters(start.model, stage, where)
    kind.start(start.model, recipe, place.name)
    objective = Objective(stage.losses, f"{where}.losses")
    check_bias(start.model, objective, stage.ignore_bias, where)
    trained = select(start.model, stage.train, where)
    kind.check(start.model, stage, trained, where)
    freeze(start.model, trained)
    set_dropout(start.model, stage.dropout, where)
    set_grad_checkpointing(start.model, stage.grad_checkpointing, where)
    _print_start(recipe, place, start, trained)
    teachers = [self_teacher(start.model)] if stage.teacher == "self" else build_teachers(recipe, stage, release_of)
    with computing_on(own_device(recipe.trainer)):
        trainer, task, stream = _assemble(recipe, place, start, objective, trained, teachers)
    others.started_by(trainer)
    checkpoint = _resume_from(recipe, place, trainer, strict)
    rejoin(recipe.trainer, find_world(recipe.trainer))
    trainer.fit(task, train_dataloaders=stream, ckpt_path=checkpoint, weights_only=True)
    summary = {"steps": trainer.global_step, "seconds": round(time.time() - started, 1)}
    model = _whole_model(recipe, place.name, release_of, task)
    summary |= take_best(model, trainer, place.checkpoints, trained_names(task))
    summary |= kind.notes(task, stream) | skipped(task, stream)
    summary["peak_megabytes"] = peak_memory(own_device(recipe.trainer))
    trainer.strategy.barrier()  # until here the others read checkpoints
    if trainer.is_global_zero:
        names = start.trained | {entry.name for entry in trained}
        card = model_card(model, recipe.title)
        save_release(model, place.release, kind=stage.keep, card=card, trained=names, public=False)
        write_text(place.done, json.dumps(summary, indent=1))
        shutil.rmtree(place.checkpoints, ignore_errors=True)
    trainer.strategy.barrier()


def _stage_seed(recipe: Recipe, name: str) -> int:
    return (recipe.seed * 1000 + list(recipe.stages).index(name)) % 2**32


def _print_start(recipe: Recipe, place: Place, start: Start, trained: list[TrainedParameter]) -> None:
    rows = table(start.model, trained)
    print_table(f"stage {place.name}: what trains", ("role", "parameters", "trained", "learning rate"), rows)
    if (precision := recipe.trainer.precision) in ("bf16-true", "16-true"):
        warn(
            f"precision {precision}: the weights themselves have 16 bits, so a step smaller than a few thousandths of a weight is lost; "
            "the logit scale and much else may not train at all. Use bf16-mixed, which keeps them in float32"
        )


def _assemble(
    recipe: Recipe,
    place: Place,
    start: Start,
    objective: Objective,
    trained: list[TrainedParameter],
    teachers: list[Any],
) -> tuple[pl.Trainer, TrainingTask, StageStream]:
    stage, data = recipe.stages[place.name], recipe.stage_data(place.name)
    world = find_world(recipe.trainer)
    loader = kind_of(start.model).loader(
        start.model,
        teachers,
        stage,
        data,
        objective,
        where=f"stages.{place.name}",
        seed=_stage_seed(recipe, place.name),
        rank=world.rank,
        world_size=world.size,
        folder=place.folder,
    )
    steps = stage.steps if stage.steps is not None else max(1, round((stage.epochs or 0) * len(loader)))
    stream = StageStream(loader, steps)
    epochs = steps / len(loader)
    console.print(f"{data.batch_size} samples per step, {len(loader)} steps per epoch, {steps} steps = {epochs:.4g} epochs")
    task = TrainingTask(
        start.model,
        objective,
        trained,
        stage,
        steps,
        _stage_seed(recipe, place.name),
        teachers,
        FiniteGuard(recipe.trainer.skip_nonfinite),
        recipe.trainer.compile,
        len(loader),
    )
    trainer = _trainer(recipe, place, data, loader, start.model, world)
    check_world(trainer, world)
    return trainer, task, stream


def _trainer(recipe: Recipe, place: Place, data: DataConfig, loader: PlannedLoader, model: Any, world: World) -> pl.Trainer:
    settings, stage = recipe.trainer, recipe.stages[place.name]
    if not torch.cuda.is_available():  # else every optimiser step loads the driver's library to ask again
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    meter = Meter(data.batch_size, settings.log_every, len(loader), speak=settings.progress and not console.is_terminal)
    callbacks: list[pl.Callback] = [meter]
    if settings.progress and console.is_terminal:
        callbacks.append(StageProgress(meter, place.name))
    if settings.record_samples:
        callbacks.append(SampleLog(place.folder / "samples.csv"))
    if stage.ema is not None:
        callbacks.append(AveragedWeights(stage.ema))
    if stage.validate is not None:
        callbacks.append(_validate(recipe, place, loader, model))
    if stage.batch_norm == "train":
        callbacks.append(KeepStatistics())
    # on the CPU a poll costs nothing beside a step
    callbacks.append(StopOnSignal(place.checkpoints, 0.0 if own_device(settings) is None else 1.0))
    callbacks.append(
        ModelCheckpoint(
            dirpath=place.checkpoints,
            filename="step-{step:08d}",
            auto_insert_metric_name=False,
            save_top_k=-1,  # AtomicCheckpointIO removes the old ones, those saved for a signal too
            enable_version_counter=False,  # a damaged one is replaced
            every_n_train_steps=settings.checkpoint_every,
        )
    )
    # Lightning's CPU accelerator takes no -1 for all devices
    devices = "auto" if world.devices in (-1, "-1") and own_device(settings) is None else world.devices
    with lightnings_refusal(settings):
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=world.nodes,
            strategy=build_strategy(settings, world.size),
            precision=settings.precision,
            max_epochs=1,
            gradient_clip_val=stage.clip_norm,
            use_distributed_sampler=False,
            logger=[CsvLog(place.run / "metrics.csv", place.name), *build_loggers(settings.loggers, place.run, place.name)],
            log_every_n_steps=10**9,  # Meter logs
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(settings.keep_checkpoints, resuming=True), *cluster_plugins()],
            default_root_dir=place.folder,
            enable_progress_bar=settings.progress and console.is_terminal,
            enable_model_summary=False,
            deterministic=settings.deterministic,
            num_sanity_val_steps=0,
        )


def _validate(recipe: Recipe, place: Place, loader: PlannedLoader, model: Any) -> Validate:
    settings, kind = recipe.stages[place.name].validate, kind_of(model)
    assert settings is not None
    metric = check_metric(settings.metric, kind, f"stages.{place.name}.validate.metric")
    every = round(settings.every_epochs * len(loader))
    measure = kind.measure(model, recipe, place.name)
    return Validate(settings, every, measure, metric, kind.metrics()[metric], place.checkpoints)


def _resume_from(recipe: Recipe, place: Place, trainer: pl.Trainer, strict: bool) -> Path | None:
    checkpoint, warnings = newest(place.checkpoints, first=trainer.is_global_zero, patience=recipe.trainer.timeout_s)
    trainer.callbacks.append(SameStart(checkpoint))  # type: ignore[attr-defined]
    if warnings and strict:
        raise ReleaseError(f"{warnings[0]}, which --strict refuses; without it the run goes on from there")
    for warning in warnings:
        warn(warning)
    step = 0
    if checkpoint is not None:
        step = int(json.loads((checkpoint / "manifest.json").read_text())["step"])
        console.print(f"stage {place.name}: continues at step {step}")
    for logger in trainer.loggers:
        if isinstance(logger, CsvLog):
            logger.cut(step)
    return checkpoint


def _whole_model(recipe: Recipe, name: str, release_of: StageRelease, task: TrainingTask) -> Any:
    """The trained model in one piece: the task's own, or a new one with the trained weights.

    A new one where the task's is sharded, and where it was converted to another precision: an adapter's frozen part must be its source's.
    """
    if not is_sharded(task.model) and recipe.trainer.precision not in ("bf16-true", "64-true"):
        return task.model
    state, expected = gathered(task), trained_names(task)
    pl.seed_everything(_stage_seed(recipe, name), verbose=False)  # what did not train is built as it was
    model = build_model(recipe, name, release_of).model
    add_adapters(model, recipe.stages[name], f"stages.{name}")
    load_trained(model, state, expected, "the trained model")
    return model
