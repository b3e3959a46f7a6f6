"""The recipe: one YAML file that says which model, data, losses and stages; typed, checked, overridable, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from modalign.zoo.configure import check_keys, fill
from modalign.zoo.encoders.preprocess import Augmentation
from modalign.zoo.errors import RecipeError, nearest


@dataclass
class DataConfig:
    """Where samples come from and how they are drawn. A stage may override any of it.

    Attributes:
        train: Shards to train on: a folder, `asset:NAME/SPLIT`, or a mapping of those to weights (a mixture).
        val: Shards a stage validates on.
        test: Shards the finished stages are evaluated on.
        batch_size: Samples per step over all ranks together; the number of ranks must divide it.
        samples_per_epoch: Length of an epoch; default the sum of the sources.
        languages: Caption languages to train on; default all there are.
        val_languages: Caption languages to validate on; default those trained on.
        pick: `first` takes a language's first caption (its name), `random` any of its captions.
        second_caption: Also draw another caption (an alias) of the same language, for losses that use one.
        augment: Random views.
        num_workers: Worker processes that read and decode; 0 does it in the training process.
        on_error: `raise` at the first bad sample, or `skip` (counted, listed, stopped past a budget).
    """

    train: str | dict[str, float] | None = None
    val: str | None = None
    test: str | None = None
    batch_size: int = 256
    samples_per_epoch: int | None = None
    languages: list[str] | None = None
    val_languages: list[str] | None = None
    pick: Literal["first", "random"] = "random"
    second_caption: bool = False
    augment: Augmentation = field(default_factory=Augmentation)
    num_workers: int = 0
    on_error: Literal["raise", "skip"] = "raise"


@dataclass
class CacheConfig:
    """What of the frozen parts is computed once and kept beside the shards.

    Attributes:
        image: Where the image encoder is cut: `output`, or a block such as `blocks.6` that trains with all above it.
        text: Keep the text encoder's vectors.
        teacher_text: Keep the teacher's text vectors, after its projector.
    """

    image: str | None = None
    text: bool = False
    teacher_text: bool = False


@dataclass
class ValidateConfig:
    """Validation while training.

    Attributes:
        metric: What decides the best checkpoint, such as `text_to_image/R@10`; higher is better.
        every_epochs: How often, in epochs.
        select: `best` releases the best checkpoint of the stage, `last` the last.
        patience: Stop after so many validations without a new best; None never stops early.
    """

    metric: str = "text_to_image/R@10"
    every_epochs: float = 1.0
    select: Literal["best", "last"] = "best"
    patience: int | None = None


@dataclass
class StageConfig:
    """One stage of training.

    Attributes:
        train: What trains, with its learning rate: a role (`projector: 1e-3`) or part of one (`encoder:blocks.6.*: 1e-4`).
            Everything else is frozen, in eval mode and without gradients.
        losses: Label -> {loss: NAME (default: the label), weight: 1.0, ...settings of the loss}.
        model: A model of the stage's own, such as a teacher to be trained first; default the recipe's.
        init_from: A stage of this recipe or a release to take weights from; default the stage before with the same model.
        take: Which parts to take (`image`, `text`, `scale`); default all.
        teacher: `self` (a copy of the model as the stage starts), a stage of this recipe, or a release; never released.
        teacher_decay: m of an averaging teacher, `θ* <- m θ* + (1-m) θ` after each step; 1.0 keeps it frozen. For `self` only.
        data: Overrides of the recipe's data.
        epochs: Length of the stage in epochs.
        steps: Length in steps; give one of the two.
        schedule: `cosine` to zero after the warm-up, or `constant`.
        warmup: Linear warm-up, as a share of the steps.
        weight_decay: AdamW's, on matrices only (biases, norms and scales have none).
        betas: AdamW's.
        eps: AdamW's.
        clip_norm: Largest norm of the gradient; None does not clip.
        dropout: Role -> probability: sets every dropout of that role for this stage, such as `{head: 0.0}` where a self-teacher is to
            start equal; default as the model was built.
        batch_norm: `frozen` keeps running statistics even where the parameters train, so that a self-teacher starts equal.
        cache: What is computed once.
        validate: Validation while training; None does not validate.
        keep: What the stage leaves in its folder: an `adapter` release, a `full` one.
    """

    train: dict[str, float]
    losses: dict[str, dict[str, Any]]
    model: dict[str, Any] | None = None
    init_from: str | None = None
    take: list[str] | None = None
    teacher: str | None = None
    teacher_decay: float = 1.0
    data: dict[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    steps: int | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.05
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-6
    clip_norm: float | None = 1.0
    dropout: dict[str, float] = field(default_factory=dict)
    batch_norm: Literal["frozen", "train"] = "frozen"
    cache: CacheConfig = field(default_factory=CacheConfig)
    validate: ValidateConfig | None = None
    keep: Literal["adapter", "full"] = "adapter"


@dataclass
class TrainerConfig:
    """Where and how it runs (Lightning's terms).

    Attributes:
        accelerator: `auto`, `cpu`, `gpu` …
        devices: Number of devices, or `auto`.
        num_nodes: Number of machines.
        strategy: Lightning strategy, such as `auto` or `ddp`.
        precision: `32-true`, or `bf16-mixed` for bfloat16.
        log_every: Steps between rows of metrics.csv.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the latest to keep.
        record_samples: Also write which samples each step saw.
        progress: Show a progress bar.
        deterministic: Ask torch for deterministic algorithms.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    log_every: int = 10
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    record_samples: bool = False
    progress: bool = True
    deterministic: bool = False


@dataclass
class EvaluateConfig:
    """What is measured on `data.test` after every stage and shown in the report.

    Attributes:
        task: `retrieval`.
        languages: Languages to measure, each by itself; default all there are.
        first_caption: Measure with each language's first caption only.
        queries: Texts to search the test pictures with, shown as pictures.
        stages: Stages to measure; default all.
        baselines: Label -> {metric: value}: known results on the same data, shown beside ours, such as
            `{"frozen encoders": {"text_to_image/R@10": 45.3}}`.
    """

    task: Literal["retrieval"] = "retrieval"
    languages: list[str] | None = None
    first_caption: bool = False
    queries: list[str] = field(default_factory=list)
    stages: list[str] | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Recipe:
    """Everything a run is made of.

    Attributes:
        model: {family: NAME, ...settings of the family}; may be absent with `init_from`.
        data: Where samples come from.
        stages: Name -> stage, run in order.
        trainer: Where it runs.
        evaluate: What is measured after every stage; None measures nothing.
        seed: Of initial weights, order and augmentation.
        run_dir: Where the run lives; default runs/RECIPE-NAME.
        init_from: A release the model starts from.
        release: Which stage's model becomes the run's release; default the last.
        title: One line for report and model card.
    """

    stages: dict[str, StageConfig]
    model: dict[str, Any] | None = None
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluate: EvaluateConfig | None = None
    seed: int = 0
    run_dir: str | None = None
    init_from: str | None = None
    release: str | None = None
    title: str = ""

    def to_yaml(self) -> str:
        """The resolved recipe."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)

    def stage_data(self, stage: str) -> DataConfig:
        """The data settings of a stage: the recipe's, with the stage's overrides."""
        merged = merge(asdict(self.data), self.stages[stage].data)
        if "train" in self.stages[stage].data:  # a mixture is replaced, not added to
            merged["train"] = self.stages[stage].data["train"]
        return fill(DataConfig, merged, f"stages.{stage}.data")


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
    _check_languages(values, where)
    recipe = fill(Recipe, values, where)
    if recipe.run_dir is None:
        recipe.run_dir = f"runs/{Path(where).stem}"
    _check(recipe, where)
    return recipe


def _read(path: Path) -> tuple[dict[str, Any], str]:
    path = find_recipe(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    except yaml.YAMLError:
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


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _check_languages(values: Any, where: str) -> None:
    """YAML reads the code of Norwegian as False: says so, at any depth."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if str(key).endswith("languages") and isinstance(value, list) and any(isinstance(item, bool) for item in value):
                raise RecipeError(f"{where}.{key}: YAML reads no as a boolean; write the language code in quotes, 'no'")
            _check_languages(value, f"{where}.{key}")


def _check(recipe: Recipe, where: str) -> None:
    if not recipe.stages:
        raise RecipeError(f"{where}: stages is empty; a recipe has at least one")
    for name in recipe.stages:
        _check_stage(recipe, name, f"{where}: stages.{name}")
    if min(recipe.trainer.log_every, recipe.trainer.checkpoint_every, recipe.trainer.keep_checkpoints) < 1:
        raise RecipeError(f"{where}: trainer.log_every, checkpoint_every and keep_checkpoints must be at least 1")
    if recipe.release is not None and recipe.release not in recipe.stages:
        raise RecipeError(f"{where}: release: there is no stage {recipe.release!r}{nearest(recipe.release, recipe.stages)}")


def _check_stage(recipe: Recipe, name: str, place: str) -> None:
    stage, names = recipe.stages[name], list(recipe.stages)
    if (stage.epochs is None) == (stage.steps is None):
        raise RecipeError(f"{place}: give one of epochs and steps")
    if (stage.epochs or stage.steps or 0) <= 0 or not 0 <= stage.warmup <= 1:
        raise RecipeError(f"{place}: epochs or steps must be above 0, warmup a share of the steps between 0 and 1")
    if not stage.train or not stage.losses:
        raise RecipeError(f"{place}: train and losses say what trains and on what; neither may be empty")
    for key in ("init_from", "teacher"):
        if getattr(stage, key) in names[names.index(name) :]:
            raise RecipeError(f"{place}.{key}: stage {getattr(stage, key)!r} does not come before {name!r}")
    if stage.teacher_decay != 1.0 and stage.teacher != "self":
        raise RecipeError(f"{place}.teacher_decay: only a teacher that is a copy of the model (teacher: self) can average it")
    if recipe.model is None and stage.model is None and recipe.init_from is None:
        raise RecipeError(f"{place}: there is no model: give model, or init_from with a release that says what it is")
    check_keys(DataConfig, stage.data, f"{place}.data")
    if stage.cache.image:
        _check_cache(recipe.stage_data(name), f"{place}.cache.image")


def _check_cache(data: DataConfig, place: str) -> None:
    if not data.augment.off:
        raise RecipeError(f"{place}: features are computed once, so random views would be lost; turn data.augment off")
    if data.on_error == "skip":
        raise RecipeError(
            f"{place}: features of a bad sample cannot be cached, so data.on_error: skip does not go with it; repair the shards "
            "(modalign data check names the samples; modalign data pack --on_error skip leaves them out), or turn one off"
        )
