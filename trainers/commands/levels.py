"""`modalign data levels`: how well the pictures of shards fit their captions, in levels, for methods that read one per sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from modalign.datasets.remote.access import remote_of
from modalign.datasets.shards import ShardSet
from modalign.zoo.checkpoints.durable import write_text
from modalign.zoo.errors import DataError, RecipeError

from ..console import console, track
from ..data_kind import PAIRS
from ..device import pick_device
from ..kinds import only

By = Literal["count", "width"]


def levels(
    shards: str,
    model: str,
    out: str = "levels.json",
    levels: int = 8,
    by: By = "count",
    languages: list[str] | None = None,
    num_workers: int = 0,
    device: str = "auto",
    allow_remote: list[str] | None = None,
) -> None:
    """Sorts the samples of shards into levels by the similarity of picture and first caption, the last level the most similar.

    The file holds `levels` (key -> 0 to N - 1), `edges` (N + 1 similarities), `model`, `data` and `by`; a recipe names it in
    `data.dialogue.levels`. Source: AlignGPT (arXiv 2405.14129).

    Args:
        shards: Shards: a folder or asset:NAME/SPLIT.
        model: A contrastive model: a run folder, a release or a name.
        out: The file, whose name ends in .json.
        levels: N, how many levels.
        by: Levels of equal count, or of equal width in similarity.
        languages: Caption languages, of which a sample's first is taken; default all.
        num_workers: Worker processes that decode pictures.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.
    """
    from modalign import zoo

    path = Path(out)
    if path.suffix != ".json" or path.is_dir():
        raise RecipeError(f"--out {out}: levels are written as a .json file; give the name of one")
    if levels < 2:
        raise RecipeError(f"--levels {levels}: there must be 2 or more")
    loaded = only(zoo.load(model, pick_device(device)), PAIRS, "data levels")
    scores = similarities(loaded, ShardSet(shards, remote=remote_of(allow_remote)), languages, num_workers)
    found, edges = (by_count if by == "count" else by_width)(scores, levels)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"levels": found, "edges": edges, "model": model, "data": shards, "by": by}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    sizes = ", ".join(str(list(found.values()).count(level)) for level in range(levels))
    console.print(f"{len(found)} samples in {levels} levels ({sizes}), similarity {edges[0]:.3f} to {edges[-1]:.3f}: {out}")


def similarities(model: Any, shards: ShardSet, languages: Sequence[str] | None = None, num_workers: int = 0) -> dict[str, float]:
    """Key -> cosine of the picture's vector and that of its first caption.

    Args:
        model: A dual encoder.
        shards: The set.
        languages: Caption languages; the first that a sample has counts.
        num_workers: Worker processes.

    Raises:
        DataError: If a sample has no caption in these languages.
    """
    from ..evaluation.vectors import set_vectors

    vectors = set_vectors(model, shards, languages=languages, first_caption=True, num_workers=num_workers, progress=track)
    first: dict[int, int] = {}
    for place, row in enumerate(vectors.text_row.tolist()):  # in the order of the languages
        first.setdefault(row, place)
    if lacking := next((key for row, key in enumerate(vectors.keys) if row not in first), None):
        wanted = "" if languages is None else f" in {', '.join(languages)}"
        raise DataError(f"{shards.folder}: sample {lacking!r} has no caption{wanted}, so it has no level; leave it out")
    cosines = (vectors.image * vectors.text[[first[row] for row in range(len(vectors.keys))]]).sum(1)
    return dict(zip(vectors.keys, cosines.tolist(), strict=True))


def by_count(scores: Mapping[str, float], levels: int) -> tuple[dict[str, int], list[float]]:
    """Levels of equal count: sizes differ by at most one, and a higher level is nowhere less similar; ties go by key.

    Returns:
        Key -> level, and the edges: the least similarity of every level, and the greatest of all.

    Raises:
        DataError: If there are fewer samples than levels.
    """
    if len(scores) < levels:
        raise DataError(f"{len(scores)} samples do not fill {levels} levels; take fewer levels")
    order = sorted(scores, key=lambda key: (scores[key], key))
    found = {key: rank * levels // len(order) for rank, key in enumerate(order)}
    firsts = [-(-level * len(order) // levels) for level in range(levels)]
    edges = [scores[order[first]] for first in firsts] + [scores[order[-1]]]
    return {key: found[key] for key in scores}, edges


def by_width(scores: Mapping[str, float], levels: int) -> tuple[dict[str, int], list[float]]:
    """Levels of equal width between the least and the greatest similarity; some may be empty.

    Returns:
        Key -> level, and the edges.

    Raises:
        DataError: If all similarities are the same.
    """
    least, greatest = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    if least == greatest:
        raise DataError(f"all {len(scores)} similarities are the same, so there is nothing to divide; take --by count")
    edges = [least + (greatest - least) * step / levels for step in range(levels)] + [greatest]
    found = {key: min(levels - 1, int((score - least) / (greatest - least) * levels)) for key, score in scores.items()}
    return found, edges
