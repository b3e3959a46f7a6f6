"""Vectors of a whole set of shards: what evaluation, embedding, search and validation have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from modalign.datasets.loading.loader import EvalLoader
from modalign.datasets.shards import ShardSet
from modalign.zoo.encoders.image.base import OUTPUT
from modalign.zoo.errors import AssemblyError
from modalign.zoo.families.dual_encoder import truncated
from modalign.zoo.metrics.over_ranks import gathered
from modalign.zoo.metrics.retrieval import RetrievalMetric

from ..caches import KeyedVectors, caption_field
from ..examples import EvalExample, eval_collate
from ..languages import check_present
from .dealing import DealtLoader, in_batch_order, interleaved, together
from .texts import TextVectors

PICTURES_AT_ONCE = 64


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
        image_features: (I, D_image) what the image encoder gives before the projector, where it was asked for.
    """

    keys: list[str]
    image: Tensor
    text: Tensor
    texts: list[str]
    text_lang: list[str]
    text_row: Tensor
    image_features: Tensor | None = None

    def retrieval(self, **settings: Any) -> dict[str, Any]:
        """Recall, in all and by language; settings and result are those of `RetrievalMetric`."""
        metric = RetrievalMetric(**settings)
        outputs = {"image_embedding": self.image, "text_embedding": self.text}
        metric.update(outputs, {"text_row": self.text_row, "text_lang": self.text_lang})
        return metric.compute()

    def truncated(self, dim: int | None) -> SetVectors:
        """The same with the first `dim` values of every vector, made unit vectors again (Matryoshka); None keeps all."""
        return replace(self, image=truncated(self.image, dim), text=truncated(self.text, dim))


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


@dataclass
class _Batch:
    """What a batch of pictures came to."""

    keys: list[str]
    texts: list[str]
    text_lang: list[str]
    text_row: list[int]


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
    over_ranks: bool = False,
    encoder_features: bool = False,
    texts: TextVectors | None = None,
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
        over_ranks: Every rank embeds its share, and all have the whole result, bit for bit that of one process; a collective.
        encoder_features: Keep what the image encoder gives before the projector too.
        texts: Where text vectors come from; default a new one for this call.

    Raises:
        AssemblyError: If the model does not embed pictures and texts.
        DataError: If a sample has no picture or none of the languages exists in the set.
    """
    _check(model)
    check_present(languages, [shards], "languages")
    features = features or Features()
    model.eval()
    example = EvalExample(None if features.image is not None else model.image.preprocess, languages, first_caption)
    fields = [caption_field(shards)] + ([] if features.image is not None else ["image"])
    kind = DealtLoader if over_ranks else EvalLoader
    loader = kind(shards, example, eval_collate, batch_size=PICTURES_AT_ONCE, fields=fields, num_workers=num_workers)
    batches = loader if progress is None else progress(loader, len(loader), f"pictures of {shards.folder.name}")

    def embed_pictures() -> tuple[list[_Batch], list[Tensor], list[Tensor]]:
        try:
            return _embed_pictures(model, batches, features, encoder_features)
        finally:
            loader.close()

    # the calls of a sharded model are collectives themselves, so its ranks cannot wait for each other's errors
    alone = not over_ranks or isinstance(model, FSDPModule)
    made, images, kept = embed_pictures() if alone else together(embed_pictures)
    if isinstance(loader, DealtLoader):
        made, images, kept = (
            interleaved(gathered(made[: loader.own])),
            [in_batch_order(images[: loader.own], images[0][:0])],
            [in_batch_order(kept[: loader.own], kept[0][:0])] if kept else [],
        )
    texts = texts or TextVectors(model, features.text, over_ranks)
    return _assembled(made, torch.cat(images), torch.cat(kept) if kept else None, texts)


def _embed_pictures(
    model: Any, batches: Iterable[dict[str, Any]], features: Features, encoder_features: bool
) -> tuple[list[_Batch], list[Tensor], list[Tensor]]:
    """Per batch: what it holds, its image vectors, and if wanted the image encoder's features."""
    made, images, kept = [], [], []
    for batch in batches:
        view = _image_view(batch, features, model.device)
        if encoder_features:
            view = _pooled_view(model, view)
            kept.append(view["image_features"].float().cpu())
        images.append(model(view)["image_embedding"].float().cpu())
        made.append(_Batch(batch["keys"], batch["texts"], batch["text_lang"], batch["text_row"].tolist()))
    return made, images, kept


def _image_view(batch: dict[str, Any], features: Features, device: torch.device) -> dict[str, Any]:
    if features.image is None:
        return {"image": batch["image"].to(device)}
    return {"image_features": features.image.take(batch["keys"]).to(device), "image_cut": features.cut}


def _pooled_view(model: Any, view: dict[str, Any]) -> dict[str, Any]:
    """The same pictures as the image encoder's output, from which the model only projects."""
    if "image" in view:
        return {"image_features": model.image.pooled(view["image"]), "image_cut": OUTPUT}
    return {"image_features": model.image.above(view["image_features"], view["image_cut"]), "image_cut": OUTPUT}


def _assembled(made: Sequence[_Batch], image: Tensor, image_features: Tensor | None, texts: TextVectors) -> SetVectors:
    keys: list[str] = []
    captions: list[str] = []
    languages: list[str] = []
    rows: list[int] = []
    for batch in made:
        rows += [row + len(keys) for row in batch.text_row]
        keys += batch.keys
        captions += batch.texts
        languages += batch.text_lang
    text_row = torch.tensor(rows, dtype=torch.long)
    return SetVectors(keys, image, texts.vectors(captions), captions, languages, text_row, image_features)


def _check(model: Any) -> None:
    if not (hasattr(model, "encode_image") and hasattr(model, "encode_text")):
        family = getattr(model, "family", type(model).__name__)
        raise AssemblyError(f"a model of family {family!r} does not embed pictures and texts; this task needs one that does")
