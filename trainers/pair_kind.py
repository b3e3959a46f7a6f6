"""Pairs of pictures and texts: what their stages read, validate by and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modalign import zoo
from modalign.datasets.loading.loader import Loader
from modalign.zoo.errors import RecipeError
from modalign.zoo.metrics.retrieval import flatten

from .console import track, warn
from .data_kind import PAIRS, Measure
from .languages import check_present
from .objective import Objective
from .parallel.rank import global_rank
from .recipe import DataConfig, Recipe, StageConfig
from .stage_data import build_loader, check_cuts, eval_features, needs_of, open_shards, open_sources
from .stage_result import second_caption_share


class PairKind:
    """See `Kind`."""

    name, task, metric = PAIRS, "retrieval", "text_to_image/R@10"

    def metrics(self) -> Mapping[str, bool]:
        """Those of retrieval, all the higher the better but ranks."""
        import torch

        from modalign.zoo.metrics.retrieval import RetrievalMetric

        metric, pairs = RetrievalMetric(), torch.eye(2)  # measured on two pairs: names do not depend on the data
        metric.update({"image_embedding": pairs, "text_embedding": pairs}, {"text_row": torch.arange(2), "text_lang": ["", ""]})
        return dict.fromkeys(flatten(metric.compute()["metrics"]), True)

    def start(self, model: Any, recipe: Recipe, stage: str) -> None:
        """Nothing: a model of pairs knows no columns."""
        if recipe.stage_data(stage).series is not None:
            raise RecipeError(f"stages.{stage}.data.series: {model.family} is no model of time series; take it out")

    def check(self, model: Any, stage: StageConfig, trained: Sequence[Any], where: str) -> None:
        """Refuses to cache what trains."""
        check_cuts(model, trained, stage.cache, where)

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
        """See `build_loader`."""
        needs = needs_of(objective.inputs())
        return build_loader(
            model, teachers, stage, data, needs, where=where, seed=seed, rank=rank, world_size=world_size, folder=folder
        )

    def measure(self, model: Any, recipe: Recipe, stage: str) -> Measure:
        """Retrieval on the validation set; every rank embeds and scores its share, the result is that of one process.

        Raises:
            RecipeError: If there is no validation set.
        """
        from .evaluation.vectors import set_vectors

        data = recipe.stage_data(stage)
        if data.val is None:
            raise RecipeError(f"stages.{stage}.validate: there is nothing to validate on; give data.val, or take validate out")
        shards, languages = open_shards(data.val, data), data.val_languages or data.languages
        check_present(languages, [shards], f"stages.{stage}.data.{'val_languages' if data.val_languages else 'languages'}")
        features = eval_features(model, shards, languages, recipe.stages[stage].cache)

        def measured(model: Any) -> dict[str, float]:
            vectors = set_vectors(model, shards, languages=languages, features=features, over_ranks=True)
            return flatten(vectors.retrieval(over_ranks=True)["metrics"])

        return measured

    def notes(self, task: Any, stream: Any) -> dict[str, Any]:
        """How many samples have a second caption, where losses use one."""
        return second_caption_share(task, stream)

    def check_test(self, recipe: Recipe, stage: str) -> None:
        """Opens the test shards; warns where they are what the stage trains on."""
        from .evaluation.tasks import ordered_tasks

        data = recipe.stage_data(stage)
        assert data.test is not None and recipe.evaluate is not None
        test = open_shards(data.test, data)
        if "retrieval" in ordered_tasks(recipe.evaluate):
            check_present(recipe.evaluate.languages, [test], "evaluate.languages")
        if global_rank() == 0 and data.train:
            trained_on, _ = open_sources(data, f"stages.{stage}.data")
            if test.fingerprint in (one.fingerprint for one in trained_on):
                warn(
                    f"stages.{stage}: data.test is what the stage trains on; its results say what was memorised, not what was learnt"
                )

    def subject(self, recipe: Recipe, release: Path, stage: str, device: str) -> Any:
        """See `Kind`; cached features are to be given with `use`."""
        from .evaluation.task import Subject

        data = recipe.stage_data(stage)
        assert data.test is not None
        open_set = partial(open_shards, data=data)
        model = zoo.load(release, device)
        return Subject(model, stage, open_set(data.test), data.test, progress=track, open=open_set)

    def pictures(self, recipe: Recipe, subject: Any, evaluations: Mapping[str, Any]) -> str:
        """Retrieved pictures."""
        from .evaluation.retrieved import retrieved_pictures

        return retrieved_pictures(recipe, subject)
