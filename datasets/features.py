"""The feature cache: what a frozen encoder gives for every sample of a set, computed once and memory-mapped.

A store belongs to a fingerprint (hashes of encoder and transform ...): another fingerprint is refused, with what differs. It
is only right for deterministic transforms; callers must not use it with random augmentation.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

from .home import cache_home
from .locks import locked
from .shards.manifest import sync_folder, write_atomic

_FORMAT = "modalign-features/1"
_VECTORS, _KEYS, _META = "vectors.npy", "keys.json", "meta.json"


def feature_folder(shards: Path, name: str) -> Path:
    """Returns where the features called ``name`` of a folder of shards are kept.

    That is ``SHARDS/.features/NAME``, or a folder in the cache if the folder of shards cannot be written.
    """
    if not name or name.startswith(".") or set(name) & set("/\\\0"):
        raise DataError(f"{name!r} cannot be the name of a feature store (a plain file name)")
    beside = shards / ".features" / name
    usable = beside.parent.is_dir() or not beside.parent.exists()
    writable = os.access(beside.parent if beside.parent.exists() else shards, os.W_OK)
    if usable and (beside.exists() or writable):
        return beside
    home = hashlib.sha256(os.fsencode(shards.resolve())).hexdigest()[:16]
    return cache_home() / "features" / home / name


class FeatureStore:
    """Vectors by sample key; make one with `build`, use one with `open`, either with `obtain`.

    Attributes:
        keys: Keys in the order of the rows.
        vectors: The memory-mapped array (N, ...).
    """

    def __init__(self, folder: Path, keys: list[str], vectors: np.ndarray, fingerprint: dict[str, Any]) -> None:
        self.folder, self.keys, self.vectors, self.fingerprint = folder, keys, vectors, fingerprint
        self._row = {key: row for row, key in enumerate(keys)}

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}, {self.vectors.shape} {self.vectors.dtype})"

    @classmethod
    def build(
        cls, folder: str | Path, fingerprint: Mapping[str, Any], keys: Sequence[str], batches: Iterable[np.ndarray]
    ) -> FeatureStore:
        """Writes a store, streaming: only one batch is in memory; the folder appears complete or not at all.

        Args:
            folder: Where to put it; an existing store there is replaced.
            fingerprint: JSON values that say what made the vectors (encoder hash, transform hash ...).
            keys: Sample keys, one per row, in the order of the batches.
            batches: Arrays (n, ...) of one dtype and one row shape.

        Raises:
            DataError: If rows and keys differ in number, shapes or dtypes differ, or a vector is not finite.
        """
        folder, keys = Path(folder), list(keys)
        _check_keys(folder, keys)
        _build(folder, fingerprint, keys, batches, _replace)
        return cls.open(folder, fingerprint)

    @classmethod
    def obtain(
        cls,
        folder: str | Path,
        fingerprint: Mapping[str, Any],
        keys: Sequence[str],
        batches: Callable[[], Iterable[np.ndarray]],
        waiting: Callable[[], None] | None = None,
    ) -> FeatureStore:
        """Opens a store, or builds it where there is none yet; safe to call from many processes at once.

        On one machine, or on a file system with locks, one process computes and the others wait for it. Where there are no locks two
        may compute, each in a folder of its own; the first to finish wins and the other's work is dropped, so that a store somebody
        reads is never replaced.

        Args:
            folder: Where it is.
            fingerprint: As for `build`.
            keys: As for `build`.
            batches: Makes the vectors; called only by the process that computes.
            waiting: Called once after some seconds of waiting for another process.

        Raises:
            DataError: As `build` and `open` do.
        """
        folder, keys = Path(folder), list(keys)
        if not (folder / _META).exists():
            with locked(folder.with_name(f".{folder.name}.lock"), waiting):
                if not (folder / _META).exists():  # else another process was faster
                    _check_keys(folder, keys)
                    _remove_litter(folder)
                    _build(folder, fingerprint, keys, batches(), _place_first)
        return cls.open(folder, fingerprint, keys)

    @classmethod
    def open(cls, folder: str | Path, fingerprint: Mapping[str, Any], keys: Sequence[str] | None = None) -> FeatureStore:
        """Opens a store.

        Args:
            folder: Where it is.
            fingerprint: What must have made the vectors.
            keys: If given, the store must have exactly these, in this order.

        Raises:
            DataError: If there is none, it is damaged, or it was made by something else; says what differs.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / _META).read_bytes())
            found_keys = json.loads((folder / _KEYS).read_bytes())
            vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(f"{folder}: no feature store here ({Path(error.filename).name} is missing)") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: the feature store is damaged ({error}); delete it and build it again") from error
        if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
            raise DataError(f"{folder}: not a feature store of the format {_FORMAT!r}")
        _compare(folder, meta["fingerprint"], json.loads(json.dumps(dict(fingerprint))))
        whole = {"keys": _hash(found_keys), "shape": list(vectors.shape), "dtype": vectors.dtype.str}
        for name, value in whole.items():
            if meta.get(name) != value:
                raise DataError(f"{folder}: the feature store is damaged ({name} is not what meta.json says); build it again")
        if keys is not None and list(keys) != found_keys:
            raise DataError(
                f"{folder}: the features are of other samples ({len(found_keys)} keys, wanted {len(keys)}); build again"
            )
        return cls(folder, found_keys, vectors, meta["fingerprint"])

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """Returns the row of each key, int64 (n,).

        Raises:
            DataError: Naming a key that is not in the store.
        """
        try:
            return np.array([self._row[key] for key in keys], dtype=np.int64)
        except KeyError as error:
            raise DataError(f"{self.folder}: there are no features of sample {error.args[0]!r}") from error

    def take(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Returns a copy of the vectors in these rows, (n, ...)."""
        return np.asarray(self.vectors[np.asarray(rows, dtype=np.int64)])


def _check_keys(folder: Path, keys: Sequence[str]) -> None:
    if len(set(keys)) != len(keys) or not keys:
        raise DataError(f"{folder}: a feature store needs keys, each once")


def _build(
    folder: Path,
    fingerprint: Mapping[str, Any],
    keys: Sequence[str],
    batches: Iterable[np.ndarray],
    place: Callable[[Path, Path], None],
) -> None:
    """Writes a store beside its place and then puts it there."""
    fresh = _beside(folder, "tmp", os.getpid())
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        shape, dtype = _write_vectors(fresh / _VECTORS, len(keys), batches)
        write_atomic(fresh / _KEYS, json.dumps(keys, ensure_ascii=False).encode())
        meta = {"format": _FORMAT, "fingerprint": dict(fingerprint), "keys": _hash(keys), "shape": shape, "dtype": dtype}
        write_atomic(fresh / _META, json.dumps(meta, indent=1).encode())
        place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _beside(folder: Path, kind: str, pid: int | str) -> Path:
    """A place beside a folder that no other process uses, on this machine or on another that shares the file system."""
    return folder.with_name(f".{folder.name}.{kind}-{socket.gethostname()}-{pid}")


def _remove_litter(folder: Path) -> None:
    """Removes what processes of this machine left half made when they were killed."""
    start = _beside(folder, "tmp", "").name
    for path in folder.parent.glob(f"{glob.escape(start)}*"):
        pid = path.name.removeprefix(start)
        if pid.isdigit() and not _lives(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True


def _write_vectors(path: Path, count: int, batches: Iterable[np.ndarray]) -> tuple[list[int], str]:
    array: np.memmap | None = None
    done = 0
    for batch in batches:
        batch = np.asarray(batch)
        if array is None:
            if batch.ndim < 2 or batch.dtype.kind not in "fiu":
                raise DataError(f"features must be numbers of shape (n, ...), got {batch.dtype} {batch.shape}")
            array = np.lib.format.open_memmap(path, "w+", batch.dtype, (count, *batch.shape[1:]))
        if batch.shape[1:] != array.shape[1:] or batch.dtype != array.dtype or done + len(batch) > count:
            raise DataError(
                f"features {batch.dtype} {batch.shape} at row {done} do not fit a store of {array.dtype} {array.shape}"
            )
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            raise DataError(f"a feature vector between rows {done} and {done + len(batch) - 1} is not finite")
        array[done : done + len(batch)] = batch
        done += len(batch)
    if array is None or done != count:
        raise DataError(f"{count} keys but {done} feature vectors")
    array.flush()
    return list(array.shape), array.dtype.str


def _replace(fresh: Path, folder: Path) -> None:
    """Puts the finished folder in place; an old one is moved aside first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = _beside(folder, "old", os.getpid())
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _place_first(fresh: Path, folder: Path) -> None:
    """Puts the finished folder in place, unless another process was faster; then its store stays, which may be in use."""
    try:
        os.rename(fresh, folder)  # refuses a folder that has content
    except OSError:
        if not (folder / _META).exists():  # not a store that anybody could be reading
            _replace(fresh, folder)
    sync_folder(folder.parent)


def _compare(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if names:
        what = "; ".join(f"{name}: stored {found.get(name)!r}, wanted {wanted.get(name)!r}" for name in names)
        raise DataError(f"{folder}: the features were made by something else ({what}); delete the folder or give another one")


def _hash(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
