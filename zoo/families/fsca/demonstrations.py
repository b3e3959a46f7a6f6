"""Which labelled series become the demonstrations of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import DataError


def choose_demonstrations(labels: Sequence[int], classes: Sequence[str], seed: int) -> list[int]:
    """One random training series of each class, a function of labels and seed alone.

    As in the official classification code; the chosen series must be left out of training.

    Args:
        labels: Class of every training series.
        classes: Names of the classes.
        seed: Which choice.

    Returns:
        Positions in `labels`, in the order of the classes.

    Raises:
        DataError: If a class has no series.
    """
    generator, chosen = torch.Generator().manual_seed(seed), []
    numbers = torch.as_tensor(labels)
    for label, name in enumerate(classes):
        members = (numbers == label).nonzero().flatten()
        if not len(members):
            raise DataError(f"demonstrations: no training series is of class {name!r}; every class needs one to show")
        chosen.append(int(members[torch.randint(len(members), (), generator=generator)]))
    return chosen
