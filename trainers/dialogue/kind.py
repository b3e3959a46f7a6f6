"""Conversations about pictures: what their stages read, validate by and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from modalign import zoo
from modalign.datasets.loading.buckets import BucketedPlan
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.zoo.errors import RecipeError

from ..console import track, warn
from ..data_kind import DIALOGUE, Measure
from ..examples import CaptionChoice
from ..objective import Objective
from ..parallel.rank import global_rank
from ..recipe import DataConfig, Recipe, StageConfig
from ..recipe.dialogue_settings import DialogueConfig
from ..stage_data import open_loader, open_shards, open_sources
from .asking import Asker
from .examples import DialogueCollate, DialogueExample
from .features import check_cacheable, token_features
from .lengths import lengths_of
from .levels import read_levels
from .subject import DialogueSubject
from .validation import measured_loss


def config_of(data: DataConfig) -> DialogueConfig:
    """What is asked; as a recipe without the section means it."""
    return data.dialogue or DialogueConfig()


class DialogueKind:
    """See `Kind`."""

    name, task, metric = DIALOGUE, "caption", "loss"

    def metrics(self) -> Mapping[str, bool]:
        """The loss of the tokens to be learnt, and its exponential: the lower the better."""
        return {"loss": False, "perplexity": False}

    def start(self, model: Any, recipe: Recipe, stage: str) -> None:
        """Notes in the model what it is asked, so that it is asked the same when it is used; refuses settings of time series."""
        if recipe.stage_data(stage).series is not None:
            raise RecipeError(f"stages.{stage}.data.series: {model.family} is no model of time series; take it out")
        model.config.asked = {**asdict(config_of(recipe.stage_data(stage))), "levels": None}

    def check(self, model: Any, stage: StageConfig, trained: Sequence[Any], where: str) -> None:
        """Refuses to keep what trains, and what a stack has no use for."""
        if stage.cache.text or stage.cache.teacher_text:
            raise RecipeError(f"{where}.cache: of a stack only image features are kept (image: tokens); take text out")
        if stage.cache.image not in (None, "tokens"):
            raise RecipeError(
                f"{where}.cache.image: {stage.cache.image!r}: a stack keeps what enters the projector; write tokens"
            )
        if stage.accumulate > 1:
            raise RecipeError(f"{where}.accumulate: not for conversations, which differ in their pictures; lower data.batch_size")
        if stage.cache.image:
            check_cacheable(model, trained, where)

    def loader(
        self,
        model: Any,
        teachers: Sequence[Any],
        stage: StageConfig,
        data: DataConfig,
        objective: Objective,
        *,
        where: str,
        seed: int,
        rank: int,
        world_size: int,
        folder: Path,
    ) -> Loader:
        """See `Kind`."""
        if not data.augment.off:
            raise RecipeError(
                f"{where}.data.augment: pictures of conversations are shown as they are (boxes would move); turn it off"
            )
        sources, weights = open_sources(data, f"{where}.data")
        plan = BatchPlan([shards.shard_sizes for shards in sources], weights, data.batch_size, seed, data.samples_per_epoch)
        features = token_features(model, sources, data.num_workers) if stage.cache.image else None
        captions = CaptionChoice(data.languages, data.pick, False)
        example = DialogueExample(
            model.prepare(), Asker(config_of(data), captions), features is None, read_levels(config_of(data).levels)
        )
        batching = config_of(data).batching
        if batching == "bucketed":
            plan = BucketedPlan(plan, [lengths_of(shards, example) for shards in sources])
        collate = DialogueCollate(
            model.collate(pixels=features is None, packs=batching == "packed"),
            None if features is None else features.take,
            sources[0].keys[0],
        )
        return open_loader(sources, plan, example, collate, data, folder, rank=rank, world_size=world_size)

    def measure(self, model: Any, recipe: Recipe, stage: str) -> Measure:
        """The loss on the validation set; ranks share the samples.

        Raises:
            RecipeError: If there is no validation set.
        """
        data = recipe.stage_data(stage)
        if data.val is None:
            raise RecipeError(f"stages.{stage}.validate: there is nothing to validate on; give data.val, or take validate out")
        shards = open_shards(data.val, data)
        features = token_features(model, [shards], data.num_workers) if recipe.stages[stage].cache.image else None
        asker = Asker(config_of(data), CaptionChoice(data.val_languages or data.languages, "first", False))
        levels = read_levels(config_of(data).levels)
        return partial(measured_loss, shards=shards, asker=asker, features=features, batch_size=data.batch_size, levels=levels)

    def notes(self, task: Any, stream: Any) -> dict[str, Any]:
        """Nothing."""
        return {}

    def check_test(self, recipe: Recipe, stage: str) -> None:
        """Opens the test shards; warns where they are what the stage trains on."""
        data = recipe.stage_data(stage)
        assert data.test is not None
        test = open_shards(data.test, data)
        if global_rank() == 0 and data.train:
            trained_on, _ = open_sources(data, f"stages.{stage}.data")
            if test.fingerprint in (one.fingerprint for one in trained_on):
                warn(
                    f"stages.{stage}: data.test is what the stage trains on; its results say what was memorised, not what was learnt"
                )

    def subject(self, recipe: Recipe, release: Path, stage: str, device: str) -> DialogueSubject:
        """See `Kind`."""
        data = recipe.stage_data(stage)
        assert data.test is not None
        open_set = partial(open_shards, data=data)
        languages = None if recipe.evaluate is None else recipe.evaluate.languages
        return DialogueSubject(
            zoo.load(release, device),
            stage,
            open_set(data.test),
            data.test,
            config_of(data),
            languages,
            progress=track,
            open=open_set,
        )

    def pictures(self, recipe: Recipe, subject: DialogueSubject, evaluations: Mapping[str, Any]) -> str:
        """Pictures of the test set with what was asked, answered and right."""
        from .pictures import answered_pictures

        return answered_pictures(subject, evaluations)
