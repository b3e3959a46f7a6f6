"""A small table of hourly values, and a tiny recipe of every family that forecasts."""

import copy
import csv
import os
import runpy
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 64, "n_embd": 24, "n_head": 2, "n_layer": 3}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
CALF = {"family": "calf", "llm": "random", "heads": 2, "ffn": 32, "dictionary": 8, "lora": {"rank": 2, "alpha": 4}}
CALF_LOSSES = {
    "series_error": {"kind": "l1"},
    "output_consistency": {"distance": "l1"},
    "layerwise_alignment": {"distance": "l1", "weight": 0.01},
}
CALF_ROLES = {"encoder": 1e-3, "projector": 1e-3, "adapter": 1e-3, "language": 1e-3, "head": 1e-3, "aux": 1e-4}
FSCA = {
    "family": "fsca",
    "llm": "random",
    "patch_size": 6,
    "stride": 6,
    "fine_points": [0, 2],
    "coarse_points": [0],
    "read_width": 8,
    "coarse_width": 4,
    "prompt_ids": [3, 1, 4],
}
FSCA_ROLES = {"encoder": 1e-3, "projector": 1e-3, "language": 1e-3, "head": 1e-3}


def language(architecture):
    return {"name": None, "architecture": architecture, "blocks": 2}


#: name -> (model, roles, losses)
FAMILIES = {
    "dlinear": ({"family": "dlinear", "kernel": 5}, {"head": 5e-3}, {"series_error": {"kind": "mse"}}),
    "patchtst": (
        {"family": "patchtst", "patch_size": 6, "stride": 3, "width": 8, "layers": 1, "heads": 2, "ffn": 16},
        {"encoder": 1e-3, "head": 1e-3},
        {"series_error": {"kind": "mse"}},
    ),
    "calf-gpt2": (CALF | {"language": language(GPT2)}, CALF_ROLES, CALF_LOSSES),
    "calf-llama": (CALF | {"language": language(LLAMA), "head": "quantile"}, CALF_ROLES, CALF_LOSSES | {"pinball": {}}),
    "fsca-gpt2": (FSCA | {"language": language(GPT2)}, FSCA_ROLES, {"series_error": {"kind": "mse"}}),
    "fsca-llama": (FSCA | {"language": language(LLAMA)}, FSCA_ROLES, {"series_error": {"kind": "mse"}}),
}


def write_table(
    path, rows=400, columns=("load", "wind", "price"), seed=0, start=datetime(2023, 2, 27), gaps=0.0, series=("",), hours=1
):
    """Writes a CSV of waves with noise: a day's and a slower one, another level and size in every column."""
    rng = np.random.default_rng(seed)
    with Path(path).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(["shop"] if len(series) > 1 else []), "time", *columns])
        for number, name in enumerate(series):
            steps = np.arange(rows)[:, None]
            place = np.arange(len(columns)) + number
            values = np.sin(2 * np.pi * steps / 24 + place) + 0.5 * np.sin(steps / 40 + 2 * place)
            values = (values + 0.2 * rng.normal(size=values.shape)) * 10.0 ** (place % 3) + 50 * place
            missing = rng.random(values.shape) < gaps
            for row in range(rows):
                cells = ["" if missing[row, c] else f"{values[row, c]:.6g}" for c in range(len(columns))]
                writer.writerow(
                    [*([name] if len(series) > 1 else []), (start + timedelta(hours=hours * row)).isoformat(" "), *cells]
                )
    return Path(path)


@pytest.fixture(scope="session")
def make_table():
    """`write_table`."""
    return write_table


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """400 hours of three columns."""
    return write_table(tmp_path_factory.mktemp("table") / "town.csv")


@pytest.fixture(scope="session")
def recipe_of():
    """(family, table, run folder, settings of the stage) -> plain values of a recipe with one stage."""

    def made(family, table, run_dir, **stage):
        model, roles, losses = copy.deepcopy(FAMILIES[family])
        settings = {"train": roles, "losses": losses, "epochs": 2, "weight_decay": 0.0, "validate": {}} | stage
        return {
            "title": f"tiny {family}",
            "model": {"look_back": 24, "horizon": 6} | model,
            "data": {"train": str(table), "batch_size": 32, "series": {"stride": 2}},
            "stages": {"forecast": settings},
            "trainer": {"accelerator": "cpu", "progress": False, "log_every": 1, "checkpoint_every": 3, "record_samples": True},
            "run_dir": str(run_dir),
        }

    return made


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two gloo ranks; `run(file, function, *arguments)` gives what the function returns on each."""
    module = runpy.run_path(str(Path(__file__).parents[2] / "zoo" / "losses" / "conftest.py"))
    ranks = module["Ranks"](2, tmp_path_factory.mktemp("series_ranks") / "store")
    yield ranks
    ranks.stop()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def ett_file():
    """ETTh1.csv; tests that need it are skipped where it is absent."""
    data = Path(os.environ.get("MODALIGN_DATA") or ROOT / ".." / "shared" / "data")
    path = data / "ett" / "ETTh1.csv"
    if not path.is_file():
        pytest.skip("ETTh1.csv is not in ../shared/data/ett nor in MODALIGN_DATA/ett")
    return path
