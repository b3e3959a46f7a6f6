"""Levenshtein's edit distance of two strings."""

from __future__ import annotations


def edit_distance(first: str, second: str) -> int:
    """Least number of characters to insert, delete or replace that makes one string the other; `len(first) * len(second)` steps.

    Args:
        first: Any string.
        second: Any string.
    """
    row = list(range(len(second) + 1))
    for i, char in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]
