"""Decoded and augmented pictures per second and core, against webdataset + PIL + timm: `python benchmarks/image_pipeline.py [--quick]`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from measure import interleaved, ratio, where, write
from photos import large_photos, mosaics, photos, samples
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation

from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.trainers.examples import CaptionChoice, PairCollate, PairExample
from modalign.zoo.encoders.image.preprocess import Augmentation, ImagePreprocess
from modalign.zoo.encoders.image.random_view import Box, draw_crop

QUESTION = (
    "From tar to a batch of 64 pictures of 224 px, one process, no workers, one torch thread; samples per second of CPU "
    "time, median over interleaved rounds. Theirs: webdataset's fluent pipeline, `decode('pil')`, timm's train transform "
    "(RandomResizedCrop bicubic, horizontal flip, ToTensor, Normalize; no colour jitter), `batched(64)`. Ours: the training "
    "path of `modalign train` (`Loader`, `PairExample`, `Augmentation`), whose batch is uint8; a last column normalises it "
    "on the same core, which a GPU does otherwise. Both cut the same crops and flip the same pictures; theirs gets them for "
    "nothing, ours draws them. The difference is the mean over all pixels of a picture, in 1/255."
)
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SIZE, BATCH, SEED, FLIP, RATIO = 224, 64, 0, 0.5, 4 / 3


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds; writes no result files")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    count, rounds = (128, 2) if quick else (640, 9)
    small, what = photos(count)
    sets = {what: small, "photographs at 512x384, enlarged": large_photos(count, 512, 384)}
    sets["photographs at 2048x1536, enlarged"] = large_photos(BATCH, 2048, 1536)
    sets["2048x1536, photographs side by side"] = mosaics(BATCH, 2048, 1536)
    rows = []
    for name, pictures in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            write_shards(samples(pictures), Path(folder) / "shards", samples_per_shard=250)
            rows += [row(name, ShardSet(Path(folder) / "shards"), scale, rounds) for scale in (0.08, 0.9)]
    facts = {"rounds": rounds, **where(("torch", "pillow", "timm", "torchvision", "webdataset"))}
    if quick:
        print("\n".join(map(str, rows)))
    else:
        write("image_pipeline", "From tars to augmented pictures", QUESTION, "python benchmarks/image_pipeline.py", rows, facts)


def row(name: str, source: ShardSet, scale: float, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    source.verify()
    loader = ours(source, scale)
    ways: dict[str, Callable[[], int]] = {
        "theirs": lambda: sum(len(batch) for batch, _ in theirs(source, loader.plan, scale)),
        "ours": lambda: run(loader, normalise=False),
        "ours, normalised": lambda: run(loader, normalise=True),
    }
    rates = interleaved(ways, rounds)
    middle = {way: sorted(values)[len(values) // 2] for way, values in rates.items()}
    difference = differences(source, loader, scale)
    return {
        "pictures": name,
        "crops keep": f"{scale:g} to 1",
        "webdataset + timm, samples/s": round(middle["theirs"]),
        "modalign, samples/s": round(middle["ours"]),
        "ratio": f"{ratio(rates, 'ours', 'theirs'):.2f}",
        "ratio, normalised too": f"{ratio(rates, 'ours, normalised', 'theirs'):.2f}",
        "difference, mean": f"{difference.mean():.2f}",
        "difference, worst picture": f"{difference.max():.2f}",
    }


def ours(source: ShardSet, scale: float) -> Loader:
    """The loader that a stage of a recipe has, for pictures alone."""
    example = PairExample(
        ImagePreprocess(SIZE, MEAN, STD), Augmentation(scale=scale, ratio=RATIO, flip=FLIP), CaptionChoice(None, "first", False)
    )
    plan = BatchPlan([source.shard_sizes], None, BATCH, SEED, drop_last=False)
    return Loader([source], plan, example, PairCollate(), fields=["json", "image"])


def run(loader: Loader, normalise: bool) -> int:
    """Reads an epoch; returns how many pictures it had."""
    count, mean, std = 0, torch.tensor(MEAN).view(3, 1, 1) * 255, torch.tensor(STD).view(3, 1, 1) * 255
    loader.seek(0, 0)
    for batch in loader:
        count += len((batch["image"].float() - mean) / std if normalise else batch["image"])
    return count


class GivenCrop(RandomResizedCropAndInterpolation):
    """timm's random crop, with crops that were drawn before."""

    box = Box(0, 0, 1, 1)

    def get_params(self, *args: Any) -> tuple[int, int, int, int]:
        """(top, left, height, width), as timm wants them."""
        return self.box.top, self.box.left, self.box.height, self.box.width


class GivenFlip(torch.nn.Module):
    """torchvision's random flip, decided before."""

    flip = False

    def forward(self, image: Any) -> Any:
        """The picture or its mirror image."""
        from torchvision.transforms.functional import hflip

        return hflip(image) if self.flip else image


def theirs(source: ShardSet, plan: BatchPlan, scale: float) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """(normalised pictures, keys) in the order of the tars."""
    transform = create_transform(
        (3, SIZE, SIZE),
        is_training=True,
        color_jitter=None,
        hflip=FLIP,
        interpolation="bicubic",
        scale=(scale, 1.0),
        mean=MEAN,
        std=STD,
    )
    crop, flip = GivenCrop(SIZE, (scale, 1.0), interpolation="bicubic"), GivenFlip()
    kinds = [type(step).__name__ for step in transform.transforms]
    assert kinds == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "MaybeToTensor", "Normalize"], kinds
    transform.transforms[:2] = [crop, flip]
    drawn = drawn_views(source, plan, scale)

    def augment(sample: dict[str, Any]) -> tuple[torch.Tensor, str]:
        crop.box, flip.flip = drawn[sample["__key__"]]
        return transform(sample["jpg"]), sample["__key__"]

    tars = [str(source.shard_path(shard)) for shard in range(len(source.shard_sizes))]
    return iter(webdataset.WebDataset(tars, shardshuffle=False).decode("pil").map(augment).batched(BATCH))


_DRAWN: dict[Any, dict[str, tuple[Box, bool]]] = {}


def drawn_views(source: ShardSet, plan: BatchPlan, scale: float) -> dict[str, tuple[Box, bool]]:
    """Key -> (crop, flip), drawn as our loader draws them: from (seed, epoch, place in the epoch)."""
    known = (source.fingerprint, scale)
    if known not in _DRAWN:
        from modalign.datasets.decoding.sample import decode_sample

        views = {}
        for draw in plan.draw_range(0, 0, plan.samples_per_epoch):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, 0, draw.draw])))
            sample = decode_sample(source.read(draw.sample), encoded=True)
            rng.integers(1)  # the caption's language is drawn first
            box = draw_crop(*sample.images[0].size, scale, RATIO, rng)
            views[sample.key] = box, bool(rng.random() < FLIP)
        _DRAWN[known] = views
    return _DRAWN[known]


def differences(source: ShardSet, loader: Loader, scale: float) -> np.ndarray:
    """Mean absolute difference of every picture, in 1/255."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    reference = {key: one for batch, keys in theirs(source, loader.plan, scale) for one, key in zip(batch, keys, strict=True)}
    loader.seek(0, 0)
    found = []
    for batch in loader:
        for one, key in zip(batch["image"], batch["keys"], strict=True):
            found.append(float((one.float() - (reference[key] * std + mean) * 255).abs().mean()))
    return np.array(found)


if __name__ == "__main__":
    main()
