"""How fast raw samples come from local shards, against webdataset's fluent pipeline: `python benchmarks/shard_reading.py [--quick]`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import webdataset
from measure import interleaved, ratio, where, write
from photos import photos, samples

from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards

QUESTION = (
    "The bytes of all members (jpg, txt, json) of every sample, from the page cache, in one process without workers. Rates are samples "
    "per second of CPU time; the ratio is the median over interleaved rounds."
)
THEIRS = "webdataset, fluent pipeline"


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds; writes no result files")
    quick = parser.parse_args().quick
    per_shard, shards, rounds = (100, 2, 3) if quick else (500, 4, 15)
    pictures, what = photos(per_shard * shards, side=224)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shards"
        write_shards(samples(pictures), out, samples_per_shard=per_shard)
        source = ShardSet(out)
        source.verify()
        rates = interleaved(ways(source), rounds)
    size = sum(map(len, pictures)) / len(pictures)
    rows = [
        {"way": name, "samples/s": round(sorted(values)[len(values) // 2]), "to webdataset": f"{ratio(rates, name, THEIRS):.2f}"}
        for name, values in rates.items()
    ]
    facts = {"data": f"{what}, {len(pictures)} samples in {shards} shards, {size / 1000:.1f} kB each", "rounds": rounds}
    facts |= where(("webdataset", "numpy"))
    if quick:
        print("\n".join(map(str, rows)))
    else:
        write("shard_reading", "Reading local shards", QUESTION, "python benchmarks/shard_reading.py", rows, facts)


def ways(source: ShardSet) -> dict[str, Callable[[], int]]:
    """Ways to read every sample once; each returns how many there were."""
    order = BatchPlan([source.shard_sizes], None, 1, 0).epoch(0)[1].tolist()
    tars = [str(source.shard_path(shard)) for shard in range(len(source.shard_sizes))]

    def ours(numbers: list[int]) -> int:
        return sum(len(source.read(number).members) == 3 for number in numbers)

    def theirs(shuffle: int) -> int:
        pipeline = webdataset.WebDataset(tars, shardshuffle=False)
        return sum("jpg" in sample for sample in (pipeline.shuffle(shuffle) if shuffle else pipeline))

    return {
        THEIRS: lambda: theirs(0),
        "webdataset, shuffle(500)": lambda: theirs(500),
        "modalign, in order": lambda: ours(list(range(len(source)))),
        "modalign, shuffled over all shards": lambda: ours(order),
    }


if __name__ == "__main__":
    main()
