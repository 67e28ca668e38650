"""Items of a stream in lists of a given length, and items of several streams as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Argument = TypeVar("Argument")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size` of them, the last one shorter; what `itertools.batched` is from Python 3.12 on.

    Raises:
        ValueError: `size` is less than 1.
    """
    if size < 1:
        raise ValueError(f"a batch must have one item or more, got {size}")
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def batched_by_weight(
    items: Iterable[Item], size: int, weight: Callable[[Item], int], max_weight: int
) -> Iterator[list[Item]]:
    """The items in lists of at most `size` that together weigh at most `max_weight`; one that weighs more is alone.

    Raises:
        ValueError: `size` is less than 1.
    """
    if size < 1:
        raise ValueError(f"a batch must have one item or more, got {size}")
    batch: list[Item] = []
    total = 0
    for item in items:
        own = weight(item)
        if batch and (len(batch) == size or total + own > max_weight):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += own
    if batch:
        yield batch


def interleaved(
    stream: Callable[[Argument], Iterable[Item]], arguments: Iterable[Argument], at_once: int
) -> Generator[Item, None, None]:
    """The items of the streams of all arguments as they come, each stream's in its order; for work that waits.

    Closing it ends the streams behind the item that each is at, and waits for that.

    Args:
        stream: the items of an argument; each runs in one of `at_once` threads.
        arguments: taken as threads become free.
        at_once: so many streams are open at a time, and about twice as many items are held.

    Raises:
        Exception: whatever a stream raises; the others end then.
    """
    waiting, lock, over = iter(arguments), threading.Lock(), threading.Event()
    found: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(at_once)

    def give(item: Item | None, error: BaseException | None = None) -> None:
        while not over.is_set():
            try:
                found.put((item, error), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not over.is_set():
                with lock:
                    argument = next(waiting)
                for item in stream(argument):
                    give(item)
                    if over.is_set():
                        return
        except StopIteration:
            give(None)
        except BaseException as error:  # whoever takes the items raises it
            give(None, error)

    threads = [threading.Thread(target=work, name=f"stream {number}") for number in range(at_once)]
    try:
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads):
            item, error = found.get()
            if error is not None:
                raise error
            if item is None:
                ended += 1
            else:
                yield item
    finally:
        over.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
