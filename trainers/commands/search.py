"""`modalign search`: the pictures of a set of shards that fit a text best."""

from __future__ import annotations

from typing import Any

from PIL import Image

from modalign.datasets.commands.sheet import contact_sheet, sheet_path
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.remote.access import remote_of
from modalign.datasets.shards import ShardSet

from ..caches import caption_field
from ..console import print_table, track
from ..data_kind import PAIRS
from ..device import pick_device
from ..evaluation.vectors import set_vectors
from ..kinds import only


def search(
    model: str,
    data: str,
    query: str,
    top: int = 8,
    out: str = "",
    num_workers: int = 0,
    device: str = "auto",
    allow_remote: list[str] | None = None,
) -> None:
    """Prints the best hits for a query in any language the model's text encoder knows, and writes them as a contact sheet.

    Args:
        model: A run folder, a release or a name.
        data: Shards: a folder or asset:NAME/SPLIT.
        query: What to look for.
        top: How many hits.
        out: The contact sheet, a PNG; default search.png, or the next free of search-2.png, search-3.png ...
        num_workers: Worker processes that decode pictures.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.
    """
    from modalign import zoo

    sheet = sheet_path(out, "search.png")
    shards = ShardSet(data, remote=remote_of(allow_remote))
    loaded = only(zoo.load(model, pick_device(device)), PAIRS, "search")
    vectors = set_vectors(loaded, shards, languages=[], num_workers=num_workers, progress=track)
    hits = best_hits(loaded, vectors.image, [query], top)[0]
    rows = []
    pictures, captions = [], []
    for rank, (row, score) in enumerate(hits, 1):
        picture, caption = picture_and_caption(shards, row)
        rows.append((str(rank), f"{score:.3f}", vectors.keys[row], caption))
        pictures.append(picture)
        captions.append(f"{rank}. {caption}\n{score:.3f}")
    print_table(f"{query!r} in {data}", ("rank", "score", "key", "caption"), rows)
    contact_sheet(pictures, captions, sheet, title=query)
    print(f"written: {sheet}")


def best_hits(model: Any, image_vectors: Any, queries: list[str], top: int) -> list[list[tuple[int, float]]]:
    """For each query its best (row, score), best first."""
    scores = model.encode_text(queries).float().cpu() @ image_vectors.T
    values, rows = scores.topk(min(top, len(image_vectors)), dim=1)
    return [list(zip(r.tolist(), v.tolist(), strict=True)) for r, v in zip(rows, values, strict=True)]


def picture_and_caption(shards: ShardSet, row: int) -> tuple[Image.Image, str]:
    """A sample's picture and its primary caption."""
    sample = decode_sample(shards.read(row, ["image", caption_field(shards)]))
    return sample.images[0], sample.primary_caption or sample.key
