"""`modalign embed`: the vectors of a set of shards, as one file for numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modalign.datasets.remote.access import remote_of
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import RecipeError

from ..console import console, track
from ..data_kind import PAIRS
from ..device import pick_device
from ..evaluation.vectors import set_vectors
from ..kinds import only


def embed(
    model: str,
    data: str,
    out: str = "vectors.npz",
    languages: list[str] | None = None,
    num_workers: int = 0,
    device: str = "auto",
    allow_remote: list[str] | None = None,
) -> None:
    """Writes keys, image vectors and text vectors of shards to an .npz file.

    The file holds `keys` (I), `image` (I, D), `text` (N, D), `texts` (N), `text_lang` (N) and `text_row` (N), the row of `keys` each
    caption belongs to. It loads with `numpy.load(path, allow_pickle=False)`.

    Args:
        model: A run folder, a release or a name.
        data: Shards: a folder or asset:NAME/SPLIT.
        out: The file, whose name ends in .npz.
        languages: Caption languages; default all.
        num_workers: Worker processes that decode pictures.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.
    """
    from modalign import zoo

    path = Path(out)
    if path.is_dir():
        raise RecipeError(f"{out} is a folder; give the name of a file in it, such as {out.rstrip('/')}/vectors.npz")
    if path.suffix != ".npz":
        raise RecipeError(f"--out {out}: vectors are written as an .npz file; give another name, ending in .npz")
    loaded, shards = only(zoo.load(model, pick_device(device)), PAIRS, "embed"), ShardSet(data, remote=remote_of(allow_remote))
    vectors = set_vectors(loaded, shards, languages=languages, num_workers=num_workers, progress=track)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(
            stream,
            keys=np.array(vectors.keys),
            image=vectors.image.numpy(),
            text=vectors.text.numpy(),
            texts=np.array(vectors.texts, dtype=str),
            text_lang=np.array(vectors.text_lang, dtype=str),
            text_row=vectors.text_row.numpy(),
        )
    console.print(f"{len(vectors.keys)} pictures and {len(vectors.texts)} captions, width {vectors.image.shape[1]}: {out}")
