"""How soon a run that resumes at the end of an epoch of a million samples has a batch: `python benchmarks/resume_seek.py [--quick]`."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from measure import where, write

from modalign.datasets.shards.index import ShardIndex, write_index
from modalign.datasets.shards.manifest import Manifest, ShardInfo, write_manifest

QUESTION = (
    "A synthetic set: member indexes and manifest of a million samples in 1,000 shards, whose tars are files of the right "
    "size without content; what is read of a sample is its caption. Each line is a fresh process, timed from the call that "
    "opens the set to the first batch of 256 at the last position of epoch 3 (wall clock, without imports): opening, "
    "planning, seeking, reading. 'Skipping samples' is how a reader without random access gets there: it reads what comes "
    "before; its time is that of 20,000 samples, scaled to the million. Memory is what the process grew by."
)
SHARDS, PER_SHARD, BATCH = 1000, 1000, 256

CHILD = """
import json, resource, sys, time
import numpy, torch
from torch.utils.data import DataLoader
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
folder, way, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
source = ShardSet(folder, verify=False)
opened = time.perf_counter() - start
plan = BatchPlan([source.shard_sizes], None, batch, 0)
loader = Loader([source], plan, lambda sample, rng: {"n": len(sample.members["txt"])}, lambda rows: {}, fields=["txt"], raw=True)
if way == "seek":
    loader.seek(3, len(loader) - 1)
    assert len(next(iter(loader))["keys"]) == batch
    seconds = time.perf_counter() - start
else:
    count, first = 20_000 // batch, time.perf_counter()
    for number, _ in enumerate(loader):
        if number + 1 == min(count, len(loader)):
            break
    seconds = opened + (time.perf_counter() - first) / (number + 1) * len(loader)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"seconds": seconds, "opened": opened, "MB": grown}))
"""


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 shards, one round; writes no result files")
    quick = parser.parse_args().quick
    shards, rounds = (50, 1) if quick else (SHARDS, 7)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), shards)
        first = measured(folder, "seek")
        found = [(measured(folder, "seek"), measured(folder, "skip")) for _ in range(rounds)]
    rows = [
        row("first time the set is opened (all indexes checked)", [first]),
        row("resume at the end of an epoch", [seek for seek, _ in found]),
        row("skipping samples", [skip for _, skip in found]),
    ]
    ratio = median(skip["seconds"] / seek["seconds"] for seek, skip in found)
    facts = {
        "samples": shards * PER_SHARD,
        "shards": shards,
        "skipping to seeking": f"{ratio:.0f}x",
        "rounds": rounds,
        **where(("numpy", "torch")),
    }
    if quick:
        print("\n".join(map(str, [*rows, facts])))
    else:
        write("resume_seek", "Resuming at the end of an epoch", QUESTION, "python benchmarks/resume_seek.py", rows, facts)


def row(name: str, values: list[dict]) -> dict:
    """One line of the table: medians."""
    return {
        "way": name,
        "first batch, s": f"{median(value['seconds'] for value in values):.2f}",
        "of it opening, s": f"{median(value['opened'] for value in values):.2f}",
        "memory, MB": round(median(value["MB"] for value in values)),
    }


def measured(folder: str, way: str) -> dict:
    """Runs one way in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CHILD, folder, way, str(BATCH)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def make(folder: Path, shards: int) -> None:
    """Writes indexes and manifest; the tars are holes of the right size."""
    offsets = np.arange(3 * PER_SHARD, dtype=np.int64).reshape(PER_SHARD, 3) * 4096 + 512
    sizes = np.full((PER_SHARD, 3), 60, dtype=np.int64)
    infos = []
    for shard in range(shards):
        path = folder / f"{shard:06d}.tar"
        with open(path, "wb") as stream:
            stream.truncate(3 * PER_SHARD * 4096 + 10240)
        info = ShardInfo(path.name, PER_SHARD, path.stat().st_size, hashlib.sha256(path.name.encode()).hexdigest())
        keys = [f"{shard:06d}-{row:04d}" for row in range(PER_SHARD)]
        write_index(path, ShardIndex(keys, ["jpg", "json", "txt"], offsets, sizes), info)
        infos.append(info)
    write_manifest(folder, Manifest("image-text", {"fields": {}, "languages": {}}, "synthetic", infos))


if __name__ == "__main__":
    main()
