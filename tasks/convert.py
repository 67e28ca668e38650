"""Stage `convert`: the archive's videos with the faces of some people replaced by those of others.

Reads `data/videos` (one row a video), their tracks, `data/archive` or the archive folder, and `data/model`. Writes
`data/converted` (the videos, under the paths that they have in the archive) and `data/conversions` (one row a video:
ok, or failed with the reason). A video in which nobody is replaced is passed on byte for byte. A finished video lies in
a scratch folder under the hash of its input and is linked into the output, and so do the segments of one that is not
finished: an interrupted run, or an archive that has grown, costs only what is new.

`convert_folder` does the same for any two folders, without the tables: tracks and receipts lie in OUT/.facemill.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import publish_folder, read_json, sweep
from facemill.locks import locked
from facemill.reasons import State
from facemill.schema import ConversionRow
from facemill.swap.job import ConversionJob, Outcome, output_of
from tasks.converting.plan import ConversionPlan, lock_of, plan_archive, plan_folder
from tasks.converting.ready import check_ready
from tasks.converting.rows import GrowingTable, drop_grown, name_of, row_of, write_rows
from tasks.converting.state import Journal
from tasks.converting.videos import FrameCount, convert_videos
from tasks.params import ClusterParams, Params
from tasks.track import drop_unreached
from tasks.work.cluster import open_pool
from tasks.work.interrupts import finishing
from tasks.work.progress import track
from tasks.work.scratch import drop_other_folders
from tasks.work.terminal import say
from tasks.work.totals import Totals, finish

FAILURES_NAMED = 5  # in the message of a run with too many of them


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Runs the stage.

    Raises:
        FacemillError: no model, no table of videos, a full disk, or more failures than `convert.failure_limit`.
    """
    plan = plan_archive(params, root, retry=retry)
    work(plan, params.cluster)
    return publish(plan)


def with_failure_limit(params: Params, *, let_failures_pass: bool) -> Params:
    """The parameters for a folder that a person converts, who wants to know of each video that failed."""
    limit = 1.0 if let_failures_pass else 0.0
    return params.model_copy(update={"convert": replace(params.convert, failure_limit=limit)})


def convert_folder(
    params: Params, archive: Path, output: Path, model_dir: Path, root: Path = Path(), *, retry: bool = False
) -> Totals:
    """Converts all videos below a folder into another; run again it converts only what is new, changed, or failed for a
    reason that may be gone.

    Args:
        root: of the project: where relative paths of its parameters lie.
        retry: also take up videos whose own bytes were the reason.

    Raises:
        FacemillError: the folders overlap, another process is at it, no model, a full disk, or more failures than
            `convert.failure_limit`; what was converted stays.
    """
    with alone_in(output):
        plan = plan_folder(params, archive, output, model_dir, root, retry=retry)
        try:
            work(plan, params.cluster)
        finally:
            sweep(output)  # what killed workers left half-written
        return publish(plan)


def work(plan: ConversionPlan, cluster: ClusterParams) -> None:
    """Gives every open job to the cluster and records why a job has no outcome of its own.

    Raises:
        FacemillError: no job can be done, as `check_ready` finds; or as `convert_videos`.
    """
    if not plan.todo:
        say(f"Stage convert has nothing to do: all {len(plan.jobs)} videos were dealt with in earlier runs.")
        return
    check_ready(plan.todo, check_space=plan.check_space)
    with (
        track("convert", sum(job.frames for job in plan.todo), "frames") as progress,
        open_pool(cluster) as pool,
        finishing(pool, "segments"),
        GrowingTable(plan) as table,
    ):

        def show(values: dict[str, Any]) -> None:
            progress.total = values["total"]
            progress.advance(values["done"] - progress.done, note=values["note"])

        journal = Journal(plan.state, plan.jobs, plan.rows, plan.lock)
        count = FrameCount(plan.todo, show, journal.see)
        for job, _ in convert_videos(pool, plan.todo, plan.tracking, count):
            table.add(job)


def publish(plan: ConversionPlan) -> Totals:
    """Links the finished videos into the output, writes the table and holds the totals to their promise.

    Raises:
        FacemillError: a job without an outcome, or more failures than the limit; then all is published nonetheless.
    """
    outcomes = [_outcome(job) for job in plan.jobs]
    names = [name_of(plan, number, outcome) for number, outcome in enumerate(outcomes)]
    rows = [row_of(plan, number, outcome) for number, outcome in enumerate(outcomes)]
    rows = sorted([*rows, *plan.rows], key=lambda row: str(row["video"]))
    if plan.scratch is not None:
        _link(plan, names, outcomes)
        _drop_unplanned(plan)
        drop_other_folders(plan.scratch)
    if plan.tracked_into is not None:
        drop_unreached(plan.tracked_into, {outcome["input_sha256"] for outcome in outcomes if outcome["receipt"]})
    write_rows(plan.table, rows)
    drop_grown(plan)
    receipts = [outcome["receipt"] for outcome in outcomes if outcome["receipt"]]
    totals = Totals(
        stage="convert",
        rows_in=len(plan.jobs) + len(plan.rows),
        counts=tables.count_states((row["status"], row["error"]) for row in rows),
        seconds=time.monotonic() - plan.started,
        worker_seconds=sum(receipt["seconds"] for receipt in receipts),
        worked=len(receipts),
        extra=_frames(receipts),
        pace=_pace(receipts),
    )
    if plan.root is not None:
        return finish(plan.root, totals, plan.failure_limit)
    _hold(totals, rows, plan)
    return totals


def _hold(totals: Totals, rows: Sequence[ConversionRow], plan: ConversionPlan) -> None:
    """For two folders what `finish` is for the stage; names videos, since nobody looks into OUT/.facemill first."""
    failed = [row for row in rows if row["status"] == State.FAILED]
    if not rows or len(failed) / len(rows) <= plan.failure_limit:
        return
    named = [f"{row['video']}: {row['detail'] or row['error']}" for row in failed[:FAILURES_NAMED]]
    if len(failed) > FAILURES_NAMED:
        named.append(f"and {len(failed) - FAILURES_NAMED} more")
    raise FacemillError(
        f"convert: {len(failed)} of {totals.rows_in} videos failed, limit {plan.failure_limit:.0%} "
        f"({'; '.join(named)}). All rows lie in {plan.table}; the converted videos are kept. Mend the others and run "
        "the same command again, or let them pass with --let-failures-pass"
    )


def _outcome(job: ConversionJob) -> Outcome:
    if not Path(job.outcome).exists():
        raise FacemillError(
            f"{job.video} is not converted yet: run the same command again, it goes on where it stopped"
        )
    outcome: Outcome = read_json(Path(job.outcome))
    return outcome


def _link(plan: ConversionPlan, names: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Makes the output folder hold exactly the finished videos."""
    finished = zip(plan.jobs, names, outcomes, strict=True)
    publish_folder(
        plan.output,
        {name: output_of(job, outcome) for job, name, outcome in finished if outcome["status"] == State.OK},
    )


def _drop_unplanned(plan: ConversionPlan) -> None:
    """Removes finished videos from scratch that are no longer in the archive."""
    assert plan.scratch is not None
    wanted = {path for job in plan.jobs for path in (job.output, job.passed_on, job.outcome)}
    for path in plan.scratch.iterdir():
        if str(path) in wanted:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _frames(receipts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all videos for the metrics."""
    columns = ("frames_in", "frames_out", "frames_swapped", "frames_passed", "frames_failed")
    return {column: sum(receipt[column] for receipt in receipts) for column in columns}


def _pace(receipts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = sum(receipt["seconds"] for receipt in receipts)
    frames = sum(receipt["frames_out"] for receipt in receipts)
    return {"frames_per_second": round(frames / seconds, 2) if seconds else None}


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """One process at a time writes to an output folder. The lock dies with its process."""
    with locked(lock_of(output), f"another conversion is writing to {output}", "wait for it, or choose another folder"):
        yield
