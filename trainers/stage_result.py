"""What a stage leaves behind: its model in one piece, with the best weights where it asks for them, and what is noted about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from modalign.zoo.errors import ReleaseError

from .callbacks.validate import Validate
from .checkpoint_io import BEST, AtomicCheckpointIO
from .console import console, warn
from .stage_data import needs_of
from .stream import StageStream
from .task import TrainingTask

_MODEL = "model."


def trained_names(task: TrainingTask) -> frozenset[str]:
    """Names of the model's tensors that a stage changes, which are those its checkpoints hold."""
    return frozenset(name.removeprefix(_MODEL) for name in task.state_dict() if name.startswith(_MODEL))


def load_trained(model: Any, state: dict[str, Tensor], expected: frozenset[str], source: str) -> None:
    """Loads what a stage trained into a model; everything else stays as the model was built.

    Args:
        model: The model.
        state: Tensors of a task, of which those of the model are taken.
        expected: Names of the tensors that must be there, and no others.
        source: Where they come from, for messages.

    Raises:
        ReleaseError: Naming what is missing, what is not wanted, and what the model does not have.
    """
    weights = {name.removeprefix(_MODEL): value for name, value in state.items() if name.startswith(_MODEL)}
    missing, foreign = expected - weights.keys(), weights.keys() - expected
    unknown = [] if missing or foreign else model.load_state_dict(weights, strict=False).unexpected_keys
    if missing or foreign or unknown:
        found = {"it lacks": missing, "it has besides": foreign, "the model does not have": unknown}
        what = "; ".join(f"{how} {', '.join(sorted(names)[:5])}" for how, names in found.items() if names)
        raise ReleaseError(f"{source} does not hold exactly what the stage trains: {what}")


def take_best(model: Any, trainer: pl.Trainer, checkpoints: Path, expected: frozenset[str]) -> dict[str, Any]:
    """Loads the best validated weights into the model, if the stage asks for them; returns what is noted about them.

    Args:
        model: The model, in one piece.
        trainer: The stage's.
        checkpoints: The stage's checkpoints.
        expected: Names of the tensors the stage trains.

    Raises:
        ReleaseError: If they are needed and cannot be read; says what to do.
    """
    validate = next((callback for callback in trainer.callbacks if isinstance(callback, Validate)), None)  # type: ignore[attr-defined]
    if validate is None or validate.best is None:
        return {}
    if validate.settings.select == "best" and validate.best_step != trainer.global_step:
        path = checkpoints / BEST
        try:
            state = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]
        except ReleaseError as error:
            stage = checkpoints.parent
            raise ReleaseError(
                f"{error}. It holds the best weights, of step {validate.best_step}, which this stage is to release. Delete {stage} "
                f"to train the stage again, or release its last weights with --stages.{stage.name}.validate.select last"
            ) from None
        load_trained(model, state, expected, f"checkpoint {path}")
        console.print(f"best {validate.metric} {validate.best:.4g} at step {validate.best_step}: its weights are taken")
    return {"metric": validate.metric, "best": validate.best, "best_step": validate.best_step}


def skipped(task: TrainingTask, stream: StageStream) -> dict[str, Any]:
    """How many samples and steps were left out as bad, said and recorded; samples by shard, the worst first."""
    quarantine, steps = getattr(stream.loader, "quarantine", None), task.guard.skipped
    if steps:
        warn(f"{steps} steps were skipped: their loss or gradient was no finite number")
    if quarantine is not None:
        quarantine.refresh()  # those of other ranks too
    if quarantine is None or not quarantine.entries:
        return {"skipped_steps": steps} if steps else {}
    warn(quarantine.summary())
    found: dict[str, Any] = {"skipped_samples": len(quarantine.entries), "skipped_by_shard": quarantine.by_shard()}
    return found | ({"skipped_steps": steps} if steps else {})


def second_caption_share(task: TrainingTask, stream: StageStream) -> dict[str, float]:
    """How many samples have a second caption, where losses use one; nothing where every caption gives its own second one."""
    choice = stream.loader.reader.example.captions  # type: ignore[attr-defined]
    if not needs_of(task.objective.inputs()).second or choice.first_sentence or choice.pick == "joined":
        return {}
    have = total = 0
    from .caches import caption_lists

    for shards in stream.loader.sources:
        for captions in caption_lists(shards):
            total += 1
            have += any(len(captions.get(lang, ())) > 1 for lang in (choice.languages or captions))
    return {"second_caption_share": round(have / max(1, total), 4)}


def peak_memory(device: Any | None) -> int:
    """Most memory the training process held so far, in megabytes (10^6 bytes): of the GPU it trains on, else of the process.

    Args:
        device: The GPU; None is the CPU.
    """
    import resource
    import sys

    import torch

    if device is not None and torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6)
    if (found := _high_water()) is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def _high_water() -> int | None:
    """The kernel's mark of this program alone, in megabytes; `ru_maxrss` also counts what the process that started it held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return round(marks[0] * 1024 / 1e6) if marks else None
