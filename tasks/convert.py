"""Stage `convert`: the archive's videos with the face of one identity replaced.

Reads `data/videos` (one row a video), `data/archive` or the archive folder, and `data/model`. Writes `data/converted`
(the videos, under the paths that they have in the archive) and `data/conversions` (one row a video: ok, or failed with
the reason). A finished video lies in a scratch folder under the hash of its input and is linked into the output, so
that an interrupted run, or an archive that has grown, costs only what is new.

`convert_folder` does the same for any two folders, without the tables: receipts lie in OUT/.facemill.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import facemill
from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256, link_or_copy, read_json, sweep
from facemill.reasons import Reason, State
from facemill.sources.files import VIDEO_SUFFIXES, list_files
from facemill.swap.converter import SwapSettings
from facemill.swap.finder import FinderSettings
from facemill.swap.job import ConversionJob, Outcome, convert_one, describe, finished, lost
from facemill.video import EncoderSettings
from facemill.video.writer import CONTAINERS
from tasks.cluster import open_pool
from tasks.params import ClusterParams, ConvertParams, FolderArchive, Params
from tasks.progress import track
from tasks.shards import WORK_FOLDER, Totals, Work, code_version, drop_other_work, fingerprint, finish

STATE_FOLDER = ".facemill"
ROWS_PER_PART = 256
FAILURES_NAMED = 5  # in the message of a run with too many of them
# What decides about a converted video's bytes: a change here converts again.
CODE = (
    "facemill/align.py",
    "facemill/detect",
    "facemill/dlib_models.py",
    "facemill/identity.py",
    "facemill/landmarks.py",
    "facemill/nets",
    "facemill/swap",
    "facemill/train/checkpoint.py",
    "facemill/video",
)

__all__ = ["Plan", "convert_folder", "convert_one", "plan_archive", "plan_folder", "publish", "run", "work"]


@dataclass(frozen=True)
class Plan:
    """What there is to do, fixed before work starts. Plain data.

    Attributes:
        jobs: one for each video that can be opened, each to be given to `convert_one`.
        todo: those of them that have no outcome yet.
        rows: the finished rows of videos that never get a job.
        names: output path inside the archive for each job.
        output: folder of the converted videos; `table`: folder of the CONVERSIONS table.
        failure_limit: largest share of failed rows.
        root: the project whose metrics are written; None for `convert_folder`.
        scratch: where the jobs write; None where that is `output` itself.
    """

    jobs: tuple[ConversionJob, ...]
    todo: tuple[ConversionJob, ...]
    rows: tuple[dict[str, Any], ...]
    names: tuple[str, ...]
    output: Path
    table: Path
    failure_limit: float
    root: Path | None = None
    scratch: Work | None = None
    started: float = field(default_factory=time.monotonic)


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Runs the stage.

    Raises:
        FacemillError: no model, no table of videos, a full disk, or more failures than `convert.failure_limit`.
    """
    plan = plan_archive(params, root, retry=retry)
    work(plan, params.cluster)
    return publish(plan)


def convert_folder(params: Params, archive: Path, output: Path, model_dir: Path) -> Totals:
    """Converts all videos below a folder into another; run again it converts only what is new, changed or failed.

    Raises:
        FacemillError: the folders overlap, another process is at it, no model, a full disk, or more failures than
            `convert.failure_limit`; what was converted stays.
    """
    with alone_in(output):
        plan = plan_folder(params, archive, output, model_dir)
        try:
            work(plan, params.cluster)
        finally:
            sweep(output)  # what killed workers left half-written
        return publish(plan)


def plan_archive(params: Params, root: Path, *, retry: bool = False) -> Plan:
    """The plan of the stage: jobs write to scratch under the hash of their input."""
    data = root / "data"
    rows = tables.read_table(data / "videos", schema.VIDEOS).to_pylist()
    settings = swap_settings(params.convert)
    common = _common(params.convert, data / "model", settings, code_version(*CODE))
    scratch = _scratch(root, common["fingerprint"])
    archive = (
        root / Path(params.archive.path).expanduser() if isinstance(params.archive, FolderArchive) else data / "archive"
    )
    names = output_names([row["video"] for row in rows])
    jobs, job_names, lost_rows = [], [], []
    for row, name in zip(rows, names, strict=True):
        if row["status"] != State.OK:
            state = {"status": row["status"], "error": row["error"], "detail": row["detail"]}
            lost_rows.append(
                {"video": row["video"], "input_sha256": row["sha256"], **_identities(params.convert), **state}
            )
            continue
        stem = str(scratch.folder / row["sha256"][:32])
        suffix = PurePosixPath(name).suffix.lower()
        jobs.append(
            ConversionJob(
                video=row["video"],
                source=str(archive / row["video"]),
                output=stem + suffix,
                outcome=f"{stem}{suffix}.json",
                input_sha256=row["sha256"],
                **common,
            )
        )
        job_names.append(name)
    return Plan(
        jobs=tuple(jobs),
        todo=_todo(jobs, retry=retry),
        rows=tuple(lost_rows),
        names=tuple(job_names),
        output=data / "converted",
        table=data / "conversions",
        failure_limit=params.convert.failure_limit,
        root=root,
        scratch=scratch,
    )


def plan_folder(params: Params, archive: Path, output: Path, model_dir: Path) -> Plan:
    """The plan for two folders: jobs write straight to their place, receipts to OUT/.facemill/receipts."""
    archive, output = archive.resolve(), output.resolve()
    if output == archive or output.is_relative_to(archive) or archive.is_relative_to(output):
        raise FacemillError(f"{output} and {archive} lie in each other: choose an output folder outside the archive")
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    files = list_files(archive, VIDEO_SUFFIXES)
    if not files:
        raise FacemillError(
            f"no video in {archive}: files are taken by their suffix ({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    common = _common(params.convert, model_dir, swap_settings(params.convert), facemill.__version__)
    videos = [path.relative_to(archive).as_posix() for path in files]
    names = output_names(videos)
    jobs = [
        ConversionJob(
            video=_printable(video),
            source=str(path),
            output=str(output / name),
            outcome=str(output / STATE_FOLDER / "receipts" / f"{name}.json"),
            **common,
        )
        for path, video, name in zip(files, videos, names, strict=True)
    ]
    return Plan(
        jobs=tuple(jobs),
        todo=_todo(jobs, retry=True),
        rows=(),
        names=tuple(names),
        output=output,
        table=output / STATE_FOLDER / "conversions",
        failure_limit=params.convert.failure_limit,
    )


def work(plan: Plan, cluster: ClusterParams) -> None:
    """Gives every open job to the cluster. A job that kills its worker is tried once more, alone."""
    if not plan.todo:
        print(f"convert: nothing to do, {len(plan.jobs)} of {len(plan.jobs)} videos are there", flush=True)
        return
    done = len(plan.jobs) - len(plan.todo)
    with track("convert", len(plan.jobs), "videos", done) as progress, open_pool(cluster) as pool:
        killed = []
        for index, result in pool.run(convert_one, plan.todo):
            job = plan.todo[index]
            if type(result).__name__ == "KilledWorker":
                killed.append(job)
                continue
            _settle(job, result)
            progress.advance(note=job.video)
        for job in killed:
            [(_, result)] = list(pool.run(convert_one, [job]))
            if type(result).__name__ == "KilledWorker":
                lost(job, Reason.WORKER_KILLED, "")
            else:
                _settle(job, result)
            progress.advance(note=job.video)


def publish(plan: Plan) -> Totals:
    """Links the finished videos into the output, writes the table and holds the totals to their promise.

    Raises:
        FacemillError: a job without an outcome, or more failures than the limit; then all is published nonetheless.
    """
    outcomes = [_outcome(job) for job in plan.jobs]
    rows = [_row(job, name, outcome) for job, name, outcome in zip(plan.jobs, plan.names, outcomes, strict=True)]
    rows = sorted([*rows, *plan.rows], key=lambda row: str(row["video"]))
    if plan.scratch is not None:
        _link(plan, outcomes)
        _drop_unplanned(plan)
        drop_other_work(plan.scratch)
    _write_table(plan.table, rows)
    receipts = [outcome["receipt"] for outcome in outcomes if outcome["receipt"]]
    totals = Totals(
        stage="convert",
        rows_in=len(plan.jobs) + len(plan.rows),
        counts=tables.count_states((row["status"], row["error"]) for row in rows),
        seconds=time.monotonic() - plan.started,
        worker_seconds=sum(receipt["seconds"] for receipt in receipts),
        extra=_frames(receipts),
    )
    if plan.root is not None:
        return finish(plan.root, totals, plan.failure_limit)
    _hold(totals, rows, plan)
    return totals


def _hold(totals: Totals, rows: Sequence[dict[str, Any]], plan: Plan) -> None:
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
        "the same command again, or raise convert.failure_limit"
    )


def swap_settings(params: ConvertParams) -> SwapSettings:
    """The library's settings from the parameters."""
    return SwapSettings(
        detector=params.detector,
        finder=FinderSettings(
            detect_every=params.detect_every,
            verify_every=params.verify_every,
            identity_distance=params.identity_distance,
            min_face_px=params.min_face_px,
            max_side_px=params.max_side_px,
            smoothing=params.smoothing,
        ),
        colour=params.colour,
        blend=params.blend,
        feather=params.feather,
        sharpen=params.sharpen,
        batch=params.batch,
        encoder=EncoderSettings(encoder=params.encoder, crf=params.crf, preset=params.encoder_preset),
        frame_failure_limit=params.frame_failure_limit,
        device=params.device,
    )


def output_names(videos: Sequence[str]) -> list[str]:
    """Output paths for paths inside an archive. Containers that cannot be written get `.mp4` behind their name, so that
    `a.avi` and `a.mp4` stay two; a name that is taken gets a number."""
    taken: set[str] = {video for video in videos if PurePosixPath(video).suffix.lower() in CONTAINERS}
    names = []
    for video in videos:
        name = video
        if video not in taken:
            name, number = f"{video}.mp4", 1
            while name in taken:
                number += 1
                name = f"{video}.{number}.mp4"
            taken.add(name)
        names.append(name)
    return names


def _common(params: ConvertParams, model_dir: Path, settings: SwapSettings, code: str) -> dict[str, Any]:
    """What all jobs of a plan share."""
    if not (model_dir / "model.json").is_file():
        raise FacemillError(f"no model in {model_dir}: run the stage train first, or name a model folder with --model")
    key = fingerprint(code=code, model=folder_sha256(model_dir), settings=describe(settings), **_identities(params))
    return {"model_dir": str(model_dir), "settings": settings, "fingerprint": key, **_identities(params)}


def _identities(params: ConvertParams) -> dict[str, str]:
    return {"source_identity": params.source, "target_identity": params.target}


def _scratch(root: Path, key: str) -> Work:
    folder = root / WORK_FOLDER / "convert" / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return Work("convert", key, folder)


def _todo(jobs: Sequence[ConversionJob], *, retry: bool) -> tuple[ConversionJob, ...]:
    """Jobs without an outcome, each input once; with `retry` also those that failed."""
    todo: dict[str, ConversionJob] = {}
    for job in jobs:
        outcome = finished(job)
        if outcome is None or (retry and outcome["status"] != State.OK):
            todo.setdefault(job.outcome, job)
    return tuple(todo.values())


def _settle(job: ConversionJob, result: Any) -> None:
    if isinstance(result, FacemillError):
        raise result
    if isinstance(result, BaseException):
        lost(job, Reason.PROCESSING_ERROR, f"{type(result).__name__}: {result}")


def _outcome(job: ConversionJob) -> Outcome:
    if not Path(job.outcome).exists():
        raise FacemillError(
            f"{job.video} is not converted yet: run the same command again, it goes on where it stopped"
        )
    outcome: Outcome = read_json(Path(job.outcome))
    return outcome


def _row(job: ConversionJob, name: str, outcome: Outcome) -> dict[str, Any]:
    """A row of CONVERSIONS: nothing in it depends on when or how fast the video was converted."""
    row = {
        "video": job.video,
        "output": _printable(name) if outcome["status"] == State.OK else None,
        "input_sha256": outcome["input_sha256"],
        "source_identity": job.source_identity,
        "target_identity": job.target_identity,
        "status": outcome["status"],
        "error": outcome["error"],
        "detail": outcome["detail"],
    }
    receipt = outcome["receipt"] or {}
    return row | {column: receipt.get(column) for column in schema.CONVERSIONS.names if column not in row}


def _link(plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Makes the output folder hold exactly the finished videos."""
    plan.output.mkdir(parents=True, exist_ok=True)
    wanted = {
        plan.output / name for name, outcome in zip(plan.names, outcomes, strict=True) if outcome["status"] == State.OK
    }
    for path in sorted(plan.output.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()
    for job, name, outcome in zip(plan.jobs, plan.names, outcomes, strict=True):
        if outcome["status"] == State.OK:
            link_or_copy(Path(job.output), plan.output / name)


def _drop_unplanned(plan: Plan) -> None:
    """Removes finished videos from scratch that are no longer in the archive."""
    assert plan.scratch is not None
    wanted = {job.output for job in plan.jobs} | {job.outcome for job in plan.jobs}
    for path in plan.scratch.folder.iterdir():
        if str(path) not in wanted:
            path.unlink(missing_ok=True)


def _write_table(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    starts = range(0, max(1, len(rows)), ROWS_PER_PART)
    parts = {f"{n:05d}.parquet": rows[at : at + ROWS_PER_PART] for n, at in enumerate(starts)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        tables.write_part(folder / name, tables.from_rows(part, schema.CONVERSIONS))
    for path in tables.parts(folder):
        if path.name not in parts:
            path.unlink()


def _frames(receipts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all videos for the metrics."""
    columns = ("frames_in", "frames_out", "frames_swapped", "frames_passed", "frames_failed")
    sums: dict[str, Any] = {column: sum(receipt[column] for receipt in receipts) for column in columns}
    seconds = sum(receipt["seconds"] for receipt in receipts)
    return sums | {"frames_per_second": round(sums["frames_out"] / seconds, 2) if seconds else None}


def _printable(name: str) -> str:
    """A path as valid Unicode: file systems allow bytes that Parquet does not."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """One process at a time writes to an output folder. The lock dies with its process."""
    path = output / STATE_FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FacemillError(
                f"another conversion is writing to {output}: wait for it, or choose another folder"
            ) from error
        yield
