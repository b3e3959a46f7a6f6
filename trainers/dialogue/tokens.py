"""A conversation as a model sees it: its tokens, those to be learnt in colour."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.text import Text

from modalign.zoo.language.encode import IGNORE, IMAGE_PLACEHOLDER, PREFIX_PLACEHOLDER

_NAMES = {IMAGE_PLACEHOLDER: "picture", PREFIX_PLACEHOLDER: "prefix"}
LEARNT = "bold green"


def coloured(tokenizer: Any, ids: Sequence[int], labels: Sequence[int]) -> Text:
    """Tokens in order; those to be learnt in green and, for who sees no colours, between ⟦ and ⟧; a picture by its number of tokens.

    Args:
        tokenizer: The model's.
        ids: Of one conversation, without padding.
        labels: The id where it is learnt, else -100.
    """
    found = Text()
    pairs = zip(ids, labels, strict=True)
    for (placeholder, learnt), group in groupby(pairs, key=lambda one: (one[0] if one[0] in _NAMES else 0, one[1] != IGNORE)):
        part = [id_ for id_, _ in group]
        if placeholder:
            found.append(f"<{_NAMES[placeholder]}: {len(part)} tokens>", "dim")
            continue
        text = tokenizer.decode(part, skip_special_tokens=False)
        found.append(f"⟦{text}⟧" if learnt else text, LEARNT if learnt else "")
    return found
