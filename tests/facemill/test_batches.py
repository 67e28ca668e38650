"""Batches hold all items, in their order, and none is longer than was asked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.batches import batched, batched_by_weight


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
