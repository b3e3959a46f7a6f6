"""What a stage reads: shards, cached features, loader, all derived from what its losses need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.datasets.loader import Loader
from modalign.datasets.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import RecipeError

from .caches import caption_field, image_vectors, text_vectors
from .examples import CaptionChoice, PairCollate, PairExample, TextInput
from .recipe import CacheConfig, DataConfig, StageConfig
from .roles import TrainedParameter
from .vectors import Features


@dataclass
class Needs:
    """What the losses of a stage ask of the data.

    Attributes:
        image: Pictures or their features.
        text: The student's text.
        second: Second captions.
        teacher_text: The teacher's text.
    """

    image: bool
    text: bool
    second: bool
    teacher_text: bool


def needs_of(inputs: frozenset[str]) -> Needs:
    """Reads off the names of the entries losses read."""
    return Needs(
        image=any("image_embedding" in name for name in inputs),
        text=any(name in ("text_embedding", "second_text_embedding") for name in inputs),
        second=any("second_text" in name for name in inputs),
        teacher_text=any(name.startswith(("teacher_text", "teacher_second_text")) for name in inputs),
    )


def open_sources(train: str | dict[str, float] | None, where: str) -> tuple[list[ShardSet], list[float] | None]:
    """Opens the shards of `data.train`; weights are None for a single source.

    Raises:
        RecipeError: If there is none.
        DataError: If one is not as its manifest says.
    """
    if not train:
        raise RecipeError(f"{where}.train: say what to train on: a folder of shards, asset:NAME/SPLIT, or --data.train SHARDS")
    if isinstance(train, str):
        return [ShardSet(train)], None
    return [ShardSet(name) for name in train], [float(weight) for weight in train.values()]


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


def build_loader(
    model: Any,
    teacher: Any | None,
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
        teacher: The teacher, for its text.
        stage: The stage.
        data: Its data settings.
        needs: What its losses read.
        where: Dotted place in the recipe, for messages.
        seed: Of order, captions and views.
        rank: This process.
        world_size: All processes.
        folder: The stage's folder, for features only this run can use and the list of skipped samples.
    """
    sources, weights = open_sources(data.train, f"{where}.data")
    plan = BatchPlan([shards.shard_sizes for shards in sources], weights, data.batch_size, seed, data.samples_per_epoch)
    cut = stage.cache.image if needs.image else None
    images = image_vectors(model.image, sources, cut, data.num_workers) if cut else None
    reads_pictures = needs.image and images is None
    example = PairExample(
        model.image.preprocess if reads_pictures else None,
        data.augment,
        CaptionChoice(data.languages, data.pick, needs.second),
    )
    collate = PairCollate(
        text=_student_text(model, sources, stage, data) if needs.text else None,
        teacher_text=_teacher_text(teacher, sources, stage, data, folder, where) if needs.teacher_text else None,
        second=needs.second,
        image_features=None if images is None else images.take,
        image_cut=cut,
    )
    fields = [caption_field(sources[0])] + (["image"] if reads_pictures else [])
    return Loader(
        sources,
        plan,
        example,
        collate,
        fields=fields,
        rank=rank,
        world_size=world_size,
        num_workers=data.num_workers,
        on_error=data.on_error,
        quarantine_file=folder / "quarantine.jsonl" if data.on_error == "skip" else None,
    )


def _student_text(model: Any, sources: Sequence[ShardSet], stage: StageConfig, data: DataConfig) -> TextInput:
    if stage.cache.text:
        return text_vectors(model.text, sources, data.languages)
    return model.text.tokenizer()


def _teacher_text(
    teacher: Any | None, sources: Sequence[ShardSet], stage: StageConfig, data: DataConfig, folder: Path, where: str
) -> TextInput:
    if teacher is None:
        raise RecipeError(
            f"{where}: a loss reads the teacher's text, but the stage has no teacher; give teacher: STAGE or a release"
        )
    if stage.cache.teacher_text:
        return text_vectors(teacher.text, sources, data.languages, head=teacher.text_projector, folder=folder / "features")
    return teacher.text.tokenizer()


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
