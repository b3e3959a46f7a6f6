"""What a stage reads: shards, cached features, loader, all derived from what its losses need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.remote.access import remote_of
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import RecipeError

from .caches import caption_field, image_vectors, text_vectors
from .evaluation.vectors import Features
from .examples import CaptionChoice, PairCollate, PairExample, TextInput
from .languages import check_present
from .needs import Needs as Needs
from .needs import needs_of as needs_of
from .needs import teacher_number
from .recipe import CacheConfig, DataConfig, StageConfig
from .roles import TrainedParameter
from .teacher_pictures import teacher_pictures


def open_shards(name: str, data: DataConfig) -> ShardSet:
    """Opens shards with a recipe's settings on damage and on other machines."""
    remote = remote_of(data.allow_remote or None, data.remote_cache_gb)
    return ShardSet(name, on_error=data.on_error, remote=remote)


def open_sources(data: DataConfig, where: str) -> tuple[list[ShardSet], list[float] | None]:
    """Opens the shards of `data.train`; weights are None for a single source.

    Raises:
        RecipeError: If there is none.
        DataError: If one is not as its manifest says.
    """
    if not data.train:
        raise RecipeError(f"{where}.train: say what to train on: a folder of shards, asset:NAME/SPLIT, or --data.train SHARDS")
    if isinstance(data.train, str):
        return [open_shards(data.train, data)], None
    return [open_shards(name, data) for name in data.train], [float(weight) for weight in data.train.values()]


def check_cuts(model: Any, trained: Sequence[TrainedParameter], cache: CacheConfig, where: str) -> None:
    """Refuses to cache what trains.

    Raises:
        RecipeError: Naming the parameter.
    """
    for entry in trained:
        part, _, inner = entry.name.partition(".")
        if cache.image and part == "image" and model.image.lies_below(inner, cache.image):
            raise RecipeError(f"{where}: {entry.name} trains, but cache.image: {cache.image} fixes its output; cut lower")
        if cache.text and part == "text":
            raise RecipeError(f"{where}: {entry.name} trains, but cache.text keeps the text encoder's output fixed; turn one off")


def check_needs(needs: Needs, stage: StageConfig, where: str) -> None:
    """Refuses to cache what the losses need as it is.

    Raises:
        RecipeError: Naming the setting.
    """
    cached = {"cache.image": bool(stage.cache.image), "cache.text": stage.cache.text}
    for name in (name for name, on in cached.items() if on and needs.captioning):
        raise RecipeError(
            f"{where}.{name}: a loss predicts captions, which takes the picture and the tokens themselves; take it out"
        )
    if stage.cache.text and (needs.negatives or needs.grouped):
        raise RecipeError(f"{where}.cache.text: only captions are cached, not the negatives that a loss reads; take it out")


def build_loader(
    model: Any,
    teachers: Sequence[Any],
    stage: StageConfig,
    data: DataConfig,
    needs: Needs,
    *,
    where: str,
    seed: int,
    rank: int,
    world_size: int,
    folder: Path,
) -> Loader:
    """The training loader of a stage.

    Args:
        model: The student, for its tokenizer, preprocessing and cached features.
        teachers: The teachers, for their text.
        stage: The stage.
        data: Its data settings.
        needs: What its losses read.
        where: Dotted place in the recipe, for messages.
        seed: Of order, captions and views.
        rank: This process.
        world_size: All processes.
        folder: The stage's folder, for features only this run can use and the list of skipped samples.
    """
    check_needs(needs, stage, where)
    sources, weights = open_sources(data, f"{where}.data")
    check_present(data.languages, sources, f"{where}.data.languages")
    plan = BatchPlan([shards.shard_sizes for shards in sources], weights, data.batch_size, seed, data.samples_per_epoch)
    cut = stage.cache.image if needs.image else None
    images = image_vectors(model.image, sources, cut, data.num_workers) if cut else None
    reads_pictures = needs.image and images is None
    taught = teacher_pictures(model, teachers, needs, cut, sources, data.num_workers)
    example = PairExample(
        model.image.preprocess if reads_pictures else None,
        data.augment,
        CaptionChoice(data.languages, data.pick, needs.second, data.second_caption == "first_sentence"),
        data.negatives if needs.negatives or needs.grouped else 0,
        needs.ids,
        taught.preprocess,
    )
    collate = PairCollate(
        text=_student_text(model, sources, stage, data) if needs.text or needs.grouped else None,
        plain=needs.text,
        teacher_text={
            prefix: _teacher_text(prefix, teachers, sources, stage, data, folder, where) for prefix in needs.teacher_text
        },
        second=needs.second,
        image_features=None if images is None else images.take,
        image_cut=cut,
        teacher_images=taught.features,
        negatives=needs.negatives,
        grouped=needs.grouped,
    )
    fields = [caption_field(*sources)] + (["image"] if reads_pictures else [])
    return open_loader(sources, plan, example, collate, data, folder, fields=fields, rank=rank, world_size=world_size)


def open_loader(
    sources: list[ShardSet], plan: BatchPlan, example: Any, collate: Any, data: DataConfig, folder: Path, **more: Any
) -> Loader:
    """A training loader with a recipe's settings on workers, damage and patience.

    Args:
        sources: Where samples come from.
        plan: Which make up which batch.
        example: See `Loader`.
        collate: See `Loader`.
        data: The settings.
        folder: The stage's folder, for the list of skipped samples.
        more: Further arguments of `Loader`.
    """
    return Loader(
        sources,
        plan,
        example,
        collate,
        num_workers=data.num_workers,
        on_error=data.on_error,
        error_budget=data.error_budget,
        timeout=data.timeout,
        quarantine_file=folder / "quarantine.jsonl" if data.on_error == "skip" else None,
        **more,
    )


def _student_text(model: Any, sources: Sequence[ShardSet], stage: StageConfig, data: DataConfig) -> TextInput:
    if stage.cache.text:
        return text_vectors(model.text, sources, data.languages)
    return model.text.tokenizer()


def _teacher_text(
    prefix: str,
    teachers: Sequence[Any],
    sources: Sequence[ShardSet],
    stage: StageConfig,
    data: DataConfig,
    folder: Path,
    where: str,
) -> TextInput:
    number = teacher_number(prefix)
    if number > len(teachers):
        raise RecipeError(
            f"{where}: a loss reads {prefix}text_..., but the stage has {len(teachers)} teachers; give teacher: a stage or a release, "
            "or a list of them"
        )
    text, projector = teachers[number - 1].text, teachers[number - 1].text_projector
    if stage.cache.teacher_text:
        return text_vectors(text, sources, data.languages, head=projector, folder=folder / "features")
    return text.tokenizer()


def eval_features(
    model: Any, shards: ShardSet, languages: list[str] | None, cache: CacheConfig, *, text: bool | None = None
) -> Features:
    """Cached features of a validation or test set, as far as the stage keeps them.

    Args:
        model: The model.
        shards: The set.
        languages: Caption languages.
        cache: The stage's settings.
        text: Keep text features even if the stage does not (for encoders that never train).
    """
    features = Features()
    if cache.image:
        features.image, features.cut = image_vectors(model.image, [shards], cache.image), cache.image
    if cache.text if text is None else text:
        features.text = text_vectors(model.text, [shards], languages)
    return features
