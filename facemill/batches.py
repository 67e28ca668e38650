"""Items of a stream in lists of a given length, as `itertools.batched` gives them from Python 3.12 on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


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
