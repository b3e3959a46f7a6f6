"""The part of a report that shows pictures: what the model finds for texts."""

from __future__ import annotations

import base64
import html
import io

from modalign.datasets.shards import ShardSet

from ..commands.search import best_hits, picture_and_caption
from ..recipe import Recipe
from .task import Subject


def retrieved_pictures(recipe: Recipe, model: Subject) -> str:
    """Hits for the recipe's queries, and for some captions of the test set with the right picture marked."""
    if recipe.evaluate is None:
        return ""
    vectors = model.vectors(recipe.evaluate.languages, first_caption=True)
    step = max(1, len(vectors.texts) // 8)
    chosen = list(range(step // 2, len(vectors.texts), step))[:8]
    asked: list[tuple[str, int | None]] = [(query, None) for query in recipe.evaluate.queries]
    asked += [(vectors.texts[i], int(vectors.text_row[i])) for i in chosen]
    if not asked:
        return ""
    hits = best_hits(model.model, vectors.image, [text for text, _ in asked], 7)
    parts = ["<h2>Retrieved pictures</h2><p class=note>The right picture, where there is one, is framed in green.</p>"]
    for (text, right), found in zip(asked, hits, strict=True):
        figures = "".join(_figure(model.shards, row, score, row == right) for row, score in found)
        parts.append(f"<h3>{html.escape(text)}</h3><div class=hits>{figures}</div>")
    return "".join(parts)


def _figure(shards: ShardSet, row: int, score: float, right: bool) -> str:
    picture, caption = picture_and_caption(shards, row)
    picture.thumbnail((160, 160))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    kind = " class=right" if right else ""
    return f"<figure{kind}><img alt='' src='{source}'><figcaption>{html.escape(caption)} ({score:.2f})</figcaption></figure>"
