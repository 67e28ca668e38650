"""Batches hold all items, in their order, and none is longer than was asked."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.batches import batched, batched_by_weight, interleaved


@given(st.lists(st.integers()), st.integers(1, 9))
def test_batches_joined_are_the_items(items: list[int], size: int) -> None:
    batches = list(batched(items, size))
    assert list(itertools.chain.from_iterable(batches)) == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)


def test_no_more_is_taken_than_the_batch_that_is_asked_for() -> None:
    source = iter(range(10))
    assert next(batched(source, 3)) == [0, 1, 2]
    assert next(source) == 3


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        next(batched([1], 0))


@given(st.lists(st.integers(0, 50)), st.integers(1, 9), st.integers(1, 100))
def test_batches_by_weight_are_neither_too_long_nor_too_heavy(items: list[int], size: int, most: int) -> None:
    batches = list(batched_by_weight(items, size, int, most))
    assert list(itertools.chain.from_iterable(batches)) == items
    assert all(0 < len(batch) <= size for batch in batches)
    assert all(sum(batch) <= most or len(batch) == 1 for batch in batches)
    for batch, following in itertools.pairwise(batches):  # none is shorter than it had to be
        assert len(batch) == size or sum(batch) + following[0] > most


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=12), st.integers(1, 5))
def test_streams_are_read_to_their_ends_each_in_its_order(streams: list[list[int]], at_once: int) -> None:
    named = [[(number, item) for item in items] for number, items in enumerate(streams)]
    found = list(interleaved(iter, named, at_once))
    assert [[item for item in found if item[0] == number] for number in range(len(named))] == named


def test_so_many_streams_are_open_at_a_time() -> None:
    """Each waits for the others: with fewer threads it would never end, and the barrier breaks."""
    barrier = threading.Barrier(4)

    def stream(number: int) -> Iterator[int]:
        barrier.wait(10)
        yield number

    assert sorted(interleaved(stream, range(8), 4)) == list(range(8))


def test_what_a_stream_raises_ends_all_of_them() -> None:
    def stream(number: int) -> Iterator[int]:
        if number == 3:
            raise RuntimeError("three")
        yield from itertools.count()

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="three"):
        for _ in interleaved(stream, range(4), 4):
            pass
    assert threading.active_count() == before


def test_streams_end_when_nobody_asks_on() -> None:
    before = threading.active_count()
    found = interleaved(lambda number: itertools.count(number), range(3), 2)
    next(found)
    found.close()
    assert threading.active_count() == before
