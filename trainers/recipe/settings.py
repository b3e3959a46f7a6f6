"""The recipe: one YAML file that says which model, data, losses and stages; typed, checked, overridable, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import yaml

from modalign.datasets.series.config import SeriesConfig
from modalign.zoo.configure import fill
from modalign.zoo.encoders.image.preprocess import Augmentation
from modalign.zoo.language.lora import LoraSettings

from .dialogue_settings import DialogueConfig

Schedule = Literal["cosine", "constant", "cosine_by_epoch", "halved_by_epoch"]


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
        pick: `first` takes a language's first caption (its name), `random` any of its captions, `joined` all of them as one long text.
        second_caption: What losses that read a second caption get: `other`, another caption (an alias) of the same language (with
            `joined` the first caption), or `first_sentence`, the first sentence of the caption drawn.
        negatives: Texts drawn per sample from its field `negatives`, for losses that read texts that must not fit.
        augment: Random views.
        num_workers: Worker processes that read and decode; 0 does it in the training process.
        on_error: `raise` at the first bad sample, or `skip` (counted, listed, stopped past a budget).
        error_budget: With `skip`, the share of all samples that may be bad.
        timeout: Seconds to wait for a batch before it is an error; 0 waits for ever.
        allow_remote: Schemes (`https`, `s3`, `gs`, `http`) or origins (`http://127.0.0.1:8000`) that shards may be read from.
        remote_cache_gb: Most that local copies of remote shards may take.
        series: For models of time series: columns, splits and windows. Then train, val and test may be tables (CSV, Parquet) too, and val
            and test are those of `train` where nothing else is given and the split leaves some rows for them.
        dialogue: For models of conversations: what is asked about a picture.
    """

    train: str | dict[str, float] | None = None
    val: str | None = None
    test: str | None = None
    batch_size: int = 256
    samples_per_epoch: int | None = None
    languages: list[str] | None = None
    val_languages: list[str] | None = None
    pick: Literal["first", "random", "joined"] = "random"
    second_caption: Literal["other", "first_sentence"] = "other"
    negatives: int = 1
    augment: Augmentation = field(default_factory=Augmentation)
    num_workers: int = 0
    on_error: Literal["raise", "skip"] = "raise"
    error_budget: float = 0.001
    timeout: float = 900.0
    allow_remote: list[str] = field(default_factory=list)
    remote_cache_gb: float = 50.0
    series: SeriesConfig | None = None
    dialogue: DialogueConfig | None = None


@dataclass
class CacheConfig:
    """What of the frozen parts is computed once and kept beside the shards.

    Attributes:
        image: Where the image encoder is cut: `output`, or a block such as `blocks.6` that trains with all above it; of stacks
            `tokens`, what enters the projector.
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
        metric: What decides the best checkpoint; not given, it is `text_to_image/R@10` for pictures and texts, `mse` for time series,
            `accuracy` for classes of them.
        every_epochs: How often, in epochs.
        select: `best` releases the best checkpoint of the stage, `last` the last.
        patience: Stop after so many validations without a new best; None never stops early.
    """

    metric: str | None = None
    every_epochs: float = 1.0
    select: Literal["best", "last"] = "best"
    patience: int | None = None


@dataclass
class StageConfig:
    """One stage of training.

    Attributes:
        train: What trains, with its learning rate: a role (`projector: 1e-3`) or part of one (`encoder:blocks.6.*: 1e-4`).
            Everything else is frozen, in eval mode and without gradients. `head?` trains it only where the model has one, here and in
            the other settings that name roles.
        losses: Label -> {loss: NAME (default: the label), weight: 1.0, ...settings of the loss}.
        model: A model of the stage's own, such as a teacher to be trained first; default the recipe's.
        init_from: A stage of this recipe or a release to take weights from; default the stage before with the same model.
        take: Which parts to take (`image`, `text`, `scale`); default all.
        teacher: `self` (a copy of the model as the stage starts), a stage of this recipe, or a release; never released. A list gives
            several, whose outputs are named `teacher_…`, `teacher2_…`, `teacher3_…`.
        teacher_decay: m of an averaging teacher, `θ* <- m θ* + (1-m) θ` after each step; 1.0 keeps it frozen. For `self` only.
        data: Overrides of the recipe's data.
        epochs: Length of the stage in epochs.
        steps: Length in steps; give one of the two.
        schedule: How rates change after the warm-up: `cosine` to zero, `constant`, `cosine_by_epoch` (half a cosine over `period` epochs
            down to `least_lr`, and up again, changing once per epoch), or `halved_by_epoch`.
        schedules: Role -> schedule, where a role has its own.
        period: Epochs of the half cosine of `cosine_by_epoch`.
        least_lr: Smallest rate of `cosine_by_epoch`.
        warmup: Linear warm-up, as a share of the steps.
        weight_decay: AdamW's, on matrices only (biases, norms and scales have none).
        betas: AdamW's.
        eps: AdamW's.
        clip_norm: Largest norm of the gradient; None does not clip.
        layer_decay: Role -> factor by which the learning rate falls per layer from the output down, such as `{encoder: 0.85}`.
        no_decay: Shell patterns of parameter names without weight decay, besides vectors, scalars and what an encoder itself exempts.
        ema: Decay of an exponential moving average of the weights; the average is what is validated and released. None keeps none.
        accumulate: Parts a rank's share of the batch is computed in, one after the other, with the exact gradients of the whole
            (GradCache): less memory for one more forward.
        grad_checkpointing: Roles whose activations are recomputed in the backward pass, to save memory.
        dropout: Role -> probability: sets every dropout of that role for this stage, such as `{head: 0.0}` where a self-teacher is to
            start equal; default as the model was built. 0 also turns off dropped paths and patches.
        batch_norm: `frozen` keeps running statistics even where the parameters train, so that a self-teacher starts equal.
        ignore_bias: Train a model that has a logit bias (the sigmoid loss's) by losses that leave it out, such as `clip`.
        cache: What is computed once.
        validate: Validation while training; None does not validate.
        keep: What the stage leaves in its folder: an `adapter` release, a `full` one.
        lora: Adapters that the stage puts beside the language model's matrices of a stack that has none; they have the role `adapter`.
        alternative: Run instead of the other stages, and only when asked for with `--stage NAME`.
    """

    train: dict[str, float]
    losses: dict[str, dict[str, Any]]
    model: dict[str, Any] | None = None
    init_from: str | None = None
    take: list[str] | None = None
    teacher: str | list[str] | None = None
    teacher_decay: float = 1.0
    data: dict[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    steps: int | None = None
    schedule: Schedule = "cosine"
    schedules: dict[str, Schedule] = field(default_factory=dict)
    period: float = 20.0
    least_lr: float = 1e-8
    warmup: float = 0.05
    weight_decay: float = 0.05
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-6
    clip_norm: float | None = 1.0
    layer_decay: dict[str, float] = field(default_factory=dict)
    no_decay: list[str] = field(default_factory=list)
    ema: float | None = None
    accumulate: int = 1
    grad_checkpointing: list[str] = field(default_factory=list)
    dropout: dict[str, float] = field(default_factory=dict)
    batch_norm: Literal["frozen", "train"] = "frozen"
    ignore_bias: bool = False
    cache: CacheConfig = field(default_factory=CacheConfig)
    validate: ValidateConfig | None = None
    keep: Literal["adapter", "full"] = "adapter"
    lora: LoraSettings | None = None
    alternative: bool = False


@dataclass
class TrainerConfig:
    """Where and how it runs (Lightning's terms).

    Attributes:
        accelerator: `auto`, `cpu`, `gpu` …
        devices: Number of devices, or `auto`.
        num_nodes: Number of machines.
        strategy: `auto`, `ddp` (every rank holds the model), `fsdp` (FSDP2: the model is sharded over the ranks), or another
            strategy of Lightning by its name.
        precision: `32-true`, or `bf16-mixed` for bfloat16. With `bf16-true` the weights themselves are bfloat16, so that a step smaller
            than a few thousandths of a weight is lost: the logit scale and much else hardly trains. `64-true` for checks.
        log_every: Steps between rows of metrics.csv.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the latest to keep.
        record_samples: Also write which samples each step saw.
        progress: Show a progress bar.
        deterministic: Ask torch for deterministic algorithms.
        compile: Compile the blocks of encoders and projectors with torch.compile.
        loggers: Besides metrics.csv: `tensorboard`, `wandb` (offline unless WANDB_MODE says otherwise).
        skip_nonfinite: Steps a stage may skip because loss or gradient is no finite number; weights and optimiser stay as they were.
        timeout_s: Seconds after which a rank that waits for the others gives up.
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
    compile: bool = False
    loggers: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    skip_nonfinite: int = 0
    timeout_s: int = 1800


@dataclass
class EvaluateConfig:
    """What is measured on `data.test` after every stage and shown in the report.

    Attributes:
        task: `retrieval`, `zeroshot`, `alignment`, `crosslingual`, for time series `forecast`, `imputation`, `anomaly`, `classification`
            or `short_term`, or a list of them; the report shows retrieval first. Not given, it is what the model is for.
        languages: Caption languages to measure, each by itself; default all there are.
        first_caption: Measure with each language's first caption only.
        queries: Texts to search the test pictures with, shown as pictures.
        stages: Stages to measure; default all.
        baselines: Label -> {metric: value}: known results on the same data, shown beside ours, such as
            `{"frozen encoders": {"text_to_image/R@10": 45.3}}`.
        options: Task -> its settings, by the names `modalign eval` has for them, such as `{zeroshot: {label: group}}`.
    """

    task: str | list[str] | None = None
    languages: list[str] | None = None
    first_caption: bool = False
    queries: list[str] = field(default_factory=list)
    stages: list[str] | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Recipe:
    """Everything a run is made of.

    Attributes:
        model: {family: NAME, ...settings of the family}; may be absent with `init_from`.
        data: Where samples come from.
        stages: Name -> stage, run in order.
        trainer: Where it runs.
        evaluate: What is measured after every stage; not given, it is retrieval where there is `data.test`; null measures nothing.
        seed: Of initial weights, order and augmentation.
        run_dir: Where the run lives; default runs/FAMILY-NAME for configs/FAMILY/NAME.yaml, runs/NAME for any other NAME.yaml.
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
    #: the run folder, where it follows from the recipe's name
    default_dir: ClassVar[str | None] = None

    def to_yaml(self) -> str:
        """The resolved recipe."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)

    def measured(self) -> list[str]:
        """The stages that are measured when they are finished."""
        if self.evaluate is None:
            return []
        return list(self.stages if self.evaluate.stages is None else self.evaluate.stages)

    def stage_data(self, stage: str) -> DataConfig:
        """The data settings of a stage: the recipe's, with the stage's overrides."""
        merged = merge(asdict(self.data), self.stages[stage].data)
        if "train" in self.stages[stage].data:  # a mixture is replaced, not added to
            merged["train"] = self.stages[stage].data["train"]
        return fill(DataConfig, merged, f"stages.{stage}.data")


def teachers_of(stage: StageConfig) -> list[str]:
    """The teachers a stage names, none, one or several."""
    if stage.teacher is None:
        return []
    return [stage.teacher] if isinstance(stage.teacher, str) else list(stage.teacher)


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
