"""The index of known items answers as a dict would, in a tenth of the memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.work import known
from tasks.work.known import Known, Place

ITEMS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3), st.booleans()), max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), ITEMS), max_size=8), st.integers(1, 4))
def test_it_answers_as_a_dict_would(told: list[tuple[str, list[tuple[str, int, bool]]]], merged_at: int) -> None:
    """The first that holds an item is asked, unless it failed there and went well elsewhere, or was made anew since."""
    expected: dict[str, Place] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "_MERGED_AT", merged_at)
        index = Known()
        for result, items in told:
            index.add(result, items)
            start = 0
            for key, rows, failed in items:
                old = expected.get(key)
                if old is None or old.result == result or (old.failed and not failed):
                    expected[key] = Place(result, start, rows, failed)
                start += rows
            assert index.places("abcdefgh") == [expected.get(key) for key in "abcdefgh"]


def test_an_item_takes_some_thirty_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MERGED_AT", 1000)
    tracemalloc.start()
    index = Known()
    for first in range(0, 20_000, 1000):
        index.add(f"result {first}", ((f"{at:064d}", 1, False) for at in range(first, first + 1000)))
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert index.places([f"{12_345:064d}", "none"]) == [Place("result 12000", 345, 1, False), None]
    assert held_bytes < 50 * 20_000
