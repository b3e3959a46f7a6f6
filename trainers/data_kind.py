"""What a kind of data must say of itself; which kinds there are, and which one a model or a recipe is of, is in `kinds.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from modalign.datasets.loading.planned import PlannedLoader

    from .objective import Objective
    from .recipe import DataConfig, Recipe, StageConfig

#: validates a model: its metrics by name
Measure = Callable[[Any], dict[str, float]]
PAIRS, SERIES, DIALOGUE = "pairs", "series", "dialogue"
#: what messages call a model of each kind
CALLED = {PAIRS: "pictures and texts", SERIES: "time series", DIALOGUE: "conversations about pictures"}


class Kind(Protocol):
    """One kind of data.

    Attributes:
        name: As families say it.
        task: The evaluation task that a recipe's `evaluate` means by itself.
        metric: The metric that decides by itself which checkpoint is best.
    """

    name: str
    task: str
    metric: str

    def metrics(self) -> Mapping[str, bool]:
        """Metric of validation -> whether higher is better."""

    def start(self, model: Any, recipe: Recipe, stage: str) -> None:
        """Tells a model what it must know of the data before its parameters are chosen."""

    def check(self, model: Any, stage: StageConfig, trained: Sequence[Any], where: str) -> None:
        """Refuses settings of a stage that this kind of data has no use for."""

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
    ) -> PlannedLoader:
        """The training loader of a stage."""

    def measure(self, model: Any, recipe: Recipe, stage: str) -> Measure:
        """How the stage validates."""

    def notes(self, task: Any, stream: Any) -> dict[str, Any]:
        """What is noted in done.json about a finished stage's data."""

    def check_test(self, recipe: Recipe, stage: str) -> None:
        """Opens what a stage will be measured on before anything is trained."""

    def subject(self, recipe: Recipe, release: Path, stage: str, device: str) -> Any:
        """A stage's release and its test data, to be measured."""

    def pictures(self, recipe: Recipe, subject: Any, evaluations: Mapping[str, Any]) -> str:
        """HTML that shows what the model does, for the report."""
