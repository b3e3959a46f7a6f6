"""Series as samples of shards: `KEY.npy` holds the values, `KEY.json` everything else."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

from ..decoding.sample import Sample
from ..decoding.table import decode_array, decode_json
from ..remote.access import Remote
from ..sample_error import SampleError
from ..shards.manifest import Manifest
from ..shards.shard_set import RawSample, ShardSet
from ..shards.writer import write_shards
from .frequency import checked_frequency, grid
from .series_set import Series, SeriesSet
from .zones import is_zone

TASK = "series"
_MAX_KEY = 70


def sample_of(series: Series) -> dict[str, Any]:
    """A series as `write_shards` takes it; bit for bit what `series_of` gives back."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(series.values, dtype="<f8"), allow_pickle=False)
    key = key_of(series.key)
    fields: dict[str, Any] = {
        "columns": list(series.columns),
        "frequency": series.frequency,
        "start": None if series.start is None else str(series.start.astype("datetime64[us]")),
        "static": dict(series.static),
        "label": series.label,
    }
    if key != series.key:
        fields["name"] = series.key
    if series.zone is not None:
        fields["zone"] = series.zone
    return {"key": key, "members": {"npy": stream.getvalue()}, **fields}


def write_series(series: Sequence[Series], out: str | Path, *, source: str, samples_per_shard: int = 1000) -> Manifest:
    """Writes series as shards of the task "series", after checking that they make a set.

    Raises:
        DataError: If they do not, or the folder is not empty.
    """
    SeriesSet(series, str(out))
    return write_shards(map(sample_of, series), out, task=TASK, samples_per_shard=samples_per_shard, source=source)


def key_of(name: str) -> str:
    """The key of a series in shards: its name, or what of it a key can hold and a hash."""
    key = re.sub(r"[^\w\- ]+", "_", name).strip("_ ") or "series"
    if key == name and len(key.encode()) <= _MAX_KEY:
        return key
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return key.encode()[: _MAX_KEY - 11].decode("utf-8", "ignore") + "-" + digest


def read_shards(spec: str, remote: Remote | None = None) -> list[Series]:
    """Reads every series of shards.

    Raises:
        DataError: If they hold no series, or one is not as it should be (shard, sample and field are named).
    """
    shards = ShardSet(spec, remote=remote)
    if shards.manifest.task != TASK:
        raise DataError(
            f"{shards.store.name}: these shards hold {shards.manifest.task!r}, not series; pack a table with "
            "modalign data series TABLE --out SHARDS"
        )
    return [checked_series(raw) for raw in shards.samples(("npy", "json"))]


def checked_series(raw: RawSample, decoded: Sample | None = None) -> Series:
    """Decodes and checks the series of a sample.

    Args:
        raw: The sample as stored.
        decoded: The same, if it was decoded already.

    Raises:
        SampleError: Naming shard, sample and field.
    """
    field = "npy"
    try:
        if decoded is not None:
            values, content = decoded.extras["npy"], decoded.meta
        else:
            values = decode_array(raw.members["npy"])
            field = "json"
            content = decode_json(raw.members["json"])
        field = ""
        return series_of(raw.key, values, content)
    except KeyError as error:
        raise SampleError(raw.shard, raw.key, "", f"it has no field {error.args[0]!r}") from None
    except SampleError:
        raise
    except DataError as error:
        raise SampleError(raw.shard, raw.key, field, str(error)) from None


def series_of(key: str, values: np.ndarray, content: Any) -> Series:
    """Makes a series of a sample; nothing in it is trusted.

    Args:
        key: The sample's key.
        values: What `KEY.npy` holds.
        content: What `KEY.json` holds.

    Raises:
        DataError: Saying what is wrong.
    """
    if not isinstance(content, Mapping):
        raise DataError("it is no JSON object")
    columns = content.get("columns")
    if not isinstance(columns, list) or not columns or not all(isinstance(name, str) and name for name in columns):
        raise DataError("'columns' is not a list of names")
    if len(set(columns)) != len(columns):
        raise DataError("'columns' has the same name twice")
    if values.ndim != 2 or values.shape[1] != len(columns) or values.dtype.kind not in "fiub":
        raise DataError(
            f"the array is {values.shape} {values.dtype}; expected (rows, {len(columns)}) numbers, one column per name"
        )
    if not len(values):
        raise DataError("the array has no row")
    values = np.ascontiguousarray(values, dtype=np.float64)
    if np.isinf(values).any():
        raise DataError(f"column {columns[int(np.isinf(values).any(axis=0).argmax())]!r} has an infinite value")
    start, frequency = _time(content)
    name, label = content.get("name", key), content.get("label")
    if not isinstance(name, str) or not name or not (label is None or (isinstance(label, str) and label)):
        raise DataError("'name' and 'label' must be texts, not empty")
    zone = content.get("zone")
    if zone is not None and not (isinstance(zone, str) and start is not None and is_zone(zone)):
        raise DataError(f"'zone' is {zone!r}, which is no time zone such as Europe/Berlin or +02:00")
    return Series(name, values, tuple(columns), start, frequency, _static(content.get("static") or {}), label, zone)


def _time(content: Mapping[str, Any]) -> tuple[np.datetime64 | None, str | None]:
    start, frequency = content.get("start"), content.get("frequency")
    if start is None and frequency is None:
        return None, None
    if not isinstance(start, str) or not isinstance(frequency, str):
        raise DataError("'start' and 'frequency' must be texts, or both null")
    frequency = checked_frequency(frequency, "'frequency'")
    try:
        moment = np.datetime64(start, "us")
        first = None if np.isnat(moment) else grid(moment, frequency, 1)[0]
    except (ValueError, DataError):
        first = None
    if first is None or first != moment:
        raise DataError(f"'start' is {start!r}, which is no time such as 2016-07-01T00:00:00 on the step {frequency}")
    return moment, frequency


def _static(content: Any) -> dict[str, float]:
    if not isinstance(content, Mapping):
        raise DataError("'static' is not a map of names to numbers")
    for name, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"'static.{name}' is {value!r}, not a finite number")
    return {name: float(value) for name, value in content.items()}
