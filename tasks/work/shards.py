"""A stage's work cut into shards that survive anything.

The plan (shard ids and their items) is fixed before work starts. A shard is one Parquet part, written under a temporary
name, flushed, renamed, in a scratch folder keyed by a fingerprint of parameters, code and inputs. Kill the stage at any
moment: the next run redoes at most the shards in flight and ends with byte-identical tables. The finished parts are
linked into the stage's output, since DVC deletes outputs before a run and the scratch folder survives it.

A shard that kills its worker, or that raises, is tried again item by item; the item that does it becomes a
row with a reason and its neighbours are kept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import file_sha256, is_as_stamped, read_json, stamp, sweep, write_json
from facemill.reasons import Reason, State
from facemill.schema import Row, TableSchema
from tasks.catalogue import metrics_file
from tasks.work.cluster import Pool, run_all
from tasks.work.failures import Cut, Lost
from tasks.work.progress import track

WORK_FOLDER = ".work"
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Shard:
    """What a shard function gets: an id, its items, and what the stage says to all of them. All of it picklable."""

    id: str
    items: tuple[Any, ...]
    settings: Any = None


ShardFunction = Callable[[Shard], pa.Table]
LostRow = Callable[[Any, Reason, str], Row]


@dataclass(frozen=True)
class Totals:
    """How a stage ended: every input in exactly one state.

    `seconds` are of this run, `worker_seconds` of all the work, that of interrupted earlier runs included; so the pace
    is counted in the latter. 0: nothing was given to workers.
    """

    stage: str
    rows_in: int
    counts: dict[str, dict[str, int]]
    seconds: float
    worker_seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def state(self, state: State | str) -> int:
        return sum(self.counts.get(str(state), {}).values())

    @property
    def rows_out(self) -> int:
        return sum(self.state(state) for state in State)

    def as_metrics(self) -> dict[str, Any]:
        """The same as plain values for `data/metrics/STAGE.json`, which `dvc metrics` reads."""
        reasons = {reason: n for by in self.counts.values() for reason, n in sorted(by.items()) if reason}
        states = {str(state): self.state(state) for state in State}
        times = {"seconds": round(self.seconds, 2), "worker_seconds": round(self.worker_seconds, 2)}
        pace = round(self.rows_in / self.worker_seconds, 2) if self.worker_seconds else None
        return {"in": self.rows_in, **states, "reasons": reasons, **times, "per_worker_second": pace, **self.extra}


@dataclass(frozen=True)
class Work:
    """The scratch folder of one stage for one fingerprint."""

    stage: str
    fingerprint: str
    folder: Path


def fingerprint(**parts: Any) -> str:
    """SHA-256 of plain values, 64 hex digits; equal values give equal fingerprints in any process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def code_version(*folders: str) -> str:
    """SHA-256 over the Python files below folders of the project (by default the library and the stages)."""
    digest = hashlib.sha256()
    for folder in folders or ("facemill", "tasks"):
        path = PROJECT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(PROJECT).as_posix()}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def open_work(root: Path, stage: str, **parts: Any) -> Work:
    """The scratch folder for these parameters, code and inputs; what a killed run left half-written is swept away."""
    key = fingerprint(code=code_version(), stage=stage, **parts)
    folder = root / WORK_FOLDER / stage / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return Work(stage, key, folder)


def plan_shards(items: Sequence[Any], rows_per_shard: int, settings: Any = None) -> list[Shard]:
    """Cuts items, in their order, into shards with stable ids."""
    starts = range(0, len(items), rows_per_shard)
    return [Shard(f"{n:05d}", tuple(items[at : at + rows_per_shard]), settings) for n, at in enumerate(starts)]


def run_shards(
    work: Work,
    shards: Sequence[Shard],
    function: ShardFunction,
    lost_row: LostRow[Row],
    schema: TableSchema[Row],
    pool: Pool,
    *,
    retry: bool = False,
    unit: str = "shards",
) -> float:
    """Works all shards that are not finished yet and leaves every part in the scratch folder.

    Args:
        work: the scratch folder.
        shards: the plan.
        function: makes the table of a shard; runs in a worker, must be importable there.
        lost_row: the row of an item that killed its worker or raised.
        schema: of the parts.
        pool: where the function runs; untouched when nothing is to do.
        retry: also redo the parts that hold failed rows.

    Returns:
        Seconds of work in the workers, those of earlier runs included.

    Raises:
        FacemillError: from a shard function, such as a full disk; finished shards are kept.
    """
    if retry:
        _drop_failed(work, shards, schema)
    waiting = [shard for shard in shards if not _is_finished(work, shard)]
    if waiting:
        with track(work.stage, len(shards), unit, len(shards) - len(waiting)) as progress:
            jobs = [(work, shard, function) for shard in waiting]
            for index, result in run_all(pool, _work_shard, jobs, _items):
                if isinstance(result, Cut):
                    _write_items(work, waiting[index], result, lost_row, schema)
                progress.advance()
    else:
        print(f"{work.stage}: nothing to do, {len(shards)} of {len(shards)} {unit} are there", flush=True)
    return float(sum(read_json(_receipt(work, shard))["seconds"] for shard in shards))


def publish(work: Work, shards: Sequence[Shard], output: Path) -> None:
    """Makes the output folder hold exactly the parts of the plan, in one step. Scratch of other fingerprints is
    dropped."""
    tables.publish_table(output, {f"{shard.id}.parquet": _part(work, shard) for shard in shards})
    drop_other_work(work)


def drop_other_work(work: Work) -> None:
    """Removes the stage's scratch folders of other fingerprints: at most one is kept."""
    for folder in work.folder.parent.iterdir():
        if folder.is_dir() and folder != work.folder:
            shutil.rmtree(folder, ignore_errors=True)


def count_rows(folder: Path, schema: TableSchema[Any]) -> dict[str, dict[str, int]]:
    """The rows of a table by state and reason."""
    table = tables.read_table(folder, schema, ["status", "error"])
    return tables.count_states(zip(table["status"].to_pylist(), table["error"].to_pylist(), strict=True))


def finish(root: Path, totals: Totals, failure_limit: float = 1.0) -> Totals:
    """Writes the stage's metrics and holds it to its promises.

    Raises:
        FacemillError: the totals do not reconcile, or more rows failed than the limit allows.
    """
    write_json(root / metrics_file(totals.stage), totals.as_metrics())
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


Job = tuple[Work, Shard, ShardFunction]


def _work_shard(job: Job) -> None:
    work, shard, _ = job
    table, seconds = _work_item(job)
    write_shard(work, shard, table, seconds)


def _items(job: Job) -> tuple[Callable[[Job], tuple[pa.Table, float]], list[Job]]:
    """A shard that killed its worker or raised, item by item: the guilty one becomes a row, its neighbours are kept."""
    work, shard, function = job
    return _work_item, [(work, Shard(shard.id, (item,), shard.settings), function) for item in shard.items]


def _work_item(job: Job) -> tuple[pa.Table, float]:
    _, shard, function = job
    start = time.monotonic()
    table = function(shard)
    return table, time.monotonic() - start


def _write_items(work: Work, shard: Shard, cut: Cut, lost_row: LostRow[Row], schema: TableSchema[Row]) -> None:
    pieces, seconds = [], 0.0
    for item, result in zip(shard.items, cut.results, strict=True):
        if isinstance(result, Lost):
            pieces.append(tables.from_rows([lost_row(item, result.reason, result.detail)], schema))
        else:
            pieces.append(result[0])
            seconds += result[1]
    write_shard(work, shard, pa.concat_tables(pieces).combine_chunks(), seconds)


def write_shard(work: Work, shard: Shard, table: pa.Table, seconds: float) -> None:
    """Writes a finished part, then its receipt: what it was written as."""
    part = _part(work, shard)
    tables.write_part(part, table)
    receipt = {"rows": len(table), "seconds": round(seconds, 4), "stamp": stamp(part), "sha256": file_sha256(part)}
    write_json(_receipt(work, shard), receipt)


def _is_finished(work: Work, shard: Shard) -> bool:
    """Whether the part is there as it was written: it may share its bytes with a table that somebody has damaged."""
    try:
        receipt = read_json(_receipt(work, shard))
        return is_as_stamped(_part(work, shard), receipt["stamp"], receipt["sha256"])
    except (FacemillError, KeyError, TypeError):
        return False


def _drop_failed(work: Work, shards: Sequence[Shard], schema: TableSchema[Any]) -> None:
    for shard in shards:
        if _is_finished(work, shard):
            part = _part(work, shard)
            if pc.any(pc.equal(tables.read_part(part, schema, ["status"])["status"], State.FAILED)).as_py():
                part.unlink()


def _part(work: Work, shard: Shard) -> Path:
    return work.folder / f"{shard.id}.parquet"


def _receipt(work: Work, shard: Shard) -> Path:
    return work.folder / f"{shard.id}.json"
