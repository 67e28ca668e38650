"""Items of a stream in lists of a given length, as `itertools.batched` gives them from Python 3.12 on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
