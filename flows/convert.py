"""Conversion: one Prefect task for each video, Dask workers underneath, then the stage `convert` publishes.

    facemill run convert                                        the project's archive
    facemill run convert --archive ~/footage --output ~/done    any two folders

Finished videos are never converted twice. A video that fails is a failed task with its reason and a row of the table;
the others go on.

A video has no deadline, since it may be of any length; a worker that has not got one frame further for minutes is
ended, its segment tried once more alone, and then the video is a row (`tasks.work.silence`).

The first Ctrl-C ends the run when the segments at work are done, the second at once.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import distributed  # noqa: F401  # sets its loggers up when it is imported first
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed, Failed

from facemill.errors import FacemillError
from facemill.files import read_json, sweep
from facemill.reasons import Reason
from facemill.swap.job import ConversionJob
from flows import pages, pictures
from flows.at_work import project_flow, sign_run
from flows.stages import Metrics, ProgressBar, forgiving, push, run_stage, show_pictures
from tasks.catalogue import Data
from tasks.convert import alone_in, publish, with_failure_limit
from tasks.converting.plan import ConversionPlan, plan_archive, plan_folder
from tasks.converting.ready import check_ready
from tasks.converting.rows import GrowingTable
from tasks.converting.state import Journal, read_status
from tasks.converting.videos import FindTracks, FrameCount, convert_video, videos_at_once
from tasks.params import ClusterParams, load_params
from tasks.stages import only_one
from tasks.versions import dvc
from tasks.work.cluster import Pool, open_pool
from tasks.work.failures import Interrupted
from tasks.work.interrupts import finishing

_TICK_S = 2.0
_TABLE_ROWS = 1000
"""Of the table on the page; the whole of it is in data/conversions."""


@project_flow("convert", waits=True)
def convert(retry: bool = False) -> Metrics:
    """Converts the archive of the project in whose folder it runs.

    Args:
        retry: take up videos that failed before, too.
    """
    project = Path.cwd()
    params = load_params(project)
    run_stage(project, "inventory")  # whether code, packages or the archive have changed since
    run_stage(project, "track")  # nothing to do, unless the archive has grown or the parameters are others
    if retry or dvc.stale(project, "convert"):
        with only_one(project, "convert"):
            convert_videos(plan_archive(params, project, retry=retry), params.cluster)
    metrics = run_stage(project, "convert", force=retry)
    push(project, ["convert"])
    return metrics


@flow(name="convert-folder")
def convert_folder(
    archive: Path, output: Path, model: Path | None = None, retry: bool = False, let_failures_pass: bool = False
) -> Metrics:
    """Converts any folder into any other. It reads and writes where it is told, so it takes that from nobody but the
    person who starts it here: there is no deployment of it, and one that somebody made is refused.

    Args:
        archive: a folder of videos.
        output: where their conversions go.
        model: the model folder, by default the project's.
        retry: take up videos that failed before because of what is in them, too.
        let_failures_pass: end well though some videos failed.

    Raises:
        FacemillError: it was started through a deployment, or its folders cannot be used.
    """
    if deployment.id is not None:
        raise FacemillError(
            "convert-folder runs where it is started, not through a deployment: those convert the archive"
        )
    project = Path.cwd()
    params = with_failure_limit(load_params(project), let_failures_pass=let_failures_pass)
    sign_run()
    with alone_in(output):
        plan = plan_folder(params, archive, output, model or project / Data.MODEL, project, retry=retry)
        try:
            convert_videos(plan, params.cluster)
        finally:
            sweep(output)  # what killed workers left half-written
        return publish(plan).as_metrics()


def convert_videos(plan: ConversionPlan, cluster: ClusterParams) -> None:
    """A task for each open job of the plan, a bounded number at a time; then the table and strips on the page.

    Raises:
        FacemillError: what no other video would survive either, such as a full disk.
        KeyboardInterrupt: a person has ended it, and what was at work has ended.
    """
    logger = get_run_logger()
    logger.info("%d of %d videos are there", len(plan.jobs) - len(plan.todo), len(plan.jobs))
    if not plan.todo:
        return
    check_ready(plan.todo, check_space=plan.check_space)
    logging.getLogger("distributed").setLevel(logging.WARNING)  # else each worker's coming and going is told
    bar = ProgressBar("convert-videos")
    seen: dict[str, Any] = {}  # what workers' threads told last, for the one thread that writes to the page
    count = FrameCount(plan.todo, seen.update, Journal(plan.state, plan.jobs, plan.rows, plan.lock).see)
    with open_pool(cluster) as pool, finishing(pool, "segments"), GrowingTable(plan) as table:
        for job in _bounded(pool, plan.todo, plan.tracking, count, lambda: bar.show(dict(seen))):
            table.add(job)
        bar.show(dict(seen), last=True)
    outcomes = {job.video: read_json(Path(job.outcome)) for job in plan.jobs}
    rows = pages.video_rows(outcomes | {row["video"]: row for row in plan.rows})
    with forgiving():
        states = ", ".join(f"{number} {stage}" for stage, number in sorted(read_status(plan.state).count().items()))
        said = f"{len(rows)} videos: {states}"
        create_table_artifact(rows[:_TABLE_ROWS], key="convert-videos", description=said)
    swapped = {row["video"] for row in rows if row["swapped"]}
    pairs = [(job.video, Path(job.input), Path(job.output)) for job in plan.todo if job.video in swapped]
    show_pictures("convert-strips", "Conversions", pictures.conversion_strips(pairs))


def _bounded(
    pool: Pool,
    jobs: Sequence[ConversionJob],
    tracking: FindTracks,
    count: FrameCount,
    on_tick: Callable[[], None],
) -> Iterator[ConversionJob]:
    """Runs a Prefect task for each job, about two for each worker at a time; yields the jobs as they end.

    An archive may have more videos than a task runner should have threads.
    """
    ended: queue.SimpleQueue[tuple[ConversionJob, PrefectFuture[Any]]] = queue.SimpleQueue()
    convert_one = _task_on(pool, tracking, count)
    waiting, window = iter(jobs), videos_at_once(pool)
    running, interrupted = 0, False
    while True:
        while running < window and not interrupted and (job := next(waiting, None)) is not None:
            future = convert_one.submit(job.video, job)
            future.add_done_callback(lambda future, job=job: ended.put((job, future)))
            running += 1
        if not running:
            break
        on_tick()
        try:
            job, future = ended.get(timeout=_TICK_S)
        except queue.Empty:
            continue
        running -= 1
        future.wait()  # it has ended; only then it knows its state
        if future.state.is_cancelled():
            interrupted = True  # so will be the others, each as soon as nothing of it is at work
            continue
        result = future.result(raise_on_failure=False)
        # A video that failed has an outcome on disk; an error without one is everybody's.
        if isinstance(result, FacemillError) or (isinstance(result, BaseException) and not Path(job.outcome).exists()):
            raise result
        yield job
    if interrupted:
        raise KeyboardInterrupt


def _task_on(pool: Pool, tracking: FindTracks, count: FrameCount) -> Any:
    """The task that gives a job to this pool. The pool is no parameter: Prefect looks into those."""

    @task(name="convert video", task_run_name="{video}", cache_policy=NO_CACHE)
    def convert_one(video: str, job: ConversionJob) -> State[Any]:
        try:
            result = convert_video(pool, job, tracking, count)
        except Interrupted:
            return Cancelled(message="not finished when the run was told to end: the next run goes on from there")
        if result["status"] != "ok":
            return Failed(message=f"{result['error']}: {result['detail'] or Reason(result['error']).sentence}")
        if result["receipt"]["passed_on"]:
            return Completed(message="nobody in it is replaced: passed on byte for byte")
        return Completed(message=f"{result['receipt']['frames_swapped']} frames swapped")

    return convert_one
