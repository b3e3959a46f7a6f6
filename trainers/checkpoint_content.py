"""What a checkpoint must hold for a run to go on from it: whatever Lightning would miss in silence, or trip over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

_STEPS_DONE = (
    "loops",
    "fit_loop",
    "epoch_loop.automatic_optimization.optim_progress",
    "optimizer",
    "step",
    "total",
    "completed",
)
_KINDS: dict[str, type] = {
    "epoch": int,
    "pytorch-lightning_version": str,
    "state_dict": Mapping,
    "loops": Mapping,
    "callbacks": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
}
_PROGRESS = ("epoch_loop.batch_progress", "epoch_loop.scheduler_progress", "epoch_progress")


def wrong_step(checkpoint: Any, step: Any) -> str | None:
    """What is wrong with a checkpoint of any kind: it is a table with the step that its manifest states; None if nothing is.

    Args:
        checkpoint: What was read.
        step: Of its manifest.
    """
    if not isinstance(checkpoint, Mapping):
        return f"it is a {type(checkpoint).__name__}, not a table"
    found = checkpoint.get("global_step")
    if type(found) is not int or found != step:
        return f"global_step is {found!r}, but its manifest says step {step!r}"
    return None


def wrong_content(checkpoint: Mapping[str, Any]) -> str | None:
    """What of a checkpoint keeps a run from going on from it exactly; None if nothing does.

    Args:
        checkpoint: What was read, with a `global_step`.
    """
    return next(_wrong(checkpoint), None)


def misfit(checkpoint: Mapping[str, Any], ours: Mapping[str, Tensor], trained: int) -> str | None:
    """What of a checkpoint with the right names does not fit what a stage trains; None if everything does.

    Args:
        checkpoint: What was read.
        ours: Name -> tensor, as the stage has them; a sharded scalar is a vector of length one.
        trained: Number of parameters that the optimiser steps.
    """
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(value, Tensor) or (value.shape != ours[name].shape and not value.numel() == ours[name].numel() == 1):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            return f"{name} is {found}, the model has {tuple(ours[name].shape)}"
    groups = checkpoint["optimizer_states"][0]["param_groups"] if checkpoint.get("optimizer_states") else None
    stepped = trained if groups is None else sum(len(group["params"]) for group in groups)
    return None if stepped == trained else f"optimizer_states are of {stepped} parameters, the stage trains {trained}"


def _wrong(checkpoint: Mapping[str, Any]) -> Iterator[str]:
    for key, kind in _KINDS.items():
        if not isinstance(checkpoint.get(key), kind):
            yield f"{key} is {'missing' if key not in checkpoint else type(checkpoint[key]).__name__}"
    skipped = _at(checkpoint.get("guard", {"skipped": 0}), ("skipped",))
    if type(skipped) is not int:
        yield "guard has no number of skipped steps"
    step = checkpoint["global_step"]
    if _at(checkpoint, _STEPS_DONE) != step:
        yield f"loops say that {_at(checkpoint, _STEPS_DONE)!r} steps are done, global_step says {step}"
    loop = checkpoint["loops"]["fit_loop"]
    for key in _PROGRESS:
        if not isinstance(_at(loop, (key, "total")), Mapping) or not isinstance(_at(loop, (key, "current")), Mapping):
            yield f"loops have no {key}"
    streams = _at(loop, ("state_dict", "combined_loader"))
    if not (isinstance(streams, list) and len(streams) == 1 and type(_at(streams[0], ("step",))) is int):
        yield "loops do not say how far the data was read"
    yield from _wrong_optimiser(checkpoint["optimizer_states"], step - skipped)
    if len(checkpoint["lr_schedulers"]) != 1 or _at(checkpoint["lr_schedulers"][0], ("last_epoch",)) != step:
        yield f"lr_schedulers do not hold one schedule at step {step}"


def _wrong_optimiser(states: list[Any], steps: int) -> Iterator[str]:
    """Without its moments AdamW would start anew, and nothing would say so."""
    state = states[0] if len(states) == 1 and isinstance(states[0], Mapping) else {}
    if not isinstance(state.get("state"), Mapping) or not _are_groups(state.get("param_groups")):
        yield "optimizer_states do not hold the state of one optimiser"
    if steps > 0 and not state["state"]:
        yield f"optimizer_states are empty after {steps} steps"
    for entry in state["state"].values():
        if not isinstance(entry, Mapping) or not {"step", "exp_avg", "exp_avg_sq"} <= set(entry):
            yield "optimizer_states lack the moments of a parameter"


def _are_groups(groups: Any) -> bool:
    return isinstance(groups, list) and all(isinstance(_at(group, ("params",)), list) for group in groups)


def _at(values: Any, path: tuple[str, ...]) -> Any:
    """What lies at a path of keys; None where there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
