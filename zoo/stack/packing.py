"""Several conversations in one row, none of which sees another: less padding, the same numbers.

Rows are as long as the longest conversation of the batch; conversations are put into them first fit, longest first. Positions begin anew
with every conversation, which is how transformers knows where one ends (a block mask with sdpa and eager attention, lengths with flash
attention, blocks with flex attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..language.encode import IGNORE


def rows_of(lengths: Sequence[int], longest: int | None = None) -> list[list[int]]:
    """Which conversations share a row.

    Args:
        lengths: Tokens of each conversation.
        longest: Tokens of a row; default those of the longest conversation.

    Returns:
        For every row the numbers of its conversations, in their order.
    """
    room = max(longest or 0, *lengths)
    rows: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        place = next((row for row, free in enumerate(left) if free >= lengths[number]), None)
        if place is None:
            rows.append([])
            left.append(room)
            place = len(rows) - 1
        rows[place].append(number)
        left[place] -= lengths[number]
    return [sorted(row) for row in sorted(rows, key=min)]


def packed(examples: Sequence[dict[str, Any]], pad_id: int, longest: int | None = None) -> tuple[dict[str, Tensor], list[int]]:
    """The text side of a packed batch.

    Args:
        examples: Of `StackPrepare`.
        pad_id: Id of padding.
        longest: See `rows_of`.

    Returns:
        `ids`, `labels`, `instruction`, `positions` and `segments` (R, T), the number of the conversation each token is of (-1 for padding);
        and the numbers of the conversations in the order in which their pictures appear.
    """
    rows = rows_of([len(example["ids"]) for example in examples], longest)
    width = max(sum(len(examples[number]["ids"]) for number in row) for row in rows)
    batch = {
        "ids": torch.full((len(rows), width), pad_id, dtype=torch.long),
        "labels": torch.full((len(rows), width), IGNORE, dtype=torch.long),
        "instruction": torch.zeros(len(rows), width, dtype=torch.bool),
        "positions": torch.zeros(len(rows), width, dtype=torch.long),
        "segments": torch.full((len(rows), width), -1, dtype=torch.long),
    }
    for place, row in enumerate(rows):
        start = 0
        for number in row:
            start = _put(batch, place, start, examples[number], number)
        batch["positions"][place, start:] = torch.arange(width - start)  # padding is a conversation of its own
    return batch, [number for row in rows for number in row]


def _put(batch: dict[str, Tensor], row: int, start: int, example: dict[str, Any], number: int) -> int:
    end = start + len(example["ids"])
    for name in ("ids", "labels", "instruction"):
        batch[name][row, start:end] = torch.tensor(example[name], dtype=batch[name].dtype)
    batch["labels"][row, start] = IGNORE  # what stands before it is another conversation
    batch["positions"][row, start:end] = torch.arange(end - start)
    batch["segments"][row, start:end] = number
    return end
