"""How a stage ends: numbers that reconcile, and a limit on failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from facemill.errors import FacemillError
from facemill.files import read_json
from tasks.work.totals import Totals, finish, times_file


def test_too_many_failures_stop_the_stage_with_the_reasons(tmp_path: Path) -> None:
    totals = Totals("extract", 4, {"ok": {"": 3}, "failed": {"truncated": 1}}, 1.0)
    with pytest.raises(FacemillError, match=r"1 of 4 rows failed \(1 truncated\), limit 20%.*--retry"):
        finish(tmp_path, totals, failure_limit=0.2)
    assert (tmp_path / "data" / "metrics" / "extract.json").exists()


def test_metrics_are_the_same_however_long_it_took(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        finish(tmp_path / str(seconds), Totals("extract", 4, {"ok": {"": 4}}, seconds, seconds / 2, worked=3))
    first, second = (tmp_path / name / "data" / "metrics" / "extract.json" for name in ("1.0", "2.0"))
    assert first.read_bytes() == second.read_bytes()
    assert read_json(times_file(tmp_path / "2.0", "extract"))["per_worker_second"] == 3.0


def test_the_pace_is_that_of_what_was_worked(tmp_path: Path) -> None:
    """A run that finds all done takes no time: rows over its seconds would be thousands a second."""
    assert Totals("extract", 4, {"ok": {"": 4}}, seconds=0.01).as_times()["per_worker_second"] is None
    assert Totals("extract", 400, {}, 9.0, worker_seconds=8.0, worked=4).as_times()["per_worker_second"] == 0.5


def test_totals_that_do_not_reconcile_are_a_defect(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="4 rows in, 3 out"):
        finish(tmp_path, Totals("extract", 4, {"ok": {"": 3}}, 1.0))
