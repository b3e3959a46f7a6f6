"""`modalign data bench`: how fast samples come, step by step of their way, against webdataset's own pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

from ..decoding.sample import Sample, decode_sample
from ..loading.loader import Loader
from ..loading.plan import BatchPlan
from ..remote.access import remote_of
from ..shards.shard_set import ShardSet

Step = Callable[[int], Iterator[Any]]


def bench(
    shards: str,
    *,
    n: int = 2000,
    size: int = 224,
    batch_size: int = 64,
    num_workers: int = 0,
    rounds: int = 3,
    allow_remote: list[str] | None = None,
) -> dict[str, float]:
    """Measures samples per second of each step and prints a table.

    The steps are run in turns, several rounds, and the best round counts: other work on the machine makes a step slower,
    never faster. Read the ratios rather than the absolute numbers.

    Args:
        shards: The folder of shards.
        n: Samples per step and round (at most what there is).
        size: Pictures are resized to this many pixels a side in the transform step.
        batch_size: Samples of a batch.
        num_workers: Worker processes of the last step.
        rounds: Rounds.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.

    Returns:
        ``{step: samples per second}``.

    Raises:
        DataError: If the set has fewer than two batches of samples.
    """
    source = ShardSet(shards, remote=remote_of(allow_remote))
    source.verify()
    if min(n, rounds, batch_size) < 1 or len(source) < batch_size:
        raise DataError(f"{source.folder}: {len(source)} samples do not make a batch of {batch_size}; give a smaller batch_size")
    n = min(n, len(source))
    numbers = BatchPlan([source.shard_sizes], None, 1, 0).epoch(0)[1].tolist()
    steps = {
        "read, in order": lambda: _count(source.read(number) for number in range(n)),
        "read, shuffled": lambda: _count(source.read(number) for number in numbers[:n]),
        "+ decode": lambda: _count(decode_sample(source.read(number)) for number in numbers[:n]),
        "+ transform": lambda: _count(_transform(decode_sample(source.read(number)), size) for number in numbers[:n]),
        f"+ batch ({num_workers} workers)": _loading(source, n, size, batch_size, num_workers),
        "webdataset, read": lambda: _count(_webdataset(source, n, decode=False)),
        "webdataset, + decode": lambda: _count(_webdataset(source, n, decode=True)),
    }
    rates = dict.fromkeys(steps, 0.0)
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            count = step()
            rates[name] = max(rates[name], count / (time.perf_counter() - start))
    _print(source, rates)
    return rates


def _count(items: Iterator[Any]) -> int:
    return sum(1 for _ in items)


def _transform(sample: Sample, size: int) -> np.ndarray:
    """Resizes the first image to (size, size, 3) uint8: the least that every image model needs."""
    if not sample.images:
        return np.zeros(0, dtype=np.uint8)
    return np.asarray(sample.images[0].resize((size, size)))


def _loading(source: ShardSet, n: int, size: int, batch_size: int, num_workers: int) -> Callable[[], int]:
    """The whole way, through `Loader`; the workers are started before the clock is."""
    plan = BatchPlan([source.shard_sizes], None, batch_size, 0)

    def example(sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        return {"image": _transform(sample, size)}

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        return {"images": torch.from_numpy(np.stack([example["image"] for example in examples]))}

    loader = Loader([source], plan, example, collate, num_workers=num_workers)
    for _ in loader:
        break

    def run() -> int:
        loader.seek(0, 0)
        count = 0
        for batch in loader:
            count += len(batch["keys"])
            if count >= n:
                break
        return count

    return run


def _webdataset(source: ShardSet, n: int, decode: bool) -> Iterator[Any]:
    """The fluent pipeline over the same tars, in their order."""
    from itertools import islice

    import webdataset

    tars = [str(source.shard_path(shard)) for shard in range(len(source.shard_sizes))]
    pipeline = webdataset.WebDataset(tars, shardshuffle=False)
    return islice(iter(pipeline.decode("pil") if decode else pipeline), n)


def _print(source: ShardSet, rates: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{source.folder.name}: samples per second")
    table.add_column("step")
    table.add_column("samples/s", justify="right")
    table.add_column("to webdataset, read", justify="right")
    base = rates["webdataset, read"]
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{rate / base:.2f}x")
    Console(markup=False).print(table)
