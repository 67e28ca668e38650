"""What there is to convert: the plan of the stage `convert`, and that of one folder into another.

A plan names every video, its job and where the job writes, before any work starts. A job's fingerprint covers the
model, the settings, the identities and the code that decides about bytes: a video with an outcome under that
fingerprint is done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256, read_object, sweep
from facemill.foreign_files import fitting_name, valid_name
from facemill.landmarks import signature
from facemill.model_folder import MODEL_FILE
from facemill.reasons import State
from facemill.schema import VIDEOS, ConversionRow, PairOfIdentities, VideoRow
from facemill.swap.job import ConversionJob, describe, finished
from facemill.video import list_videos
from facemill.video.encoder import CONTAINERS, container_holds
from tasks.catalogue import Data
from tasks.params import ConvertParams, Params
from tasks.paths import archive_folder
from tasks.work.deciders import Deciders, deciders_of, plugins_of, read_deciders
from tasks.work.plugin_files import deciding_options, placed_options
from tasks.work.results import content_key
from tasks.work.scratch import keyed_folder
from tasks.work.terminal import say

STATE_FOLDER = ".facemill"


@dataclass(frozen=True)
class ConversionPlan:
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
    rows: tuple[ConversionRow, ...]
    names: tuple[str, ...]
    output: Path
    table: Path
    failure_limit: float
    root: Path | None = None
    scratch: Path | None = None
    started: float = field(default_factory=time.monotonic)


def plan_archive(params: Params, root: Path, *, retry: bool = False) -> ConversionPlan:
    """The plan of the stage: jobs write to scratch under the hash of their input."""
    rows = list(tables.iterate_rows(root / Data.VIDEOS, VIDEOS))
    common = _common(params.convert, root / Data.MODEL, root, read_deciders(root, "convert", params))
    scratch = keyed_folder(root, "convert", common["fingerprint"])
    archive = archive_folder(params, root)
    names = output_names([row["video"] for row in rows], params.convert.encoder.name)
    jobs, job_names = list[ConversionJob](), list[str]()
    lost_rows = list[ConversionRow]()
    for row, name in zip(rows, names, strict=True):
        if row["status"] != State.OK:
            lost_rows.append(_lost_row(row, common["becomes"]))
            continue
        stem = str(scratch / row["sha256"][:32])
        suffix = PurePosixPath(name).suffix.lower()
        jobs.append(
            ConversionJob(
                video=row["video"],
                input=str(archive / row["video"]),
                output=stem + suffix,
                outcome=f"{stem}{suffix}.json",
                input_sha256=row["sha256"],
                **common,
            )
        )
        job_names.append(name)
    return ConversionPlan(
        jobs=tuple(jobs),
        todo=_todo(jobs, retry=retry),
        rows=tuple(lost_rows),
        names=tuple(job_names),
        output=root / Data.CONVERTED,
        table=root / Data.CONVERSIONS,
        failure_limit=params.convert.failure_limit,
        root=root,
        scratch=scratch,
    )


def plan_folder(params: Params, archive: Path, output: Path, model_dir: Path, root: Path = Path()) -> ConversionPlan:
    """The plan for two folders: jobs write straight to their place, receipts to OUT/.facemill/receipts.

    Args:
        root: of the project: where relative paths of its parameters lie.
    """
    archive, output = archive.resolve(), output.resolve()
    if output == archive or output.is_relative_to(archive) or archive.is_relative_to(output):
        raise FacemillError(f"{output} and {archive} lie in each other: choose an output folder outside the archive")
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    files = list_videos(archive, say)
    if not files:
        raise FacemillError(f"no video in {archive}: put some there, or name another folder")
    common = _common(params.convert, model_dir, root, deciders_of("convert", plugins_of("convert", params)))
    videos = [path.relative_to(archive).as_posix() for path in files]
    names = output_names(videos, params.convert.encoder.name)
    jobs = [
        ConversionJob(
            video=valid_name(video),
            input=str(path),
            output=str(output / name),
            outcome=str(output / STATE_FOLDER / "receipts" / fitting_name(name, ".json")),
            **common,
        )
        for path, video, name in zip(files, videos, names, strict=True)
    ]
    return ConversionPlan(
        jobs=tuple(jobs),
        todo=_todo(jobs, retry=True),
        rows=(),
        names=tuple(names),
        output=output,
        table=output / STATE_FOLDER / "conversions",
        failure_limit=params.convert.failure_limit,
    )


def output_names(videos: Sequence[str], encoder: str = "libx264") -> list[str]:
    """Output paths for paths inside an archive. Containers that cannot be written, or cannot hold what the encoder
    gives, get `.mp4` behind their name, so that `a.avi` and `a.mp4` stay two; a name that is taken gets a number."""
    kept = {suffix for suffix, container in CONTAINERS.items() if container_holds(container, encoder)}
    taken: set[str] = {video for video in videos if PurePosixPath(video).suffix.lower() in kept}
    names = []
    for video in videos:
        name = video
        if video not in taken:
            name, number = fitting_name(video, ".mp4"), 1
            while name in taken:
                number += 1
                name = fitting_name(video, f".{number}.mp4")
            taken.add(name)
        names.append(name)
    return names


def _common(params: ConvertParams, model_dir: Path, root: Path, deciders: Deciders) -> dict[str, Any]:
    """What all jobs of a plan share."""
    if not (model_dir / MODEL_FILE).is_file():
        raise FacemillError(f"no model in {model_dir}: run the stage train first, or name a model folder with --model")
    becomes = dict(sorted(params.becomes.items()))  # in whatever order they are written, the videos are the same
    _check_landmarks(params, model_dir)
    known, placed = deciding_options(params, root), placed_options(params, root)
    deciding = describe(replace(params, detector_options=known.detector, landmark_options=known.landmarks))
    key = content_key(deciders.key, folder_sha256(model_dir), deciding, becomes)
    settings = replace(params, detector_options=placed.detector, landmark_options=placed.landmarks)
    return {"model_dir": str(model_dir), "settings": settings, "fingerprint": key, "becomes": becomes}


def _check_landmarks(params: ConvertParams, model_dir: Path) -> None:
    """Raises FacemillError where the model was trained on another predictor's points: each face would be drawn shifted,
    since predictors disagree about jaw and brows by several percent of the face."""
    trained = read_object(model_dir / MODEL_FILE).get("landmarks")
    if trained != (found := signature(params.landmarks)):
        raise FacemillError(
            f"the model in {model_dir} was trained on the landmarks of {trained}, convert.landmarks gives those of "
            f"{found}: set convert.landmarks to the model's, or train one on extract.landmarks: {params.landmarks}"
        )


def becomes_rows(becomes: Mapping[str, str], frames: Mapping[str, int] | None = None) -> list[PairOfIdentities]:
    """The column `becomes` of CONVERSIONS.

    Args:
        becomes: identity that is replaced → identity that is put there.
        frames: in how many each identity was replaced; None for a video that was not converted.
    """
    return [
        {"replaced": replaced, "new": new, "frames": frames[replaced] if frames else None}
        for replaced, new in becomes.items()
    ]


def _lost_row(video: VideoRow, becomes: Mapping[str, str]) -> ConversionRow:
    """The row of a video that cannot be opened: the state in which `collect` found it."""
    return {
        "video": video["video"],
        "input_sha256": video["sha256"],
        "becomes": becomes_rows(becomes),
        "status": video["status"],
        "error": video["error"],
        "detail": video["detail"],
    }


def _todo(jobs: Sequence[ConversionJob], *, retry: bool) -> tuple[ConversionJob, ...]:
    """Jobs without an outcome, each input once; with `retry` also those that failed."""
    todo: dict[str, ConversionJob] = {}
    for job in jobs:
        outcome = finished(job)
        if outcome is None or (retry and outcome["status"] != State.OK):
            todo.setdefault(job.outcome, job)
    return tuple(todo.values())
