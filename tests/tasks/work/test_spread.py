"""Known rows stay in their part, new ones open new parts, removed ones change only theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.work.results import SHARD_BYTES
from tasks.work.spread import SMALL_PARTS, spread

units = st.lists(st.integers(0, 60).map(str), unique=True, max_size=40)


def as_present(parts):
    return {part.name: part.units for part in parts}


@given(st.lists(units, min_size=1, max_size=6), st.integers(1, 5))
def test_whatever_comes_and_goes_each_wanted_unit_lies_in_one_part(nights: list[list[str]], per_part: int) -> None:
    present: dict = {}
    for wanted in nights:
        parts = spread(wanted, present, per_part)
        placed = [unit for part in parts for unit in part.units]
        assert sorted(placed) == sorted(wanted)
        kept = {name: set(own) & set(wanted) for name, own in present.items()}
        if len(present) < SMALL_PARTS:  # else crumbs may be merged
            now = {part.name: set(part.units) for part in parts}
            assert all(now[name] == own for name, own in kept.items() if own)
        present = as_present(parts)


@given(units, st.integers(1, 5))
def test_the_same_plan_again_changes_nothing(wanted: list[str], per_part: int) -> None:
    first = spread(wanted, {}, per_part)
    assert spread(list(reversed(wanted)), as_present(first), per_part) == first
    assert spread(wanted, {}, per_part) == first


def test_a_part_takes_no_more_bytes_than_a_shard_may_have() -> None:
    wanted = [str(n) for n in range(10)]
    sizes = dict.fromkeys(wanted[:9], SHARD_BYTES // 3)
    parts = spread(wanted, {}, 64, sizes=sizes)
    assert sorted(len(part.units) for part in parts) == [3, 3, 4]  # of the last nothing is known


def test_a_new_unit_at_the_head_opens_a_part_and_touches_none() -> None:
    before = spread([str(n) for n in range(59)], {}, 8)
    after = spread(["new", *(str(n) for n in range(59))], as_present(before), 8)
    assert set(before) < set(after)
    assert len(after) == len(before) + 1


def test_a_unit_that_goes_changes_its_part_alone() -> None:
    before = spread([str(n) for n in range(59)], {}, 8)
    after = spread([str(n) for n in range(59) if n != 20], as_present(before), 8)
    assert len(set(before) - set(after)) == 1
    assert {part.name for part in after} == {part.name for part in before}


def test_large_units_have_a_part_each() -> None:
    parts = spread(["a", "film", "b", "series"], {}, 8, alone=["film", "series"])
    assert sorted(part.units for part in parts) == [("a", "b"), ("film",), ("series",)]


def test_the_crumbs_of_many_nights_are_merged_into_whole_parts() -> None:
    present: dict = {}
    wanted: list[str] = []
    most = 0
    for night in range(200):
        wanted.append(f"night {night}")
        present = as_present(spread(wanted, present, 8))
        most = max(most, sum(2 * len(own) < 8 for own in present.values()))
    assert most <= SMALL_PARTS
    assert len(present) <= 200 / 8 + 2 * SMALL_PARTS
