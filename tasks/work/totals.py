"""How a stage ends: its parts published, its rows counted, its promises held.

The parts come from `tasks.work.results`. They are linked into the stage's output, since DVC deletes outputs before a
run, and the results survive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import read_json, write_json
from facemill.reasons import State
from facemill.schema import TableSchema
from tasks.catalogue import metrics_file
from tasks.work.scratch import WORK_FOLDER


@dataclass(frozen=True)
class Totals:
    """How a stage ended: every input in exactly one state.

    Attributes:
        seconds: of this run.
        worker_seconds: of workers in this run, for the `worked` items that no earlier result held.
        kept_bytes: of results that are kept for the next runs.
        pace: further numbers of how fast it went.
        extra: further numbers of the stage; equal inputs give equal ones, since DVC takes them for an output.
    """

    stage: str
    rows_in: int
    counts: dict[str, dict[str, int]]
    seconds: float
    worker_seconds: float = 0.0
    worked: int = 0
    kept_bytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    pace: dict[str, Any] = field(default_factory=dict)

    def state(self, state: State | str) -> int:
        return sum(self.counts.get(str(state), {}).values())

    @property
    def rows_out(self) -> int:
        return sum(self.state(state) for state in State)

    def as_metrics(self) -> dict[str, Any]:
        """What `data/metrics/STAGE.json` has: nothing in it depends on when or how fast the stage ran."""
        reasons = {reason: n for by in self.counts.values() for reason, n in sorted(by.items()) if reason}
        states = {str(state): self.state(state) for state in State}
        return {"in": self.rows_in, **states, "reasons": reasons, **self.extra}

    def as_times(self) -> dict[str, Any]:
        """How long it took, for `.work/times/STAGE.json`, which is shown and decides nothing."""
        pace = round(self.worked / self.worker_seconds, 2) if self.worker_seconds else None
        return {
            "seconds": round(self.seconds, 2),
            "worker_seconds": round(self.worker_seconds, 2),
            "worked": self.worked,
            "per_worker_second": pace,
            "kept_bytes": self.kept_bytes,
            **self.pace,
        }


def publish_parts(parts: Mapping[str, Path], output: Path) -> None:
    """Makes the output folder hold exactly these parts under their names, in one step."""
    tables.publish_table(output, {f"{name}.parquet": path for name, path in parts.items()})


def times_file(root: Path, stage: str) -> Path:
    """Where the times of a stage's last run lie."""
    return root / WORK_FOLDER / "times" / f"{stage}.json"


def read_times(root: Path, stage: str) -> dict[str, Any]:
    """The times of a stage's last run in this folder; nothing where it has not run here."""
    try:
        times: dict[str, Any] = read_json(times_file(root, stage))
    except FacemillError:
        return {}
    return times if isinstance(times, dict) else {}


def count_rows(folder: Path, schema: TableSchema[Any]) -> dict[str, dict[str, int]]:
    """The rows of a table by state and reason."""
    parts = tables.iterate_parts(folder, schema, ["status", "error"])
    return tables.count_states(
        pair for part in parts for pair in zip(part["status"].to_pylist(), part["error"].to_pylist(), strict=True)
    )


def finish(root: Path, totals: Totals, failure_limit: float = 1.0) -> Totals:
    """Writes the stage's metrics and holds it to its promises.

    Raises:
        FacemillError: the totals do not reconcile, or more rows failed than the limit allows.
    """
    write_json(root / metrics_file(totals.stage), totals.as_metrics())
    write_json(times_file(root, totals.stage), totals.as_times())
    if totals.rows_in != totals.rows_out:
        raise FacemillError(
            f"{totals.stage}: {totals.rows_in} rows in, {totals.rows_out} out: a defect, please report it"
        )
    failed = totals.state(State.FAILED)
    if totals.rows_in and failed / totals.rows_in > failure_limit:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(totals.counts[State.FAILED].items()))
        raise FacemillError(
            f"{totals.stage}: {failed} of {totals.rows_in} rows failed ({reasons}), limit {failure_limit:.0%}. "
            f"See the rows' `detail`; mend them and run `facemill stage {totals.stage} --retry`, "
            f"or raise {totals.stage}.failure_limit"
        )
    return totals
