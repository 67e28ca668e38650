"""Results are known by their content: whoever worked an item, wherever its row goes, it is worked once."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.reasons import Reason
from tasks.params import ClusterParams
from tasks.work import results
from tasks.work.cluster import InlinePool, Pool, open_pool
from tasks.work.results import (
    LaterPart,
    Made,
    Part,
    Rows,
    Shard,
    Store,
    WorkItem,
    drop_unreached,
    make_parts,
    open_store,
    put_items,
)
from tasks.work.totals import count_rows, publish_parts

inline = InlinePool()


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Pool]:
    with open_pool(ClusterParams(kind="local", workers=2)) as pool:
        yield pool


def double(shard: Shard) -> list[Rows]:
    """Items are numbers; negative ones misbehave in the way that their number says. Even ones give two rows."""
    rows: list[Rows] = []
    for item in shard.items:
        if item == -1:
            raise RuntimeError("poison")
        if item == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == -3:
            raise FacemillError("no space left to write")
        failed = item == -4 and not Path(shard.settings).exists()
        state = {"status": "failed", "error": Reason.UNREADABLE} if failed else {"status": "ok"}
        count = 1 if failed or item % 2 else 2
        rows.append([{"sample_id": str(item * 2), "pts": at, **state} for at in range(count)])
    return rows


def lost(item: Any, reason: Reason, detail: str) -> dict[str, Any]:
    return {"sample_id": str(item * 2), "status": reason.state, "error": reason, "detail": detail}


def plan(*parts: Sequence[int]) -> list[Part]:
    return [
        Part(f"{n:02d}", tuple(WorkItem(f"item {number}", number) for number in own)) for n, own in enumerate(parts)
    ]


def store_in(root: Path, **base: Any) -> Store:
    return open_store(root, "double", schema.RAW, **base)


def make(root: Path, *parts: Sequence[int], pool: Any = inline, settings: Any = None, retry: bool = False) -> Made:
    made = make_parts(
        store_in(root), plan(*parts), double, lost, pool, settings=settings, rows_per_shard=2, retry=retry
    )
    publish_parts(made.paths, root / "out")
    return made


def test_one_process_and_two_workers_give_the_same_bytes(tmp_path: Path, two_workers: Pool) -> None:
    make(tmp_path / "a", range(7), range(7, 10))
    make(tmp_path / "b", range(7), range(7, 10), pool=two_workers)
    assert folder_sha256(tmp_path / "a" / "out") == folder_sha256(tmp_path / "b" / "out")
    assert count_rows(tmp_path / "a" / "out", schema.RAW) == {"ok": {"": 15}}


def test_a_row_that_raises_costs_only_itself(tmp_path: Path) -> None:
    make(tmp_path, [0, 1, -1, 3])
    assert count_rows(tmp_path / "out", schema.RAW) == {"ok": {"": 4}, "failed": {"processing_error": 1}}


def test_a_row_that_kills_its_worker_costs_only_itself(tmp_path: Path, two_workers: Pool) -> None:
    make(tmp_path, [1, 3, -2, 5, 7], pool=two_workers)
    assert count_rows(tmp_path / "out", schema.RAW) == {"ok": {"": 4}, "failed": {"worker_killed": 1}}


def test_an_interrupted_run_goes_on_where_it_was_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "whole", [0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(FacemillError, match="no space left"):
        make(tmp_path / "cut", [0, 1, 2, 3, -3, 5, 6])
    assert make(tmp_path / "cut", [0, 1, 2, 3, 4, 5, 6]).worked == 3
    assert folder_sha256(tmp_path / "whole" / "out") == folder_sha256(tmp_path / "cut" / "out")


def test_a_known_plan_opens_no_pool_and_works_nothing(tmp_path: Path) -> None:
    make(tmp_path, [1, 2, 3])
    assert make(tmp_path, [1, 2, 3], pool=None).worked == 0


@settings(max_examples=25)
@given(data=st.data())
def test_only_unknown_items_are_worked_and_the_bytes_are_those_of_a_rebuild(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However items come, go, and move from part to part."""
    root = tmp_path_factory.mktemp("any")
    spreads = st.lists(st.lists(st.integers(0, 12), max_size=5, unique=True), max_size=4)
    seen: set[int] = set()
    plans = [seen]  # of this run and the one before: what neither reaches may be gone
    for parts in data.draw(st.lists(spreads, min_size=1, max_size=4)):
        known = set().union(*plans[-2:])
        wanted = {number for part in parts for number in part}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results, "PARTS_AT_ONCE", data.draw(st.integers(1, 3)))
            assert make(root / "grown", *parts).worked <= len(wanted - known)
        drop_unreached(store_in(root / "grown"))
        plans.append(wanted)
    make(root / "anew", *parts)
    assert folder_sha256(root / "grown" / "out") == folder_sha256(root / "anew" / "out")
    shutil.rmtree(root)


def test_an_item_that_lies_in_two_parts_is_worked_once(tmp_path: Path) -> None:
    assert make(tmp_path, [1, 2, 3], [3, 2], [2]).worked == 3


def test_retry_works_the_failed_items_alone(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    items = [0, 1, 2, -4, 5], [7]
    assert make(tmp_path, *items, settings=str(mended)).worked == 6
    mended.touch()
    assert make(tmp_path, *items, settings=str(mended)).worked == 0
    assert make(tmp_path, *items, settings=str(mended), retry=True).worked == 1
    assert set(count_rows(tmp_path / "out", schema.RAW)) == {"ok"}
    assert make(tmp_path, *items, settings=str(mended), retry=True).worked == 0


@pytest.mark.parametrize("parts_at_once", [1, 256])
@pytest.mark.parametrize("other", [3, 7, 9, 11, 13, 15])  # which of the two parts it is found in, its hash decides
def test_a_retried_item_that_lies_in_several_parts_is_renewed_in_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: int, parts_at_once: int
) -> None:
    """It has two rows where it had one: what stands behind it in a part lies elsewhere then, for the next part too."""
    monkeypatch.setattr(results, "PARTS_AT_ONCE", parts_at_once)
    mended, parts = tmp_path / "mended", ([-4, other], [5, -4, other])
    make(tmp_path / "a", *parts, settings=str(mended))
    mended.touch()
    assert make(tmp_path / "a", *parts, settings=str(mended), retry=True).worked == 1
    make(tmp_path / "b", *parts, settings=str(mended))
    assert folder_sha256(tmp_path / "a" / "out") == folder_sha256(tmp_path / "b" / "out")


def test_a_plan_that_lists_its_items_when_asked_gives_the_same_and_holds_few_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, most = set[int](), 0

    class Counted:
        """A value that is seen to be let go."""

        def __init__(self, number: int) -> None:
            nonlocal most
            self.number = number
            living.add(id(self))
            most = max(most, len(living))

        def __del__(self) -> None:
            living.discard(id(self))

    def items(first: int) -> Iterator[WorkItem]:
        return (WorkItem(f"item {number}", Counted(number)) for number in range(first, first + 10))

    def numbers(shard: Shard) -> list[Rows]:
        return double(Shard(tuple(item.number for item in shard.items)))

    monkeypatch.setattr(results, "PARTS_AT_ONCE", 4)
    later = [LaterPart(f"{n:02d}", partial(items, 10 * n)) for n in range(40)]
    made = make_parts(store_in(tmp_path / "a"), later, numbers, lost, inline, rows_per_shard=3)
    publish_parts(made.paths, tmp_path / "a" / "out")
    make(tmp_path / "b", *(range(10 * n, 10 * n + 10) for n in range(40)))
    assert folder_sha256(tmp_path / "a" / "out") == folder_sha256(tmp_path / "b" / "out")
    assert made.worked == 400
    assert most < 100


def test_retry_leaves_alone_what_only_its_rows_can_give(tmp_path: Path) -> None:
    """Such as what a search found: it has just been asked, and whether it failed cannot be worked here."""
    store = store_in(tmp_path)
    rows = [{"sample_id": "x", "status": "failed", "error": Reason.DOWNLOAD_FAILED}]
    put_items(store, [("found", rows)])
    parts = [Part("00", (WorkItem("found", None), WorkItem("item 1", 1)))]
    made = make_parts(store, parts, double, lost, inline, rows_per_shard=2, retry=True)
    assert made.worked == 1
    assert tables.part_rows(made.paths["00"], schema.RAW, ["sample_id", "status"]) == [
        {"sample_id": "x", "status": "failed"},
        {"sample_id": "2", "status": "ok"},
    ]


@pytest.mark.parametrize("damage", ["no table", "no receipt", "cut receipt", "another receipt", "everything"])
def test_results_that_were_damaged_are_made_again(tmp_path: Path, damage: str) -> None:
    make(tmp_path, [1, 2, 3], [4, 5])
    before = folder_sha256(tmp_path / "out")
    folder = store_in(tmp_path).folder
    gone = {"no table": [".parquet"], "no receipt": [".json"], "everything": [".parquet", ".json"]}.get(damage, [])
    for path in list(folder.iterdir()):
        if path.suffix in gone:
            path.unlink()
        elif path.suffix == ".json" and damage.endswith(" receipt"):
            path.write_text("[1]" if damage.startswith("another") else path.read_text()[:20])
    make(tmp_path, [1, 2, 3], [4, 5])
    assert folder_sha256(tmp_path / "out") == before


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_part_that_was_damaged_in_the_output_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    """Output and results share their bytes: without a look at them the damage would be published again and again."""
    make(tmp_path, [1, 2, 3], [4, 5])
    before = folder_sha256(tmp_path / "out")
    part = tmp_path / "out" / "01.parquet"
    part.write_bytes(part.read_bytes().replace(b"PAR1", b"PAR2") if damage is None else damage)
    make(tmp_path, [1, 2, 3], [4, 5])
    assert folder_sha256(tmp_path / "out") == before


def test_a_copied_project_works_nothing_again(tmp_path: Path) -> None:
    make(tmp_path / "a", [1, 2, 3], [4, 5])
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # with other times
    assert make(tmp_path / "b", [1, 2, 3], [4, 5]).worked == 0


def test_what_neither_this_plan_nor_the_one_before_reaches_is_removed(tmp_path: Path) -> None:
    def kept(*items: int) -> set[str]:
        make(tmp_path, items)
        drop_unreached(store_in(tmp_path))
        found = [tables.read_part(path, schema.RAW, ["sample_id"]) for path in tables.parts(store_in(tmp_path).folder)]
        return {value for table in found for value in table["sample_id"].to_pylist()}

    assert kept(1) == {"2"}
    assert kept(3) == {"2", "6"}
    assert kept(5) == {"6", "10"}
    assert kept(5) == {"6", "10"}  # the same plan again is no other plan
    assert kept(3) == {"6", "10"}


def test_what_decides_otherwise_makes_other_results(tmp_path: Path) -> None:
    for base in ({"code": "a"}, {"code": "b"}, {"code": "a", "limit": 1}):
        made = make_parts(store_in(tmp_path, **base), plan([1]), double, lost, inline, rows_per_shard=2)
        assert made.worked == 1
    assert make_parts(store_in(tmp_path, code="a"), plan([1]), double, lost, inline, rows_per_shard=2).worked == 0


def test_a_part_without_items_is_a_table_without_rows(tmp_path: Path) -> None:
    make(tmp_path, [1], [])
    assert pq.read_metadata(tmp_path / "out" / "01.parquet").num_rows == 0
    assert len(tables.read_table(tmp_path / "out", schema.RAW)) == 1


def test_publishing_removes_parts_of_an_earlier_plan(tmp_path: Path) -> None:
    make(tmp_path, [1], [2], [3])
    make(tmp_path, [1])
    assert [path.name for path in tables.parts(tmp_path / "out")] == ["00.parquet"]
