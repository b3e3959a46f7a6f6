"""A limit on how long a loader may take for a batch, so that a stuck disk or worker is an error that says so and not a silent hang."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from modalign.zoo.errors import DataError

T = TypeVar("T")


def watched(results: Iterator[T], seconds: float, in_workers: bool, where: Callable[[], str]) -> Iterator[T]:
    """Passes results on, and turns a wait that is too long, or the death of a worker, into an error.

    Args:
        results: What torch's `DataLoader` yields.
        seconds: Longest wait for one result; 0 waits for ever.
        in_workers: Worker processes make the results, and the `DataLoader` was given the limit; else they are made here, and
            then each is made in a thread that can be left behind.
        where: Says which loader this is and where it stands.

    Raises:
        DataError: Naming the loader.
    """
    step = results.__next__ if in_workers or not seconds else lambda: _in_time(results.__next__, seconds)
    while True:
        try:
            result = step()
        except StopIteration:
            return
        except TimeoutError as error:
            raise DataError(_too_long(where(), seconds)) from error
        except RuntimeError as error:
            if in_workers and "timed out" in str(error):
                raise DataError(_too_long(where(), seconds)) from error
            if in_workers and "exited unexpectedly" in str(error):
                raise DataError(
                    f"{where()}: a data worker died ({error}); often the machine ran out of memory: use fewer workers"
                ) from error
            raise
        yield result


def _too_long(where: str, seconds: float) -> str:
    return (
        f"{where}: no batch within {seconds:g} s; the storage or a worker is stuck, or decoding is far too slow "
        "(look with `modalign data bench`; data.timeout sets the limit, 0 waits for ever)"
    )


def _in_time(make: Callable[[], T], seconds: float) -> T:
    """Calls a function in a thread and returns or raises what it does.

    Raises:
        TimeoutError: If it takes longer; the thread is left behind and does not keep the program alive.
    """
    box: queue.SimpleQueue[tuple[bool, object]] = queue.SimpleQueue()

    def run() -> None:
        try:
            box.put((True, make()))
        except BaseException as error:  # handed over, whatever it is
            box.put((False, error))

    threading.Thread(target=run, daemon=True, name="modalign-data").start()
    try:
        good, value = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if not good:
        assert isinstance(value, BaseException)
        raise value
    return value  # type: ignore[return-value]
