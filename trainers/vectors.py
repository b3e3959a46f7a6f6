"""Vectors of a whole set of shards: what evaluation, embedding, search and validation have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modalign.datasets.loader import EvalLoader
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import AssemblyError
from modalign.zoo.metrics.retrieval import RetrievalMetric

from .caches import KeyedVectors, caption_field
from .examples import EvalExample, eval_collate


@dataclass
class SetVectors:
    """Vectors of a set.

    Attributes:
        keys: Sample keys (I).
        image: (I, D) unit vectors.
        text: (N, D) unit vectors.
        texts: The captions (N).
        text_lang: Their languages (N).
        text_row: (N,) the sample each caption belongs to.
    """

    keys: list[str]
    image: Tensor
    text: Tensor
    texts: list[str]
    text_lang: list[str]
    text_row: Tensor

    def retrieval(self) -> dict[str, Any]:
        """Recall, in all and by language; see `RetrievalMetric`."""
        metric = RetrievalMetric()
        outputs = {"image_embedding": self.image, "text_embedding": self.text}
        metric.update(outputs, {"text_row": self.text_row, "text_lang": self.text_lang})
        return metric.compute()


@dataclass
class Features:
    """Cached features that may stand in for encoders while vectors are made.

    Attributes:
        image: By sample key, what enters the cut.
        cut: The cut.
        text: By caption, what the text encoder gives.
    """

    image: KeyedVectors | None = None
    cut: str | None = None
    text: KeyedVectors | None = None


@torch.inference_mode()
def set_vectors(
    model: Any,
    shards: ShardSet,
    *,
    languages: Sequence[str] | None = None,
    first_caption: bool = False,
    features: Features | None = None,
    num_workers: int = 0,
    progress: Callable[[Any, int, str], Any] | None = None,
) -> SetVectors:
    """Embeds every picture and caption of a set.

    Args:
        model: A dual encoder.
        shards: The set.
        languages: Wanted caption languages; None wants all.
        first_caption: Only the first caption of each language.
        features: Cached features to use.
        num_workers: Worker processes that decode.
        progress: Wraps the batches, such as `console.track`.

    Raises:
        AssemblyError: If the model does not embed pictures and texts.
        DataError: If a sample has no picture or none of the languages exists in the set.
    """
    _check(model)
    features = features or Features()
    model.eval()
    cached = features.image is not None
    example = EvalExample(None if cached else model.image.preprocess, languages, first_caption)
    fields = [caption_field(shards)] + ([] if cached else ["image"])
    loader = EvalLoader(shards, example, eval_collate, batch_size=64, fields=fields, num_workers=num_workers)
    batches = loader if progress is None else progress(loader, len(loader), f"pictures of {shards.folder.name}")
    images: list[Tensor] = []
    rows: list[Tensor] = []
    keys: list[str] = []
    texts: list[str] = []
    langs: list[str] = []
    for batch in batches:
        view = _image_view(batch, features, model.device)
        images.append(model(view)["image_embedding"].float().cpu())
        rows.append(batch["text_row"] + len(keys))
        keys += batch["keys"]
        texts += batch["texts"]
        langs += batch["text_lang"]
    loader.close()
    vectors = text_matrix(model, texts, features.text)
    return SetVectors(keys, torch.cat(images), vectors, texts, langs, torch.cat(rows))


def _image_view(batch: dict[str, Any], features: Features, device: torch.device) -> dict[str, Any]:
    if features.image is None:
        return {"image": batch["image"].to(device)}
    return {"image_features": features.image.take(batch["keys"]).to(device), "image_cut": features.cut}


def text_matrix(model: Any, texts: Sequence[str], cached: KeyedVectors | None = None) -> Tensor:
    """Unit vectors (N, D) of texts; each distinct text is embedded once."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return torch.empty(0, model.config.embed_dim)
    if cached is None:
        vectors = model.encode_text(distinct)
    else:
        vectors = torch.cat([model.project_text(cached.take(distinct[i : i + 4096])) for i in range(0, len(distinct), 4096)])
    where = {text: row for row, text in enumerate(distinct)}
    return vectors[[where[text] for text in texts]]


def _check(model: Any) -> None:
    if not (hasattr(model, "encode_image") and hasattr(model, "encode_text")):
        family = getattr(model, "family", type(model).__name__)
        raise AssemblyError(f"a model of family {family!r} does not embed pictures and texts; this task needs one that does")
