import fcntl
import multiprocessing
import os
import time

import numpy as np
import pytest

from modalign.datasets.features import FeatureStore, feature_folder
from modalign.datasets.locks import locked
from modalign.zoo.errors import DataError

PRINT = {"encoder": "abc", "transform": {"size": 224}}
KEYS = [f"k{n}" for n in range(10)]


def batches(dtype=np.float16, count=10):
    vectors = np.arange(count * 3, dtype=dtype).reshape(count, 3)
    return [vectors[:4], vectors[4:8], vectors[8:]]


def test_round_trip(tmp_path):
    store = FeatureStore.build(tmp_path / "f", PRINT, KEYS, iter(batches()))
    again = FeatureStore.open(tmp_path / "f", PRINT, KEYS)
    rows = again.rows(["k7", "k0", "k7"])
    assert rows.tolist() == [7, 0, 7] and rows.dtype == np.int64
    assert again.take(rows).tolist() == [[21, 22, 23], [0, 1, 2], [21, 22, 23]]
    assert again.vectors.dtype == np.float16 and isinstance(again.vectors, np.memmap) and len(store) == 10


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**PRINT, "encoder": "xyz"}, "encoder: stored 'abc', wanted 'xyz'"),
        ({"encoder": "abc", "transform": {"size": 256}}, "transform: stored .*224.*wanted .*256"),
        ({"encoder": "abc"}, "transform: .*wanted None"),
        ({**PRINT, "pool": "mean"}, "pool: stored None, wanted 'mean'"),
    ],
)
def test_other_fingerprint_is_refused(tmp_path, other, message):
    FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
    with pytest.raises(DataError, match=message):
        FeatureStore.open(tmp_path / "f", other)


def test_other_samples_are_refused(tmp_path):
    store = FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
    with pytest.raises(DataError, match="other samples"):
        FeatureStore.open(tmp_path / "f", PRINT, KEYS[::-1])
    with pytest.raises(DataError, match="no features of sample 'zzz'"):
        store.rows(["k1", "zzz"])


@pytest.mark.parametrize("name", ["vectors.npy", "keys.json", "meta.json"])
def test_damage(tmp_path, name):
    FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
    path = tmp_path / "f" / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged"):
        FeatureStore.open(tmp_path / "f", PRINT)
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        FeatureStore.open(tmp_path / "f", PRINT)


def test_exchanged_keys_are_found(tmp_path):
    FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
    path = tmp_path / "f" / "keys.json"
    path.write_text(path.read_text().replace("k3", "q3"))
    with pytest.raises(DataError, match="keys is not what"):
        FeatureStore.open(tmp_path / "f", PRINT)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (batches()[:2], "10 keys but 8"),
        ([*batches(), np.zeros((1, 3), np.float16)], "do not fit"),
        ([batches()[0], np.zeros((6, 2), np.float16)], "do not fit"),
        ([batches()[0], np.zeros((6, 3), np.float32)], "do not fit"),
        ([np.full((10, 3), np.nan)], "not finite"),
        ([], "10 keys but 0"),
        ([np.zeros(10)], "shape"),
    ],
)
def test_wrong_vectors_leave_the_old_store(tmp_path, made, message):
    FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
    with pytest.raises(DataError, match=message):
        FeatureStore.build(tmp_path / "f", PRINT, KEYS, made)
    assert os.listdir(tmp_path) == ["f"]
    assert FeatureStore.open(tmp_path / "f", PRINT).take([9]).tolist() == [[27, 28, 29]]


def test_replacing(tmp_path):
    FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
    FeatureStore.build(tmp_path / "f", {"encoder": "new"}, KEYS, batches(np.float32))
    assert FeatureStore.open(tmp_path / "f", {"encoder": "new"}).vectors.dtype == np.float32
    assert os.listdir(tmp_path) == ["f"]


def test_keys_must_be_unique(tmp_path):
    with pytest.raises(DataError, match="each once"):
        FeatureStore.build(tmp_path / "f", PRINT, ["a", "a"], batches())


def test_folder_beside_the_shards_or_in_the_cache(tmp_path, monkeypatch):
    assert feature_folder(tmp_path, "image") == tmp_path / ".features" / "image"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert feature_folder(tmp_path, "image").is_relative_to(tmp_path / "home" / "features")
    with pytest.raises(DataError, match="cannot be the name"):
        feature_folder(tmp_path, "../x")


def obtain_slowly(folder, start, log):
    """What a rank does: the vectors are noted as computed, and take a while."""

    def made():
        with (log / "computed").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        for batch in batches():
            time.sleep(0.1)
            yield batch

    start.wait()
    store = FeatureStore.obtain(folder, PRINT, KEYS, made)
    (log / f"content-{os.getpid()}").write_bytes(store.vectors.tobytes())


def four_at_once(folder, log, before=lambda: None):
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(4)

    def rank():
        before()
        obtain_slowly(folder, start, log)

    processes = [fork.Process(target=rank) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    contents = [path.read_bytes() for path in log.glob("content-*")]
    assert contents == [np.concatenate(batches()).tobytes()] * 4
    return len((log / "computed").read_text().splitlines())


def test_four_processes_at_once_compute_it_once(tmp_path):
    (tmp_path / "log").mkdir()
    assert four_at_once(tmp_path / "f", tmp_path / "log") == 1
    assert sorted(os.listdir(tmp_path)) == [".f.lock", "f", "log"], "no litter"


def test_without_locks_it_is_computed_twice_but_whole(tmp_path, monkeypatch):
    """As on machines that share a file system without locks: each has its own folder, and the first to finish wins."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError("no locks available")))

    def machine():
        name = f"host{os.getpid()}"
        monkeypatch.setattr("socket.gethostname", lambda: name)

    (tmp_path / "log").mkdir()
    assert four_at_once(tmp_path / "f", tmp_path / "log", machine) == 4
    assert sorted(os.listdir(tmp_path)) == [".f.lock", "f", "log"]


def test_same_process_number_on_another_machine(tmp_path, monkeypatch):
    """In containers every process has the same number; their half-made folders are not each other's."""
    made = iter(batches())

    def while_another_builds():
        yield next(made)
        monkeypatch.setattr("socket.gethostname", lambda: "other")
        FeatureStore.build(tmp_path / "f", PRINT, KEYS, batches())
        yield from made

    FeatureStore.build(tmp_path / "f", PRINT, KEYS, while_another_builds())
    assert FeatureStore.open(tmp_path / "f", PRINT, KEYS).take([9]).tolist() == [[27, 28, 29]]


def test_a_killed_process_is_cleaned_up_after(tmp_path):
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()

    def killed():
        def made():
            yield batches()[0]
            begun.set()
            time.sleep(60)

        FeatureStore.obtain(tmp_path / "f", PRINT, KEYS, made)

    process = fork.Process(target=killed)
    process.start()
    assert begun.wait(30)
    process.kill()
    process.join()
    assert any(name.startswith(".f.tmp-") for name in os.listdir(tmp_path)), "nothing was left; the test shows nothing"
    assert len(FeatureStore.obtain(tmp_path / "f", PRINT, KEYS, batches)) == 10
    assert sorted(os.listdir(tmp_path)) == [".f.lock", "f"]


def test_who_waits_long_is_told_why(tmp_path):
    told = []
    with locked(tmp_path / "lock"):
        fork = multiprocessing.get_context("fork")
        queue = fork.Queue()

        def wait():
            with locked(tmp_path / "lock", lambda: queue.put("waiting"), patience=0.1):
                queue.put("mine")

        process = fork.Process(target=wait)
        process.start()  # holds the lock file open too, as forked workers do
        told.append(queue.get(timeout=30))
    told.append(queue.get(timeout=30))
    process.join()
    assert told == ["waiting", "mine"]
    with locked(tmp_path / "lock", lambda: told.append("again"), patience=0.1):
        assert told == ["waiting", "mine"], "a free lock needs no words"
