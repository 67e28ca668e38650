"""What was there before is found by hashes, and told from what only has the same hash."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.repeats import first_of_each


@pytest.mark.parametrize("hashes", [1, 3, 2**40])
@given(values=st.lists(st.integers(0, 12), max_size=40))
def test_the_first_of_each_is_kept_whatever_collides(hashes: int, values: list[int]) -> None:
    kept = first_of_each(
        array("q", [value % hashes for value in values]), lambda one, other: values[one] == values[other]
    )
    assert [values[row] for row in kept] == list(dict.fromkeys(values))
    assert list(kept) == [values.index(value) for value in dict.fromkeys(values)]
