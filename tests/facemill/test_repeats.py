"""Which names were there before, and which only look like one that was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from facemill.repeats import Names

TEXTS = st.text(st.sampled_from("a,'\0é\ud800"), max_size=3)


@given(names=st.lists(st.lists(TEXTS, min_size=1, max_size=3).map(tuple), max_size=60))
def test_the_first_of_each_is_kept(names: list[tuple[str, ...]]) -> None:
    found = Names()
    for name in names:
        found.add(*name)
    assert found.first_of_each().tolist() == [names.index(name) for name in dict.fromkeys(names)]
