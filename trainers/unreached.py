"""Trained parameters that no loss reaches: a scale that the losses do not read, an encoder whose modality they leave out.

Nothing happens to them, on any number of ranks: without a gradient the optimiser neither moves nor decays them. Giving them a gradient of
zero instead would shrink them by weight decay, step after step, so the ranks agree on who is reached by nobody (see `SearchingStrategy`).
"""

from __future__ import annotations

from collections.abc import Sequence

from .console import warn
from .roles import TrainedParameter

_NAMED = 3


def tell_unreached(trained: Sequence[TrainedParameter]) -> None:
    """Says which of the trained parameters got no gradient; to be called after a backward pass, once.

    Over ranks: every rank has the same answer, and the first says it.

    Args:
        trained: The parameters that train.
    """
    names = [entry.name for entry in trained if entry.parameter.grad is None]
    if not names:
        return
    shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    warn(
        f"{len(names)} of {len(trained)} trained parameters got no gradient in the first step, because no loss reads what they make; "
        f"without one they stay as they are: {shown}"
    )
