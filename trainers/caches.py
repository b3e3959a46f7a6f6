"""Features of frozen encoders, computed once and read again at every step, by every stage and every later run.

They lie beside the shards under a name made of the hashes of weights and preprocessing, so that features of another encoder are never
taken for these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.features import FeatureStore, feature_folder
from modalign.datasets.loading.loader import EvalLoader
from modalign.datasets.shards import ShardSet
from modalign.zoo.checkpoints.hashing import weights_sha256
from modalign.zoo.encoders.image.build import ImageEncoder
from modalign.zoo.errors import DataError

from .console import console, track
from .examples import EvalExample, eval_collate

_DEVICE: ContextVar[torch.device | None] = ContextVar("device of feature caches", default=None)


@contextmanager
def computing_on(device: torch.device | None) -> Iterator[None]:
    """Within it, features that are not kept yet are computed on a device, whatever device the encoders are on otherwise.

    Args:
        device: The device; None computes where the encoders are.
    """
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


@contextmanager
def moved(*modules: nn.Module) -> Iterator[None]:
    """Within it the modules are in eval mode and on the device that features are computed on; afterwards back where they were."""
    with ExitStack() as afterwards:
        for module in modules:
            module.eval()
            home, device = next((p.device for p in module.parameters()), None), _DEVICE.get()
            if home is not None and device is not None and home != device:
                afterwards.callback(module.to, home)
                module.to(device)
        yield


class KeyedVectors:
    """Vectors of one or several stores by key: sample keys or texts.

    A text in several stores has the same vector in each, made by the same encoder; sample keys are unique (`image_vectors`).
    """

    def __init__(self, stores: Sequence[FeatureStore], name: str = "features") -> None:
        self.stores, self.name = list(stores), name
        self._where: dict[str, tuple[int, int]] = {}
        for number, store in enumerate(stores):
            for row, key in enumerate(store.keys):
                self._where.setdefault(key, (number, row))

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def take(self, keys: Sequence[str]) -> Tensor:
        """(N, ...) float32 vectors of N keys.

        Raises:
            DataError: Naming the key that has none.
        """
        try:
            places = [self._where[key] for key in keys]
        except KeyError as error:
            raise DataError(
                f"the feature cache has nothing for {error.args[0]!r}; delete the .features folder to build it anew"
            ) from None
        if len(self.stores) == 1:
            return torch.from_numpy(self.stores[0].take([row for _, row in places]).astype(np.float32, copy=False))
        vectors = np.stack([self.stores[number].vectors[row] for number, row in places])
        return torch.from_numpy(vectors.astype(np.float32, copy=False))

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """A text input of `PairCollate`."""
        return {self.name: self.take(texts)}


def feature_name(kind: str, fingerprint: dict[str, Any]) -> str:
    """The name of a feature store, by what it was made of."""
    text = json.dumps(fingerprint, sort_keys=True, ensure_ascii=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _form(encoder: ImageEncoder) -> str:
    """What two encoders with equal weights may differ in: class, pooling, activations, whatever the modules say of themselves."""
    words = [
        type(encoder).__name__,
        repr(encoder),
        repr(getattr(encoder.config, "pooling", None)),
        repr(getattr(encoder.config, "options", None)),
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def image_vectors(encoder: ImageEncoder, sources: Sequence[ShardSet], cut: str, num_workers: int = 0) -> KeyedVectors:
    """What enters the cut of an image encoder for every sample of the sources; computed where it is not kept yet.

    Raises:
        DataError: If two sources share a sample key.
    """
    below = {name: tensor for name, tensor in encoder.state_dict().items() if encoder.lies_below(name, cut)}
    form = {"form": _form(encoder), "cut": cut, "preprocess": encoder.preprocess.to_dict()}
    fingerprint = {"encoder": weights_sha256(below), **form}

    def batches(shards: ShardSet, what: str) -> Iterable[np.ndarray]:
        return _image_batches(encoder, shards, cut, num_workers, what)

    return by_sample(sources, "image", fingerprint, batches, f" at {cut}")


def by_sample(
    sources: Sequence[ShardSet],
    kind: str,
    fingerprint: dict[str, Any],
    batches: Callable[[ShardSet, str], Iterable[np.ndarray]],
    where: str = "",
) -> KeyedVectors:
    """One row for every sample of the sources, computed where it is not kept yet.

    Args:
        sources: The shards.
        kind: What the stores are called by.
        fingerprint: What makes the rows, besides the data.
        batches: (shards, what to call it) -> the rows, batch by batch.
        where: Added to what it is called.

    Raises:
        DataError: If two sources share a sample key.
    """
    seen: set[str] = set()
    stores = []
    for shards in sources:
        if clash := seen.intersection(shards.keys):
            raise DataError(
                f"{shards.folder}: key {min(clash)!r} is in another source too; a feature cache needs keys of their own"
            )
        seen.update(shards.keys)
        about = fingerprint | {"data": shards.fingerprint}
        place, what = feature_folder(shards.folder, feature_name(kind, about)), f"image features of {shards.folder.name}{where}"
        stores.append(stored(place, about, shards.keys, partial(batches, shards, what), what))
    return KeyedVectors(stores)


def _image_batches(encoder: ImageEncoder, shards: ShardSet, cut: str, num_workers: int, what: str) -> Iterator[np.ndarray]:
    loader = EvalLoader(
        shards, EvalExample(encoder.preprocess), eval_collate, batch_size=32, fields=["image"], num_workers=num_workers
    )
    with moved(encoder), torch.inference_mode():
        device = next(encoder.parameters()).device
        for batch in track(loader, len(loader), what):
            yield encoder.below(batch["image"].to(device), cut).float().cpu().numpy()
    loader.close()


def caption_texts(shards: ShardSet) -> dict[str, list[str]]:
    """Language -> its distinct captions, in stored order."""
    found: dict[str, dict[str, None]] = {}
    for captions in caption_lists(shards):
        for lang, texts in captions.items():
            found.setdefault(lang, {}).update(dict.fromkeys(texts))
    return {lang: list(texts) for lang, texts in found.items()}


def caption_lists(shards: ShardSet) -> Iterator[dict[str, list[str]]]:
    """Every sample's captions by language, in stored order."""
    for raw in shards.samples([caption_field(shards)]):
        yield decode_sample(raw).captions


def caption_field(*sources: ShardSet) -> str:
    """The field that holds captions: json in shards of ours, else txt and json, what there is."""
    return "json" if all(shards.caption_field == "json" for shards in sources) else "caption"


def text_vectors(
    text: Any,
    sources: Sequence[ShardSet],
    languages: Sequence[str] | None,
    *,
    head: nn.Module | None = None,
    folder: Path | None = None,
) -> KeyedVectors:
    """Vectors of every caption of the sources, one store per source and language.

    Args:
        text: A text encoder.
        sources: Shards whose captions are wanted.
        languages: Wanted languages; None wants all.
        head: A projector to apply as well; then the L2-normalised result is kept, under the name `embedding`.
        folder: Keep them here instead of beside the shards (for vectors no other run can use).
    """
    weights = dict(text.state_dict())
    if head is not None:
        weights |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    fingerprint = {"encoder": weights_sha256(weights), **text.identity()}
    by_source = [caption_texts(shards) for shards in sources]
    for lang in languages or ():
        if not any(lang in captions for captions in by_source):
            known = ", ".join(sorted({name for captions in by_source for name in captions}))
            raise DataError(f"{sources[0].folder}: no caption in language {lang!r} (there are: {known})")
    stores = []
    for shards, captions in zip(sources, by_source, strict=True):
        for lang in captions if languages is None else [name for name in languages if name in captions]:
            about = fingerprint | {"language": lang, "data": shards.fingerprint}
            name = feature_name("text", about)
            place = feature_folder(shards.folder, name) if folder is None else folder / name
            stores.append(_text_store(place, about, captions[lang], text, head, f"{shards.folder.name} {lang}"))
    return KeyedVectors(stores, "features" if head is None else "embedding")


def _text_store(
    place: Path, about: dict[str, Any], texts: list[str], text: Any, head: nn.Module | None, what: str
) -> FeatureStore:
    # similar lengths together: a batch pads little
    ordered, what = sorted(texts, key=len), f"text features of {what}"

    def batches() -> Iterator[np.ndarray]:
        starts = range(0, len(ordered), 256)
        with moved(text, *([head] if head is not None else [])), torch.inference_mode():
            for start in track(starts, len(starts), what):
                vectors = text.embed(ordered[start : start + 256])
                if head is not None:
                    device = next(head.parameters(), vectors).device
                    vectors = nn.functional.normalize(head(vectors.to(device)).float(), dim=-1).cpu()
                yield vectors.numpy()

    return stored(place, about, ordered, batches, what)


def stored(
    place: Path, fingerprint: dict[str, Any], keys: Sequence[str], batches: Callable[[], Iterable[np.ndarray]], what: str
) -> FeatureStore:
    """The store at a place; where there is none yet, one process makes it and the others of this machine wait."""

    def waiting() -> None:
        console.print(f"{what}: another process computes them; waiting …")

    return FeatureStore.obtain(place, fingerprint, keys, batches, waiting)
