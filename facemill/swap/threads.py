"""Bounded queues between threads: decoding, swapping and encoding overlap, and memory stays flat.

FFmpeg, OpenCV and torch release the interpreter's lock, so threads do run at the same time. Both helpers are context
managers: leaving the block ends the thread, whichever side failed and whatever the queue holds.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()
_POLL_S = 0.05  # how soon a waiting thread notices that the other side has gone


@contextmanager
def ahead(items: Iterable[T], size: int) -> Iterator[Iterator[T]]:
    """Iterates `items` in a thread, at most `size` ahead of whoever reads. Its exception arrives at the reader."""
    waiting: queue.Queue[Any] = queue.Queue(max(1, size))
    stop = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            for item in items:
                if not _put(waiting, item, stop):
                    return
        except BaseException as error:
            failure.append(error)
        finally:
            _put(waiting, _END, stop)

    def read() -> Iterator[T]:
        while (item := waiting.get()) is not _END:
            yield item
        if failure:
            raise failure[0]

    thread = threading.Thread(target=work, daemon=True, name="ahead")
    thread.start()
    try:
        yield read()
    finally:
        stop.set()
        thread.join()


@contextmanager
def behind(consume: Callable[[T], None], size: int) -> Iterator[Callable[[T], None]]:
    """Gives a function that hands items to `consume` in a thread, at most `size` waiting.

    The consumer's exception is raised by the next call or when the block ends. When the block itself raises, what waits
    is dropped.
    """
    waiting: queue.Queue[Any] = queue.Queue(max(1, size))
    stop = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set() and (item := _get(waiting, stop)) is not _END:
                consume(item)
        except BaseException as error:
            failure.append(error)
            stop.set()

    def put(item: T) -> None:
        if not _put(waiting, item, stop) and failure:
            raise failure[0]

    thread = threading.Thread(target=work, daemon=True, name="behind")
    thread.start()
    try:
        yield put
        _put(waiting, _END, stop)
        thread.join()
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]


def _put(waiting: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    """False if `stop` was set before there was room."""
    while not stop.is_set():
        try:
            waiting.put(item, timeout=_POLL_S)
            return True
        except queue.Full:
            continue
    return False


def _get(waiting: queue.Queue[Any], stop: threading.Event) -> Any:
    while not stop.is_set():
        try:
            return waiting.get(timeout=_POLL_S)
        except queue.Empty:
            continue
    return _END
