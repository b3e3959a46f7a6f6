"""The range of every number of a recipe and the names of what runs it: refused when the recipe is read, not after hours of training."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from modalign.zoo.configure import shown
from modalign.zoo.encoders.image.preprocess import Augmentation
from modalign.zoo.errors import RecipeError, nearest

from .settings import DataConfig, StageConfig, TrainerConfig, ValidateConfig

_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
_STRATEGIES = ("auto", "ddp", "fsdp")
_YEAR = 366 * 24 * 3600  # seconds: clocks and queues overflow at far longer waits
_MOST_COLOR = 10.0  # a factor of up to 11; pixels overflow long before a float does


def number(value: Any, where: str, *, least: float | None = None, above: float | None = None, most: float | None = None) -> None:
    """Refuses what is not a finite number in a range.

    Args:
        value: The setting.
        where: Its dotted place.
        least: Smallest value allowed.
        above: The value must be larger than this.
        most: Largest value allowed.

    Raises:
        RecipeError: Naming place, value and range.
    """
    bounds = [f"at least {least:g}"] if least is not None else []
    bounds += [f"above {above:g}"] if above is not None else []
    bounds += [f"at most {most:g}"] if most is not None else []
    # math.isfinite fails at whole numbers that no float holds
    fine = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    fine = fine and (least is None or value >= least) and (above is None or value > above) and (most is None or value <= most)
    if not fine:
        raise RecipeError(f"{where}: {shown(value)} must be a finite number{' ' if bounds else ''}{' and '.join(bounds)}")


def check_stage_ranges(stage: StageConfig, place: str) -> None:
    """Raises `RecipeError` at the first number of a stage that makes no sense."""
    for key, rate in stage.train.items():
        number(rate, f"{place}.train.{key}", above=0)
    _check_weights(stage, f"{place}.losses")
    for name, value, bounds in _stage_numbers(stage):
        if value is not None:
            number(value, f"{place}.{name}", **bounds)
    for role, factor in stage.layer_decay.items():
        number(factor, f"{place}.layer_decay.{role}", above=0, most=1)
    for role, probability in stage.dropout.items():
        number(probability, f"{place}.dropout.{role}", least=0, most=1)
    if len(stage.betas) != 2 or not all(isinstance(beta, float) and 0 <= beta < 1 for beta in stage.betas):
        raise RecipeError(f"{place}.betas: {stage.betas} must be two numbers, each at least 0 and below 1")
    if stage.ema is not None and not 0 < stage.ema < 1:
        raise RecipeError(f"{place}.ema: {stage.ema} must lie between 0 and 1; leave it out to keep no average")
    if stage.validate is not None:
        _check_validate(stage.validate, f"{place}.validate")


def _check_weights(stage: StageConfig, place: str) -> None:
    """A loss may weigh nothing beside others, to be watched; less than nothing would train away from it."""
    weights = {label: (settings or {}).get("weight", 1.0) for label, settings in stage.losses.items()}
    for label, weight in weights.items():
        number(weight, f"{place}.{label}.weight", least=0)
    if not any(weights.values()):
        raise RecipeError(
            f"{place}: every weight is 0 ({', '.join(map(str, weights))}), so that nothing would train; give one above 0"
        )


def _stage_numbers(stage: StageConfig) -> Iterator[tuple[str, float | None, dict[str, float]]]:
    yield "epochs", stage.epochs, {"above": 0}
    yield "steps", stage.steps, {"least": 1}
    yield "warmup", stage.warmup, {"least": 0, "most": 1}
    yield "weight_decay", stage.weight_decay, {"least": 0}
    yield "eps", stage.eps, {"above": 0}
    yield "clip_norm", stage.clip_norm, {"above": 0}
    yield "teacher_decay", stage.teacher_decay, {"least": 0, "most": 1}
    yield "period", stage.period, {"above": 0}
    yield "least_lr", stage.least_lr, {"least": 0}
    yield "accumulate", stage.accumulate, {"least": 1}


def _check_validate(settings: ValidateConfig, place: str) -> None:
    number(settings.every_epochs, f"{place}.every_epochs", above=0)
    if settings.patience is not None:
        number(settings.patience, f"{place}.patience", least=1)


def check_data_ranges(data: DataConfig, place: str) -> None:
    """Raises `RecipeError` at the first number of the data settings that makes no sense."""
    number(data.batch_size, f"{place}.batch_size", least=1)
    if data.samples_per_epoch is not None:
        number(data.samples_per_epoch, f"{place}.samples_per_epoch", least=1)
    number(data.negatives, f"{place}.negatives", least=1)
    number(data.num_workers, f"{place}.num_workers", least=0)
    number(data.error_budget, f"{place}.error_budget", least=0, most=1)
    number(data.timeout, f"{place}.timeout", least=0, most=_YEAR)
    number(data.remote_cache_gb, f"{place}.remote_cache_gb", above=0)
    for name in ("languages", "val_languages"):
        check_languages_named(getattr(data, name), f"{place}.{name}")
    if isinstance(data.train, Mapping):
        for name, weight in data.train.items():
            number(weight, f"{place}.train.{name}", above=0)
    _check_augment(data.augment, f"{place}.augment")


def check_languages_named(languages: list[str] | None, place: str) -> None:
    """Raises `RecipeError` at a list of languages that names none: it would mean all of them, or no caption at all."""
    if languages is not None and not (languages and all(language.strip() for language in languages)):
        raise RecipeError(
            f"{place}: {languages} must name at least one language, none of them blank; leave it out for all there are"
        )


def _check_augment(augment: Augmentation, place: str) -> None:
    number(augment.scale, f"{place}.scale", above=0, most=1)
    number(augment.ratio, f"{place}.ratio", least=1)
    number(augment.flip, f"{place}.flip", least=0, most=1)
    number(augment.color, f"{place}.color", least=0, most=_MOST_COLOR)


def check_trainer_ranges(trainer: TrainerConfig, place: str) -> None:
    """Raises `RecipeError` at the first number or name of the trainer settings that makes no sense."""
    for name in ("log_every", "checkpoint_every", "keep_checkpoints", "num_nodes"):
        number(getattr(trainer, name), f"{place}.{name}", least=1)
    number(trainer.timeout_s, f"{place}.timeout_s", least=1, most=_YEAR)
    number(trainer.skip_nonfinite, f"{place}.skip_nonfinite", least=0)
    _check_devices(trainer.devices, f"{place}.devices")
    _check_name(trainer.accelerator, _ACCELERATORS, "AcceleratorRegistry", f"{place}.accelerator")
    _check_name(trainer.strategy, _STRATEGIES, "StrategyRegistry", f"{place}.strategy")


def _check_devices(devices: int | str, place: str) -> None:
    count = int(devices) if isinstance(devices, str) and devices.removeprefix("-").isdecimal() else devices
    if count != "auto" and count != -1 and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise RecipeError(f"{place}: {devices!r} must be a number of devices, 1 or more, or auto for all there are")


def _check_name(name: str, usual: tuple[str, ...], registry: str, place: str) -> None:
    """The usual names need no Lightning; any other is looked up among what it has registered."""
    if name in usual:
        return
    import lightning.pytorch as pl

    known = sorted({*usual, *getattr(pl.accelerators if registry.startswith("Acc") else pl.strategies, registry)})
    if name not in known:
        raise RecipeError(f"{place}: there is no {name!r}{nearest(name, known)} (usual are {', '.join(usual)})")
