"""The table of conversions, row by row: as videos end, and as a whole.

While a run is at work, and when it was interrupted, the table of what has ended so far lies where the run's state lies
(`.work/conversion` of a project, OUT/.facemill of two folders), for whoever wants to know before days are over.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from facemill import tables
from facemill.batches import batched
from facemill.errors import FacemillError
from facemill.files import read_json
from facemill.foreign_files import valid_name
from facemill.reasons import State
from facemill.schema import CONVERSIONS, ConversionRow
from facemill.swap.job import ConversionJob, Outcome
from tasks.converting.plan import ConversionPlan, becomes_rows

ROWS_PER_PART = 256
TABLE = "conversions"
_EVERY_S = 10.0
_MOST_SHARE = 0.01  # of the time, for a table of so many rows that writing it takes long


class GrowingTable:
    """The table of what has ended, written again every some seconds. A disk that cannot take it costs only that."""

    def __init__(self, plan: ConversionPlan) -> None:
        self._plan, self._path = plan, plan.state / TABLE
        self._numbers = defaultdict[str, list[int]](list)  # of one content there may be several videos
        for number, job in enumerate(plan.jobs):
            self._numbers[job.outcome].append(number)
        todo = {job.outcome for job in plan.todo}
        self._rows = {row["video"]: row for row in plan.rows}
        for outcome in self._numbers.keys() - todo:
            self._take(outcome)
        self._next = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()  # what ended since the last time, above all where the run is interrupted

    def add(self, job: ConversionJob) -> None:
        """A job has ended, however; its outcome is written."""
        self._take(job.outcome)
        if time.monotonic() >= self._next:
            self._write()

    def _write(self) -> None:
        start = time.monotonic()
        try:
            write_rows(self._path, sorted(self._rows.values(), key=lambda row: str(row["video"])))
        except (OSError, FacemillError):
            self._next = float("inf")
            return
        end = time.monotonic()
        self._next = end + max(_EVERY_S, (end - start) / _MOST_SHARE)

    def _take(self, path: str) -> None:
        outcome: Outcome = read_json(Path(path))
        for number in self._numbers[path]:
            row = row_of(self._plan, number, outcome)
            self._rows[row["video"]] = row


def drop_grown(plan: ConversionPlan) -> None:
    """The whole table is published: the one that grew would only grow old beside it."""
    if plan.state / TABLE != plan.table:
        shutil.rmtree(plan.state / TABLE, ignore_errors=True)


def name_of(plan: ConversionPlan, number: int, outcome: Outcome) -> str:
    """Under which name the video of a job of the plan lies in the output, if it does."""
    passed_on = outcome["receipt"] and outcome["receipt"]["passed_on"]
    return (plan.own_names if passed_on else plan.names)[number]


def row_of(plan: ConversionPlan, number: int, outcome: Outcome) -> ConversionRow:
    """The row of CONVERSIONS of a job of the plan: nothing in it depends on when or how fast it was converted."""
    job, receipt = plan.jobs[number], outcome["receipt"]
    row: ConversionRow = {
        "video": job.video,
        "input_sha256": outcome["input_sha256"],
        "becomes": becomes_rows(job.origin.becomes, receipt["swapped"] if receipt else None),
        "status": outcome["status"],
        "error": outcome["error"],
        "detail": outcome["detail"],
    }
    if outcome["status"] == State.OK:
        row["output"] = valid_name(name_of(plan, number, outcome))
    if receipt:
        row |= {
            "output_sha256": receipt["output_sha256"],
            "model_sha256": receipt["model_sha256"],
            "dataset": receipt["dataset"],
            "passed_on": receipt["passed_on"],
            "frames_in": receipt["frames_in"],
            "frames_out": receipt["frames_out"],
            "frames_swapped": receipt["frames_swapped"],
            "frames_passed": receipt["frames_passed"],
            "frames_failed": receipt["frames_failed"],
            "warnings": receipt["warnings"],
        }
    return row


def write_rows(folder: Path, rows: Sequence[ConversionRow]) -> None:
    """Writes the table as a whole."""
    parts = batched(rows, ROWS_PER_PART) if rows else [[]]
    tables.write_table(folder, (tables.from_rows(part, CONVERSIONS) for part in parts))
