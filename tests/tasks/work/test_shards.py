"""Shards survive kills, poison and full disks, and end in the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.reasons import Reason
from tasks.params import ClusterParams
from tasks.work.cluster import InlinePool, Pool, open_pool
from tasks.work.shards import Shard, Totals, count_rows, finish, open_work, plan_shards, publish, run_shards

inline = InlinePool()


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Pool]:
    with open_pool(ClusterParams(kind="local", workers=2)) as pool:
        yield pool


def double(shard: Shard) -> pa.Table:
    """Items are numbers; negative ones misbehave in the way that their number says."""
    rows = []
    for item in shard.items:
        if item == -1:
            raise RuntimeError("poison")
        if item == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == -3:
            raise FacemillError("no space left to write")
        failed = item == -4 and not Path(shard.settings).exists()
        status = {"status": "failed", "error": Reason.UNREADABLE} if failed else {"status": "ok"}
        rows.append({"sample_id": str(item * 2), **status})
    return tables.from_rows(rows, schema.RAW)


def lost(item: Any, reason: Reason, detail: str) -> dict[str, Any]:
    return {"sample_id": str(item * 2), "status": reason.state, "error": reason, "detail": detail}


def run(root: Path, items: list[int], pool: Any = inline, *, retry: bool = False, settings: Any = None) -> Path:
    work = open_work(root, "double", items=items)
    shards = plan_shards(items, 3, settings)
    run_shards(work, shards, double, lost, schema.RAW, pool, retry=retry)
    publish(work, shards, root / "out")
    return root / "out"


def states(folder: Path) -> dict[str, dict[str, int]]:
    return count_rows(folder, schema.RAW)


def test_one_process_and_two_workers_give_the_same_bytes(tmp_path: Path, two_workers: Pool) -> None:
    alone = run(tmp_path / "a", list(range(10)))
    together = run(tmp_path / "b", list(range(10)), two_workers)
    assert folder_sha256(alone) == folder_sha256(together)
    assert states(alone) == {"ok": {"": 10}}


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_part_that_was_damaged_in_the_output_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    """Output and scratch share their bytes: without a look at them the damage would be published again and again."""
    before = folder_sha256(run(tmp_path, list(range(10))))
    part = tmp_path / "out" / "00001.parquet"
    part.write_bytes(part.read_bytes().replace(b"PAR1", b"PAR2") if damage is None else damage)
    assert folder_sha256(run(tmp_path, list(range(10)))) == before


def test_a_copied_project_makes_no_part_again(tmp_path: Path) -> None:
    run(tmp_path / "a", list(range(10)))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # with other times
    parts = {path: path.stat().st_ino for path in (tmp_path / "b").rglob("*.parquet")}
    run(tmp_path / "b", list(range(10)))
    scratch = {path: number for path, number in parts.items() if ".work" in path.parts}
    assert scratch == {path: path.stat().st_ino for path in scratch}


def test_a_row_that_raises_costs_only_itself(tmp_path: Path) -> None:
    out = run(tmp_path, [0, 1, 2, 3, -1, 5, 6])
    assert states(out) == {"ok": {"": 6}, "failed": {"processing_error": 1}}
    [row] = [row for row in tables.iterate_rows(out, schema.RAW) if row["status"] == "failed"]
    assert (row["sample_id"], row["detail"]) == ("-2", "RuntimeError: poison")


def test_a_row_that_kills_its_worker_costs_only_itself(tmp_path: Path, two_workers: Pool) -> None:
    out = run(tmp_path, [0, 1, 2, 3, -2, 5, 6, 7, 8], two_workers)
    assert states(out) == {"ok": {"": 8}, "failed": {"worker_killed": 1}}


def test_an_interrupted_run_goes_on_where_it_was_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", [0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(FacemillError, match="no space left"):
        run(tmp_path / "cut", [0, 1, 2, 3, -3, 5, 6])
    work = open_work(tmp_path / "cut", "double", items=[0, 1, 2, 3, -3, 5, 6])
    assert sorted(path.name for path in work.folder.glob("*.parquet")) == ["00000.parquet"]
    finished = (work.folder / "00000.parquet").stat().st_mtime_ns
    shards = plan_shards([0, 1, 2, 3, 4, 5, 6], 3)
    run_shards(work, shards, double, lost, schema.RAW, inline)
    publish(work, shards, tmp_path / "cut" / "out")
    assert (work.folder / "00000.parquet").stat().st_mtime_ns == finished
    assert folder_sha256(whole) == folder_sha256(tmp_path / "cut" / "out")


def test_a_finished_plan_opens_no_pool(tmp_path: Path) -> None:
    run(tmp_path, [1, 2, 3])
    run(tmp_path, [1, 2, 3], pool=None)


def test_retry_takes_up_failed_rows_and_leaves_the_others(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    items = [0, 1, 2, 3, -4, 5]
    assert states(run(tmp_path, items, settings=str(mended)))["failed"] == {"unreadable": 1}
    mended.touch()
    assert states(run(tmp_path, items, settings=str(mended)))["failed"] == {"unreadable": 1}
    assert states(run(tmp_path, items, settings=str(mended), retry=True)) == {"ok": {"": 6}}


def test_publishing_removes_parts_of_an_earlier_plan(tmp_path: Path) -> None:
    run(tmp_path, list(range(9)))
    assert [path.name for path in tables.parts(run(tmp_path, [1, 2]))] == ["00000.parquet"]


def test_other_parameters_start_afresh_and_old_scratch_goes(tmp_path: Path) -> None:
    run(tmp_path, [1])
    run(tmp_path, [2])
    assert len([path for path in (tmp_path / ".work" / "double").iterdir() if path.is_dir()]) == 1


def test_too_many_failures_stop_the_stage_with_the_reasons(tmp_path: Path) -> None:
    totals = Totals("extract", 4, {"ok": {"": 3}, "failed": {"truncated": 1}}, 1.0)
    with pytest.raises(FacemillError, match=r"1 of 4 rows failed \(1 truncated\), limit 20%.*--retry"):
        finish(tmp_path, totals, failure_limit=0.2)
    assert (tmp_path / "data" / "metrics" / "extract.json").exists()


def test_the_pace_counts_the_work_of_earlier_runs_too() -> None:
    """A run that finds all done takes no time: rows over its seconds would be thousands a second."""
    found_done = Totals("extract", 4, {"ok": {"": 4}}, seconds=0.01, worker_seconds=8.0)
    assert found_done.as_metrics()["per_worker_second"] == 0.5
    assert Totals("train", 4, {"ok": {"": 4}}, 9.0).as_metrics()["per_worker_second"] is None


def test_totals_that_do_not_reconcile_are_a_defect(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="4 rows in, 3 out"):
        finish(tmp_path, Totals("extract", 4, {"ok": {"": 3}}, 1.0))
