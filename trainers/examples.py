"""From a decoded sample to a training example, and from examples to a batch: the code that runs in data workers."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modalign.datasets.decoding.sample import Sample
from modalign.datasets.shards.captions import check_text
from modalign.zoo.encoders.image.base import OUTPUT
from modalign.zoo.encoders.image.preprocess import Augmentation, ImagePreprocess
from modalign.zoo.errors import DataError

#: strings -> named tensors: {"ids", "mask"} from a tokenizer, {"features"} or {"embedding"} from a cache
TextInput = Callable[[Sequence[str]], dict[str, Tensor]]


@dataclass
class CaptionChoice:
    """Which caption of a sample a training step sees.

    Attributes:
        languages: Allowed languages; None allows all.
        pick: `first` or `random` caption of the drawn language, or all of them `joined` to one long text.
        second: Also give a second caption: with `joined` the first caption, else another one of that language.
        first_sentence: The second caption is the first sentence of the first instead.
    """

    languages: Sequence[str] | None
    pick: str
    second: bool
    first_sentence: bool = False

    def __call__(self, captions: Mapping[str, Sequence[str]], rng: np.random.Generator) -> tuple[str, str | None]:
        """Returns (caption, second caption or None where the language has only one).

        Raises:
            DataError: If the sample has no caption in an allowed language.
        """
        have = [lang for lang in (self.languages or captions) if captions.get(lang)]
        if not have:
            wanted = "any language" if self.languages is None else ", ".join(self.languages)
            raise DataError(f"field 'captions': no caption in {wanted} (there are: {', '.join(captions) or 'none'})")
        texts = captions[have[int(rng.integers(len(have)))]]
        if self.pick == "joined":
            return " ".join(texts), first_sentence(texts[0]) if self.first_sentence else texts[0]
        first = 0 if self.pick == "first" else int(rng.integers(len(texts)))
        if self.first_sentence:
            return texts[first], first_sentence(texts[first])
        if not self.second or len(texts) < 2:
            return texts[first], None
        other = int(rng.integers(len(texts) - 1))
        return texts[first], texts[other + (other >= first)]


def first_sentence(text: str) -> str:
    """Up to and with the first full stop, question or exclamation mark that ends a word; the whole text if there is none."""
    found = re.search(r".+?[.!?\u3002\uff01\uff1f](?=\s|$)", text, re.DOTALL)
    return found.group(0).strip() if found else text


@dataclass
class PairExample:
    """Makes a training example of a sample.

    Attributes:
        preprocess: Of the image encoder; None leaves pictures out (text-only stages, cached features).
        augmentation: Random views.
        captions: Which caption.
        negatives: Draw so many texts of the sample's field `negatives`.
        ids: Fields whose values are wanted as ids.
        teacher_preprocess: Prefix of a teacher -> how pixels of its own are made, of the same view, for the teachers that need them.
    """

    preprocess: ImagePreprocess | None
    augmentation: Augmentation
    captions: CaptionChoice
    negatives: int = 0
    ids: Sequence[str] = ()
    teacher_preprocess: Mapping[str, ImagePreprocess] = field(default_factory=dict)
    takes_encoded: ClassVar[bool] = True  # photographs come encoded: a random view decodes only what it needs

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """Returns {key, text, second, negatives, ids, image, teacher_image}, as far as they are wanted."""
        text, second = self.captions(sample.captions, rng)
        example: dict[str, Any] = {"key": sample.key, "text": text, "second": second}
        if self.preprocess is not None:
            if not sample.images:
                raise DataError("field 'image': the sample has no picture")
            for prefix, theirs in self.teacher_preprocess.items():  # drawn alike: a teacher looks at the view its student has
                example[f"{prefix}image"] = self.augmentation(sample.images[0], theirs, copy.deepcopy(rng))
            example["image"] = self.augmentation(sample.images[0], self.preprocess, rng)
        if self.negatives:
            example["negatives"] = _draw_negatives(sample, self.negatives, rng)
        example["ids"] = {name: _id_of(sample, text, name) for name in self.ids}
        return example


def _draw_negatives(sample: Sample, count: int, rng: np.random.Generator) -> list[str]:
    texts = sample.meta.get("negatives")
    if not isinstance(texts, list) or len(texts) < count or not all(isinstance(text, str) for text in texts):
        raise DataError(f"field 'negatives': a list of at least {count} texts is wanted, found {texts!r}")
    drawn = [texts[int(i)] for i in rng.choice(len(texts), count, replace=False)]
    for text in drawn:
        check_text(text, "negatives")
    return drawn


def _id_of(sample: Sample, text: str, name: str) -> int:
    """A number that is equal exactly where the value is: of the caption drawn, of the key, or of a field of the sample's JSON."""
    value = text.strip().casefold() if name == "text" else sample.key if name == "key" else sample.meta.get(name)
    if value is None:
        raise DataError(f"field {name!r}: a loss reads {name}_id, and the sample's JSON has no such field")
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:8], "big", signed=True)


@dataclass
class PairCollate:
    """Makes a batch of examples.

    Attributes:
        text: For the student's text, if any loss needs it.
        plain: Whether the student's caption is wanted by itself.
        teacher_text: Prefix of a teacher -> for that teacher's text, if any loss needs it.
        second: Whether second captions are wanted.
        image_features: Cached features by sample key, with the cut they were taken at.
        teacher_images: Prefix of a teacher -> its own cached features, where the student's are not right for it.
        negatives: Whether negatives are wanted by themselves.
        grouped: Whether each caption is wanted with its negatives behind it, in one entry.
    """

    text: TextInput | None = None
    plain: bool = True
    teacher_text: Mapping[str, TextInput] = field(default_factory=dict)
    second: bool = False
    image_features: Callable[[Sequence[str]], Tensor] | None = None
    image_cut: str | None = None
    teacher_images: Mapping[str, Callable[[Sequence[str]], Tensor]] = field(default_factory=dict)
    negatives: bool = True
    grouped: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns named tensors; a missing second caption is stood in for by the first and marked in `has_second_text`."""
        batch = self._pictures(examples)
        self._add(batch, "text", [example["text"] for example in examples], student=self.plain)
        if self.second:
            batch["has_second_text"] = torch.tensor([example["second"] is not None for example in examples])
            self._add(batch, "second_text", [example["second"] or example["text"] for example in examples])
        if "negatives" in examples[0] and self.negatives:
            self._add(batch, "negative_text", [text for example in examples for text in example["negatives"]])
        if "negatives" in examples[0] and self.grouped:
            self._add(batch, "grouped_text", [text for e in examples for text in (e["text"], *e["negatives"])])
        for name in examples[0].get("ids", ()):
            batch[f"{name}_id"] = torch.tensor([example["ids"][name] for example in examples], dtype=torch.int64)
        return batch

    def _pictures(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {
            name: torch.stack([example[name] for example in examples]) for name in examples[0] if name.endswith("image")
        }
        keys = [example["key"] for example in examples]
        if self.image_features is not None:
            batch |= {"image_features": self.image_features(keys), "image_cut": self.image_cut}
        for prefix, features in self.teacher_images.items():
            batch |= {f"{prefix}image_features": features(keys), f"{prefix}image_cut": OUTPUT}
        return batch

    def _add(self, batch: dict[str, Any], name: str, texts: list[str], student: bool = True) -> None:
        for prefix, source in {"": self.text if student else None, **self.teacher_text}.items():
            if source is not None:
                batch |= {f"{prefix}{name}_{key}": value for key, value in source(texts).items()}


@dataclass
class EvalExample:
    """Makes an evaluation example: the plain picture and every caption of the wanted languages.

    Attributes:
        preprocess: Of the image encoder; None leaves pictures out.
        languages: Wanted languages; None wants all.
        first: Only the first caption of each language.
        needs_caption: Refuse samples without any wanted caption.
    """

    preprocess: ImagePreprocess | None
    languages: Sequence[str] | None = None
    first: bool = False
    needs_caption: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """Returns {key, texts: [(language, text)], image}."""
        texts = [
            (lang, text)
            for lang in (sample.captions if self.languages is None else self.languages)
            for text in (sample.captions.get(lang) or [])[: 1 if self.first else None]
        ]
        if self.needs_caption and not texts:
            wanted = "any language" if self.languages is None else ", ".join(self.languages)
            raise DataError(f"field 'captions': no caption in {wanted} (there are: {', '.join(sample.captions) or 'none'})")
        example: dict[str, Any] = {"key": sample.key, "texts": texts}
        if self.preprocess is not None:
            if not sample.images:
                raise DataError("field 'image': the sample has no picture")
            example["image"] = self.preprocess(sample.images[0])
        return example


def eval_collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Batch with `image` (B, 3, H, W), flat `texts` and `text_lang`, and `text_row` (N,), the row each text belongs to."""
    flat = [(row, lang, text) for row, example in enumerate(examples) for lang, text in example["texts"]]
    batch: dict[str, Any] = {
        "texts": [text for _, _, text in flat],
        "text_lang": [lang for _, lang, _ in flat],
        "text_row": torch.tensor([row for row, _, _ in flat], dtype=torch.long),
    }
    if "image" in examples[0]:
        batch["image"] = torch.stack([example["image"] for example in examples])
    return batch
