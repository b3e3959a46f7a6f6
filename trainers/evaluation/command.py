"""`modalign eval`: what a model is worth on a set of shards, as one JSON."""

from __future__ import annotations

import json as json_lib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

from modalign.datasets.remote.access import remote_of
from modalign.datasets.shards import ShardSet
from modalign.zoo.checkpoints.durable import write_text
from modalign.zoo.errors import RecipeError

from ..caches import text_vectors
from ..console import console, print_table, track
from ..data_kind import CALLED, DIALOGUE, SERIES
from ..device import pick_device
from ..dialogue.opening import dialogue_subject
from ..kinds import kind_of
from ..parallel.rank import global_rank
from ..series.opening import series_subject
from ..series.table_words import table_words
from .task import Subject
from .tasks import TASKS, build_task
from .vectors import Features


def evaluate(
    model: str,
    data: str,
    task: str | None = None,
    json: str | None = None,
    languages: list[str] | None = None,
    num_workers: int = 0,
    device: str = "auto",
    allow_remote: list[str] | None = None,
    cache: bool = False,
    first_caption: bool | None = None,
    dim: int | None = None,
    recall: Literal["hit", "true"] | None = None,
    detailed: bool | None = None,
    label: str | None = None,
    classes: str | None = None,
    templates: str | None = None,
    neighbours: int | None = None,
    sigma: float | None = None,
    most_pairs: int | None = None,
    pivot: str | None = None,
    train_data: str | None = None,
    neighbourhood: int | None = None,
    stay: float | None = None,
    least_pairs: int | None = None,
    layers: int | None = None,
    ask: Literal["conversations", "captions", "regions", "fields"] | None = None,
    question: str | None = None,
    suffix: str | None = None,
    max_new_tokens: int | None = None,
    beams: int | None = None,
    limit: int | None = None,
    shuffled: bool | None = None,
    per_picture: int | None = None,
    split: str | dict[str, Any] | None = None,
    part: Literal["test", "val", "train"] | None = None,
    horizon: int | None = None,
    seasons: list[int] | None = None,
    dlinear: int | None = None,
    dlinear_select: Literal["last", "best"] | None = None,
    ratio: float | None = None,
    season: int | None = None,
    mask_rate: float | None = None,
    anomaly: str | None = None,
    target: list[str] | None = None,
    past: list[str] | None = None,
    known: list[str] | None = None,
    time: str | None = None,
    id: str | None = None,
    layout: Literal["wide", "long"] | None = None,
    frequency: str | None = None,
    ignore: list[str] | None = None,
    missing: list[str] | None = None,
    time_format: str | None = None,
) -> None:
    """Measures a model on shards and prints a table.

    Under torchrun the ranks share the work, with the result of one process.

    Args:
        model: A run folder, a release or a name.
        data: Shards: a folder or asset:NAME/SPLIT. For time series also a table, CSV or Parquet.
        task: What to measure: retrieval, zeroshot, alignment, crosslingual; for time series forecast, imputation, anomaly,
            classification or short_term; for conversations caption, vqa, grounding or pope. Default what the model is for.
        json: Write the result here too.
        languages: Caption languages; default all.
        num_workers: Worker processes that decode pictures.
        device: Where to compute: cpu, cuda, cuda:1, mps; default the fastest there is.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.
        cache: Keep the text encoder's vectors of all captions beside the shards, and use those that are there.
        first_caption: (retrieval) Only the first caption of each language.
        dim: (retrieval) Only the first values of every vector (Matryoshka).
        recall: (retrieval) hit: any caption of a picture in the top K; true: the share of them.
        detailed: (retrieval) Add mean and median rank, MRR, mAP and nDCG.
        label: (zeroshot) Field of KEY.json with a picture's class; default label.
        classes: (zeroshot) A file of class names {label: name or {language: name}}, or captions; default the labels themselves.
        templates: (zeroshot) imagenet, simple, name, or a file of sentences with {}; default imagenet.
        neighbours: (alignment) k of the mutual nearest neighbours; default 10.
        sigma: (alignment) Width of the RBF kernel; default 1.
        most_pairs: (alignment) Measure on so many pairs at most; default 4096.
        pivot: (crosslingual) Language that all others are compared with; default en.
        train_data: (crosslingual) Shards to fit the rotation on; default halves of the data itself. (classification) The training
            set, for a linear classifier beside the model. (conversations) The training set, for baselines that learn from it.
        neighbourhood: (crosslingual) CSLS's k; default 10.
        stay: (crosslingual) Weight of not turning, for few pairs; default 1e-6.
        least_pairs: (crosslingual) Leave out languages with fewer pairs; default 10.
        layers: (crosslingual) Also MEXA of each layer, on so many pairs; the paper takes 100.
        ask: (vqa) What is asked of a sample: its conversations or the fields of a document; default what there is.
        question: (caption, grounding, vqa) What the user says, with {phrase} or {field}; default as the model was trained.
        suffix: (conversations) Put behind the user's first words.
        max_new_tokens: (conversations) Most tokens of an answer.
        beams: (conversations) Beams of the search; default 1, the likeliest token each time.
        limit: (conversations) Only so many questions, the first ones.
        shuffled: (conversations) Ask every question of another picture too; default true.
        per_picture: (pope) Questions of each answer and picture; default 3.
        split: (pope) random, popular or adversarial: how absent things are chosen. (time series) Rows of train, val and test:
            ett_hour, none, `{train: 0.7, val: 0.1, test: 0.2}` or dates; default as the model was trained. A scaler is fitted on the
            training rows of the data given; with none the model's own is used.
        part: (time series) Which part to measure; default test.
        horizon: (forecast) Only the first so many steps.
        seasons: (forecast) Seasons of the seasonal naive forecast, in steps.
        dlinear: (forecast) So many fits of DLinear beside the model; default 1.
        dlinear_select: (forecast) DLinear's weights of the last epoch, or of the best on the validation part.
        ratio: (anomaly) Share of rows taken to be anomalous, in percent; default 1.
        season: (short_term) Season of MASE's scale and of the seasonal naive forecast, in steps.
        mask_rate: (imputation) Share of the values that are hidden; default 0.25.
        anomaly: (anomaly) Column that marks anomalous rows by a number above 0.
        target: (time series) Columns to predict; default the model's where the data have them, else all.
        past: (time series) Past covariates.
        known: (time series) Known-future covariates.
        time: (time series) Column of a table with the times.
        id: (time series) Column of a table that tells series apart.
        layout: (time series) Whether a table is wide or long.
        frequency: (time series) Step between rows, such as h or 15min.
        ignore: (time series) Columns of a table to leave out, such as texts.
        missing: (time series) Further texts of a table that stand for a missing value.
        time_format: (time series) How a table writes times, such as %d/%m/%Y.
    """
    asked = {key: value for key, value in locals().items() if value is not None and key not in _OURS}
    from modalign import zoo

    with _process_group(pick_device(device)) as (own_device, ranks):
        loaded = zoo.load(model, own_device)
        kind = kind_of(loaded)
        task = task or (loaded.config.task if kind.name == SERIES else kind.task)
        _check_kind(task, kind.name, loaded)
        if kind.name == SERIES:
            settings = {key: asked.pop(key) for key in _SERIES if key in asked}
            measure = build_task(task, asked, f"--task {task}")
            with table_words(recipe=False):
                subject: Any = series_subject(loaded, model, data, settings, allow_remote, over_ranks=ranks > 1)
        elif kind.name == DIALOGUE:
            settings = {key: asked.pop(key) for key in _DIALOGUE if key in asked}
            measure = build_task(task, asked, f"--task {task}")
            subject = dialogue_subject(loaded, model, data, settings, allow_remote, over_ranks=ranks > 1)
        else:
            measure = build_task(task, asked, f"--task {task}")
            open_set = partial(ShardSet, remote=remote_of(allow_remote))
            shards = open_set(data)
            features = Features(text=text_vectors(loaded.text, [shards], languages)) if cache else Features()
            subject = Subject(loaded, model, shards, data, features, num_workers, track, over_ranks=ranks > 1, open=open_set)
        with table_words(recipe=False) if kind.name == SERIES else nullcontext():
            report = measure.measure(subject)
    if global_rank() > 0:
        return
    print_report(report)
    if json:
        write_json(Path(json), report)
        console.print(f"written: {json}")


_TABLE = ("time", "id", "layout", "frequency", "ignore", "missing", "time_format")
_DIALOGUE = ("ask", "suffix", "languages")
_SERIES = ("mask_rate", "anomaly", "split", "target", "past", "known", *_TABLE)


def _check_kind(task: str, kind: str, model: Any) -> None:
    """Refuses to measure a model by what is for another kind of data.

    Raises:
        RecipeError: Naming the tasks there are for it.
    """
    if TASKS.get(task).kind != kind:
        fitting = ", ".join(name for name in TASKS.names() if TASKS.get(name).kind == kind)
        raise RecipeError(
            f"--task {task}: this {model.family} is a model of {CALLED[kind]}; what can be measured of it is {fitting}"
        )


_OURS = ("model", "data", "task", "json", "num_workers", "device", "allow_remote", "cache")


@contextmanager
def _process_group(device: str) -> Iterator[tuple[str, int]]:
    """Joins the processes torchrun started, if any; gives this process's device and how many there are."""
    import os

    import torch
    import torch.distributed as dist

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_initialized() or ranks == 1:
        yield device, dist.get_world_size() if dist.is_initialized() else 1
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device, ranks
    finally:
        dist.destroy_process_group()


def print_report(report: Mapping[str, Any]) -> None:
    """The tables of one evaluation."""
    for table in TASKS.get(report["task"]).tables(report):
        print_table(table.title, table.header, table.rows)


def write_json(path: Path, values: Any) -> None:
    """Writes indented UTF-8 JSON, all or nothing, making the folder if need be."""
    write_text(path, json_lib.dumps(values, indent=2, ensure_ascii=False) + "\n")
