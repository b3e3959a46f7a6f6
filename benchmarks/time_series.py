"""Windows, inference and memory of forecasting models: `python benchmarks/time_series.py [--quick] [--device cuda]`.

- windows: our loader against a map-style data set that slices one window per item under torch's `DataLoader`, the way the
  Time-Series-Library reads data, on the same training windows of ETTh1.
- inference: CALF as it is trained and in its slim form (`modalign export --to inference`): parameters, size on disk, latency.
- precision: a training step's forward and backward pass in float32 and in bfloat16 where Lightning's `bf16-mixed` uses it.
- memory: the highest resident memory of a process that trains one step of a shipped recipe, at some batch sizes.

Writes benchmarks/results/time_series.json and .md. MODALIGN_DATA says where ETTh1.csv is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import RESULTS, interleaved, ratio, where
from torch.utils.data import DataLoader, Dataset

from modalign import zoo
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.loader import WindowLoader
from modalign.datasets.series.scale import fit_scale
from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.windows import Columns, WindowSet
from modalign.trainers import load_recipe, train
from modalign.trainers.build import build_family
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import ModalignError
from modalign.zoo.series.description import SeriesDescription

LOOK_BACK, HORIZON, LABEL = 96, 96, 48
THEIRS = "one window per item, DataLoader"
#: recipe, batch size
MEMORY = [("dlinear/etth1", 32), *((recipe, size) for recipe in ("calf/etth1", "fsca/etth1") for size in (32, 256))]


class ItemWindows(Dataset):
    """One window per item: past, future with the last `label` steps of the past before it, and the time features of both.

    Args:
        rows: (R, C), scaled, float64 as a standard scaler leaves them.
        times: (R,) of the rows.
        label: Steps of the past that the future begins with; the Time-Series-Library's default is 48.
    """

    def __init__(self, rows: np.ndarray, times: np.ndarray, label: int = LABEL) -> None:
        hours = times.astype("datetime64[h]").astype(np.int64)
        days = times.astype("datetime64[D]")
        in_month = (days - days.astype("datetime64[M]")).astype(np.int64)
        in_year = (days - days.astype("datetime64[Y]")).astype(np.int64)
        parts = (hours % 24 / 23, hours // 24 % 7 / 6, in_month / 30, in_year / 365)
        self.rows, self.marks, self.label = rows, np.stack(parts, axis=1) - 0.5, label

    def __len__(self) -> int:
        return len(self.rows) - LOOK_BACK - HORIZON + 1

    def __getitem__(self, start: int) -> tuple[np.ndarray, ...]:
        now = start + LOOK_BACK
        past, future = slice(start, now), slice(now - self.label, now + HORIZON)
        return self.rows[past], self.rows[future], self.marks[past], self.marks[future]


def cpu_seconds() -> float:
    """Processor time of this process and of its finished workers."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime


def windows_table(series: SeriesSet, quick: bool) -> list[dict[str, Any]]:
    """Samples per second of processor time of both ways, at two batch sizes."""
    scale = fit_scale([series], series.columns, "ett_hour")
    settings = {"part": "train", "look_back": LOOK_BACK, "horizon": HORIZON}
    ours = WindowSet(series, SeriesConfig(split="ett_hour"), Columns(series.columns), scale, **settings)
    mean, std = np.array(list(scale.values())).T
    items = ItemWindows((series.series[0].values[:8640] - mean) / std, series.series[0].times()[:8640])
    assert len(items) == len(ours) == 8449
    first = [torch.as_tensor(array).float() for array in items[5]]
    assert torch.equal(ours.batch([5])["values"][0], first[0]) and torch.equal(ours.batch([5])["target"][0], first[1][LABEL:])
    rows = []
    for size in (32, 256):
        rates = interleaved(loader_ways(ours, items, size, quick), 2 if quick else 7, cpu_seconds)
        rows += [
            {"batch": size, "way": name, "samples/s": round(median(values)), "ratio": f"{ratio(rates, name, THEIRS):.1f}"}
            for name, values in rates.items()
        ]
    return rows


def loader_ways(ours: WindowSet, items: ItemWindows, size: int, quick: bool) -> dict[str, Callable[[], int]]:
    """Ways to read an epoch (ours: several, for it is short); each returns how many windows it gave as float32."""
    epochs = 2 if quick else 10

    def gathered(workers: int) -> int:
        loader = WindowLoader([ours], BatchPlan([ours.shard_sizes], None, size, 0), num_workers=workers)
        found = sum(len(batch["values"]) for _ in range(epochs) for batch in loader)
        loader.close()
        return found

    def sliced(workers: int) -> int:
        loader = DataLoader(items, batch_size=size, shuffle=True, num_workers=workers, drop_last=True)
        found = 0
        for batch in loader:
            past, *_ = (part.float() for part in batch)
            found += len(past)
        return found

    ways: dict[str, Callable[[], int]] = {THEIRS: lambda: sliced(0)}
    if not quick:
        ways[f"{THEIRS}, 2 workers"] = lambda: sliced(2)
    return ways | {"modalign": lambda: gathered(0)}


def inference_table(quick: bool, device: str) -> list[dict[str, Any]]:
    """Size and latency of CALF whole, whole with both branches computed, and slim."""
    model = described(quick)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {}
        for name, one in (("whole", model), ("slim", model.export_inference())):
            save_release(one, Path(folder) / name, kind="full", card="")
            sizes[name] = sum(file.stat().st_size for file in (Path(folder) / name).rglob("*") if file.is_file())
        whole, slim = (zoo.load(Path(folder) / name, device).eval() for name in ("whole", "slim"))
    kinds = {
        "whole, both branches (as the authors' code runs it)": (whole, sizes["whole"], True),
        "whole": (whole, sizes["whole"], False),
        "slim": (slim, sizes["slim"], False),
    }
    rows = [
        {"form": name, "million parameters": f"{count(one) / 1e6:.1f}", "MB on disk": f"{size / 1e6:.1f}"}
        for name, (one, size, _) in kinds.items()
    ]
    for batch_size in (1, 32):
        values = torch.randn(batch_size, model.config.look_back, 7, device=device)
        forward = {name: forwards(one, values, both, 2 if quick else 20) for name, (one, _, both) in kinds.items()}
        rates = interleaved(forward, 2 if quick else 9, time.process_time if device == "cpu" else time.perf_counter)
        for row in rows:
            row[f"ms, batch {batch_size}"] = f"{1000 * median(1 / rate for rate in rates[row['form']]):.1f}"
    return rows


def described(quick: bool) -> Any:
    """CALF of the shipped recipe for the columns of ETTh1, untrained."""
    recipe = load_recipe("calf/etth1", SMALL if quick else {})
    model = build_family(recipe.model, "model")
    columns = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    model.describe(SeriesDescription(columns, frequency="h", scale={column: [0.0, 1.0] for column in columns}))
    return model


def precision_table(quick: bool, device: str) -> list[dict[str, Any]]:
    """Windows per second of forward and backward passes in both precisions."""
    model = described(quick).to(device).train()
    values = torch.randn(32, model.config.look_back, 7, device=device)

    def passes(enabled: bool) -> Callable[[], int]:
        def run() -> int:
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                outputs = model({"values": values})
            sum(outputs[name].float().abs().mean() for name in ("prediction", "text_prediction")).backward()
            if values.is_cuda:
                torch.cuda.synchronize()
            return len(values)

        return run

    clock = time.process_time if device == "cpu" else time.perf_counter
    rates = interleaved({"float32": passes(False), "bf16-mixed": passes(True)}, 2 if quick else 5, clock)
    return [
        {"precision": name, "windows/s": f"{median(found):.1f}", "ratio": f"{ratio(rates, name, 'float32'):.2f}"}
        for name, found in rates.items()
    ]


def forwards(model: Any, values: torch.Tensor, both: bool, times: int) -> Callable[[], int]:
    """Runs a model so many times; returns that number."""

    @torch.inference_mode()
    def run() -> int:
        model.both_branches = both
        for _ in range(times):
            model({"values": values})
        if values.is_cuda:
            torch.cuda.synchronize()
        return times

    return run


def count(model: Any) -> int:
    """Parameters and buffers that are saved, each once."""
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    return sum(tensors.values())


#: a tiny language model with random weights, to try the script out
SMALL = {
    "model.language": {
        "name": None,
        "architecture": {"model_type": "gpt2", "vocab_size": 600, "n_positions": 64, "n_embd": 48, "n_head": 4, "n_layer": 2}
        | {"bos_token_id": None, "eos_token_id": None},
        "blocks": 2,
    },
    "model.llm": "random",
    "model.dictionary": 20,
}


def memory_table(quick: bool, device: str) -> list[dict[str, Any]]:
    """Peak memory of one training step in a process of its own."""
    rows = []
    for recipe, size in MEMORY[:2] if quick else MEMORY:
        command = [sys.executable, __file__, "--one_step", recipe, str(size), "--device", device, *(["--quick"] if quick else [])]
        done = subprocess.run(command, capture_output=True, text=True)
        said = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"look-back": "", "MB": "does not fit"}
        print(recipe, size, said, done.stderr[-300:] if done.returncode else "", flush=True)
        rows.append({"recipe": recipe, "batch": size, **said})
    return rows


def one_step(recipe: str, size: int, quick: bool, device: str) -> None:
    """Trains a step of a recipe and prints what it took; leaves some of the machine's memory to others."""
    if device == "cpu" and sys.platform == "linux":
        free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        most = int(0.8 * int(free.split()[1]) * 1024)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        changes = {"run_dir": folder, "data.batch_size": size, "evaluate": None, "trainer.progress": False}
        changes |= {f"stages.forecast.{key}": value for key, value in {"steps": 1, "epochs": None, "validate": None}.items()}
        changes |= {"trainer.accelerator": "gpu" if device == "cuda" else "cpu"}
        changes |= SMALL if quick and "dlinear" not in recipe else {}
        loaded = load_recipe(recipe, changes)
        done = json.loads((train(loaded) / "stages" / "forecast" / "done.json").read_text())
    print(json.dumps({"look-back": loaded.model["look_back"], "MB": done["peak_megabytes"]}))


def ett() -> SeriesSet:
    """ETTh1.

    Raises:
        ModalignError: If it is not where MODALIGN_DATA points.
    """
    file = Path(os.environ.get("MODALIGN_DATA", "")) / "ett" / "ETTh1.csv"
    if not file.is_file():
        raise ModalignError(f"{file} is not there: set MODALIGN_DATA to the folder with ett/ETTh1.csv")
    return SeriesSet.open(str(file))


def markdown(content: dict[str, Any]) -> Iterator[str]:
    """The lines of the page."""
    yield from (f"# {content['title']}", "", f"`{content['command']}`", "")
    for name, about in ABOUT.items():
        rows = content[name]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        yield from (f"## {name.capitalize()}", "", about, "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns))
        yield from ("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows)
        yield ""
    yield from (f"- {key}: {value}" for key, value in content["facts"].items())


ABOUT = {
    "windows": (
        "The 8449 training windows of ETTh1, 96 steps and the 96 behind them, in random order, without the last incomplete batch. Samples "
        "per second of processor time, workers included; the ratio is the median over interleaved rounds. One window per item: a map-style "
        "data set returns slices of rows and time features, the DataLoader collates and the batch becomes float32, as in the "
        "Time-Series-Library; its workers are started for every epoch, as there. Ours gives values and targets; models here read no time "
        "features."
    ),
    "inference": (
        "CALF of the shipped recipe, 96 steps from 96 of seven channels, untrained. Medians over interleaved rounds; on a CPU of processor "
        "time on one thread."
    ),
    "precision": (
        "Forward and backward pass of CALF of the shipped recipe, 32 windows, both branches. On a CPU without instructions for bfloat16 it "
        "is far slower than float32, so nothing here is trained in it."
    ),
    "memory": (
        "The highest resident memory of a process that trains one step of a shipped recipe at a batch size, libraries and data included; "
        "on a GPU what was allocated on it."
    ),
}


def main() -> None:
    """Measures and writes the result files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller models, fewer rounds; writes no result files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--one_step", nargs=2, metavar=("RECIPE", "BATCH"), help="(used by itself) print the memory of one step")
    asked = parser.parse_args()
    if asked.one_step:
        one_step(asked.one_step[0], int(asked.one_step[1]), asked.quick, asked.device)
        return
    if asked.device == "cpu":
        torch.set_num_threads(1)
    command = "python benchmarks/time_series.py" + (" --device cuda" if asked.device == "cuda" else "")
    content = {
        "title": "Time series: windows, inference, precision, memory",
        "command": command,
        "windows": windows_table(ett(), asked.quick),
        "inference": inference_table(asked.quick, asked.device),
        "precision": precision_table(asked.quick, asked.device),
        "memory": memory_table(asked.quick, asked.device),
        "facts": where(("torch", "transformers", "lightning", "numpy")) | gpu(asked.device),
    }
    page = "\n".join([*markdown(content), ""])
    print(page)
    if not asked.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "time_series.json").write_text(json.dumps(content, indent=1) + "\n")
        (RESULTS / "time_series.md").write_text(page)


def gpu(device: str) -> dict[str, Any]:
    """The GPU, if one was used."""
    return {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}


if __name__ == "__main__":
    main()
