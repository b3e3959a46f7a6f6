"""`modalign data show`: look at the data."""

from __future__ import annotations

from dataclasses import replace

from modalign.zoo.errors import DataError

from ..decoding.sample import Sample, decode_sample
from ..loading.order import permutation
from ..remote.access import remote_of
from ..series.sketch import described, sketch
from ..series.stored import TASK as SERIES
from ..series.stored import checked_series
from ..shards.shard_set import RawSample, ShardSet
from .sheet import contact_sheet, sheet_path


def show(
    shards: str,
    out: str = "",
    n: int = 16,
    *,
    lang: str = "",
    seed: int = -1,
    allow_remote: list[str] | None = None,
) -> None:
    """Draws samples with their captions on a contact sheet and prints the captions.

    Args:
        shards: The folder of shards.
        out: Path of the PNG; default contact_sheet.png, or the next free of contact_sheet-2.png, contact_sheet-3.png ...
        n: How many samples.
        lang: Show captions of this language only; else the primary caption and the language of each.
        seed: -1: the first samples; else a random choice with this seed.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.

    Raises:
        DataError: If `out` is no .png, a sample cannot be decoded, has no image, or no sample has captions of that language.
    """
    sheet = sheet_path(out, "contact_sheet.png")
    source = ShardSet(shards, remote=remote_of(allow_remote))
    if n < 1:
        raise DataError(f"n is {n}; at least one sample must be shown")
    numbers = range(len(source)) if seed < 0 else permutation(len(source), "show", seed).tolist()
    samples: list[Sample] = []
    for number in numbers:
        raw = source.read(number)
        sample = decode_sample(raw)
        if source.manifest.task == SERIES:
            sample = _sketched(raw, sample)
        if not lang or lang in sample.captions:
            samples.append(sample)
        if len(samples) == n:
            break
    if not samples:
        known = ", ".join(source.manifest.schema.get("languages", {}))
        raise DataError(f"{source.folder}: no sample has a caption in {lang!r}; languages: {known}")
    for sample in samples:
        if not sample.images:
            raise DataError(f"{source.folder}: sample {sample.key!r} has no image to show")
    captions = [_caption(sample, lang) for sample in samples]
    title = f"{source.folder.name}: {len(samples)} of {len(source)} samples"
    path = contact_sheet([sample.images[0] for sample in samples], captions, sheet, title)
    for sample, caption in zip(samples, captions, strict=True):
        print(f"{sample.key}: {caption}")
    print(f"written: {path}")


def _sketched(raw: RawSample, sample: Sample) -> Sample:
    """A series as a picture of its columns and a line about it."""
    series = checked_series(raw, sample)
    return replace(sample, key=series.key, images=[sketch(series)], captions=sample.captions or {"": [described(series)]})


def _caption(sample: Sample, lang: str) -> str:
    language = lang or next(iter(sample.captions), "")
    texts = sample.captions.get(language, [""])
    more = sum(len(others) for others in sample.captions.values()) - 1
    return (f"[{language}] " if language else "") + texts[0] + (f" (+{more})" if more > 0 else "")
