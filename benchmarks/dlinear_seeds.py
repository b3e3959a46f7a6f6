"""DLinear on ETTh1 with ten seeds, by both ways to choose its epoch: `python benchmarks/dlinear_seeds.py [--seeds 10]`.

The baseline beside every forecast is itself a trained model; this says how far its error depends on the seed, and on whether the epoch
with the best validation error is taken or the last. Writes benchmarks/results/dlinear_seeds.json and .md. MODALIGN_DATA says where
ETTh1.csv is.
"""

from __future__ import annotations

import argparse
from statistics import mean, median

import torch
from measure import where, write
from time_series import ett

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.scale import fit_scale
from modalign.datasets.series.windows import Columns, WindowSet
from modalign.trainers.series.dlinear_baseline import Select, fit_dlinear, mse_of
from modalign.zoo.series.description import SeriesDescription

LOOK_BACK, HORIZON = 96, 96


def errors(select: Select, seeds: int) -> list[float]:
    """MSE on the test part, one per seed."""
    series = ett()
    columns = list(series.columns)
    scale = fit_scale([series], columns, "ett_hour")
    description = SeriesDescription(columns, frequency="h", scale=scale)
    settings = {"look_back": LOOK_BACK, "horizon": HORIZON}
    parts = {
        part: WindowSet(series, SeriesConfig(split="ett_hour"), Columns(tuple(columns)), scale, part=part, **settings)
        for part in ("train", "val", "test")
    }
    return [mse_of(fit_dlinear(parts["train"], parts["val"], description, seed, select), parts["test"]) for seed in range(seeds)]


def main() -> None:
    """Fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    ways: tuple[Select, ...] = ("best", "last")
    for select in ways:
        found = errors(select, asked.seeds)
        row = {"epoch": select, "seeds": len(found), "mean": mean(found), "median": median(found), "least": min(found)}
        rows.append(
            {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in (row | {"most": max(found)}).items()}
        )
    write(
        "dlinear_seeds",
        "DLinear's error by seed",
        f"MSE of scaled values on all test windows of ETTh1, {HORIZON} hours from {LOOK_BACK}, over seeds 0 to {asked.seeds - 1}: weights "
        "of the epoch with the best error on the validation part, stopping after three without a better one, or of the last of ten epochs.",
        "python benchmarks/dlinear_seeds.py",
        rows,
        where(("torch", "numpy")),
    )


if __name__ == "__main__":
    main()
