"""What there is to convert: the plan of the stage `convert`, and that of one folder into another.

A plan names every video, its job and where the job writes, before any work starts. A job's fingerprint covers the
model, the settings, the identities and the code that decides about bytes: a video with an outcome under that
fingerprint is done.
"""

from __future__ import annotations

import shutil
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from facemill import tables
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, read_object, scratch_path, sweep
from facemill.foreign_files import fitting_name, valid_name
from facemill.landmarks import signature
from facemill.media import kind_in, list_media, media_facts, still_kind, written_suffix
from facemill.model_folder import MODEL_FILE
from facemill.reasons import PERMANENT, Reason, State
from facemill.schema import VIDEOS, ConversionRow, PairOfIdentities, VideoRow
from facemill.swap.job import ConversionJob, TrackedInput, describe, finished
from facemill.swap.swapper import check_becomes
from facemill.video.encoder import CONTAINERS, container_holds
from tasks.catalogue import Data
from tasks.converting.corrections import read_corrections
from tasks.converting.videos import FindTracks
from tasks.licences import check_conversion
from tasks.params import Params
from tasks.paths import archive_folder
from tasks.stages import stage_lock
from tasks.track import ArchiveVideo, Tracking, open_tracking, track_video, tracked_files, tracking_key
from tasks.work.cluster import Pool, run_all
from tasks.work.deciders import Deciders, deciders_of, plugins_of, read_deciders
from tasks.work.failures import Lost
from tasks.work.plugin_files import deciding_occlusion, placed_occlusion
from tasks.work.results import content_key
from tasks.work.scratch import WORK_FOLDER, keyed_folder
from tasks.work.terminal import say

STATE_FOLDER = ".facemill"


@dataclass(frozen=True)
class ConversionPlan:
    """What there is to do, fixed before work starts. Plain data.

    Attributes:
        jobs: one for each video that can be opened, each to be given to `convert_video`.
        todo: those of them that have no outcome yet, the longest first.
        tracking: finds a job's video tracked, or tracks it.
        rows: the finished rows of videos that never get a job.
        names: output path inside the archive for each job, if anybody in its video is replaced.
        own_names: the same if nobody is: the video's own, whatever its container.
        output: folder of the converted videos; `table`: folder of the CONVERSIONS table.
        failure_limit: largest share of failed rows.
        check_space: whether too little space ends the run beforehand.
        root: the project whose metrics are written; None for `convert_folder`.
        scratch: where the jobs write; None where that is `output` itself.
        tracked_into: what the videos were tracked with where the stage `track` had not done it.
        state: folder in which it is written down how far the work is; `lock`: what is locked while it goes on.
    """

    jobs: tuple[ConversionJob, ...]
    todo: tuple[ConversionJob, ...]
    rows: tuple[ConversionRow, ...]
    names: tuple[str, ...]
    own_names: tuple[str, ...]
    tracking: FindTracks
    output: Path
    table: Path
    failure_limit: float
    check_space: bool
    state: Path
    lock: Path
    tracked_into: Tracking | None = None
    root: Path | None = None
    scratch: Path | None = None
    started: float = field(default_factory=time.monotonic)


def lock_of(output: Path) -> Path:
    """The file that is locked while a conversion writes to an output folder."""
    return output / STATE_FOLDER / "lock"


def state_folder(root: Path) -> Path:
    """Where it is written down how far the conversion of a project's archive is."""
    return root / WORK_FOLDER / "conversion"


def plan_archive(params: Params, root: Path, *, retry: bool = False) -> ConversionPlan:
    """The plan of the stage: jobs write to scratch under the hash of their input."""
    rows = list(tables.iterate_rows(root / Data.VIDEOS, VIDEOS))
    convert = read_deciders(root, "convert", params)
    common = _common(params, root, root / Data.MODEL, convert, tracking_key(params, root))
    scratch = keyed_folder(root, "convert", common["fingerprint"])
    archive, corrections = archive_folder(params, root), read_corrections(root, params.identities)
    stills = {row["video"]: kind for row in rows if (kind := kind_in(row["codec"]))}
    names = output_names([row["video"] for row in rows], params.convert.encoder.name, stills)
    jobs, job_names, own_names = list[ConversionJob](), list[str](), list[str]()
    lost_rows = list[ConversionRow]()
    for row, name in zip(rows, names, strict=True):
        if row["status"] != State.OK:
            lost_rows.append(_lost_row(row, common["origin"].becomes))
            continue
        stem = str(scratch / row["sha256"][:32])
        suffix = PurePosixPath(name).suffix.lower()
        jobs.append(
            ConversionJob(
                video=row["video"],
                input=str(archive / row["video"]),
                output=stem + suffix,
                passed_on=f"{stem}.as-it-is{PurePosixPath(row['video']).suffix.lower()}",
                outcome=f"{stem}{suffix}.json",
                parts=f"{stem}{suffix}.parts",
                input_sha256=row["sha256"],
                frames=row["frames"] or 0,
                **_with_corrections(common, corrections.get(row["video"], {})),
            )
        )
        job_names.append(name)
        own_names.append(row["video"])
    check_alike([*job_names, *own_names], (root / Data.CONVERTED).parent)
    return ConversionPlan(
        jobs=tuple(jobs),
        todo=_todo(jobs, retry=retry),
        rows=tuple(lost_rows),
        names=tuple(job_names),
        own_names=tuple(own_names),
        tracking=partial(_tracked_by_stage, root),
        output=root / Data.CONVERTED,
        table=root / Data.CONVERSIONS,
        failure_limit=params.convert.failure_limit,
        check_space=params.convert.check_space,
        state=state_folder(root),
        lock=stage_lock(root, "convert"),
        root=root,
        scratch=scratch,
    )


def plan_folder(
    params: Params, archive: Path, output: Path, model_dir: Path, root: Path = Path(), *, retry: bool = False
) -> ConversionPlan:
    """The plan for two folders: jobs write straight to their place, receipts to OUT/.facemill/receipts.

    Args:
        root: of the project: where relative paths of its parameters lie.
    """
    archive, output = archive.resolve(), output.resolve()
    above = archive.parent if archive.is_file() else archive
    if output == above or (above == archive and (output.is_relative_to(above) or above.is_relative_to(output))):
        raise FacemillError(f"{output} and {archive} lie in each other: choose an output folder outside the archive")
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    files = list_media(archive, say)
    if not files:
        raise FacemillError(f"no video in {archive}, and no picture: put some there, or name another folder")
    tracking = open_tracking(params, root, output / STATE_FOLDER / "tracks")
    common = _common(params, root, model_dir, deciders_of("convert", plugins_of("convert", params)), tracking.key)
    videos = [path.relative_to(above).as_posix() for path in files]
    stills = {video: kind for path, video in zip(files, videos, strict=True) if (kind := still_kind(path))}
    names = output_names(videos, params.convert.encoder.name, stills)
    check_alike([*names, *videos], output)
    corrections = read_corrections(root, params.identities)
    jobs = [
        ConversionJob(
            video=valid_name(video),
            input=str(path),
            output=str(output / name),
            passed_on=str(output / video),
            outcome=str(output / STATE_FOLDER / "receipts" / fitting_name(name, ".json")),
            parts=str(output / STATE_FOLDER / "parts" / content_key(name)),
            frames=_stated_frames(path),
            **_with_corrections(common, corrections.get(valid_name(video), {})),
        )
        for path, video, name in zip(files, videos, names, strict=True)
    ]
    return ConversionPlan(
        jobs=tuple(jobs),
        todo=_todo(jobs, retry=retry),
        rows=(),
        names=tuple(names),
        own_names=tuple(videos),
        tracking=partial(_track_into, tracking),
        output=output,
        table=output / STATE_FOLDER / "conversions",
        failure_limit=params.convert.failure_limit,
        check_space=params.convert.check_space,
        state=output / STATE_FOLDER,
        lock=lock_of(output),
        tracked_into=tracking,
    )


def preview_jobs(params: Params, videos: Path, model_dir: Path, root: Path) -> tuple[list[ConversionJob], FindTracks]:
    """Jobs of a video or picture, or of all of a folder, that nobody converts, and how they are tracked.

    Raises:
        FacemillError: no model, or neither videos nor pictures there.
    """
    videos = videos.resolve()
    files = [videos] if videos.is_file() else list_media(videos, say)
    if not files:
        raise FacemillError(f"no video in {videos}, and no picture: name one or a folder of some")
    above = videos.parent if videos.is_file() else videos
    state = root / WORK_FOLDER / "preview"
    tracking = open_tracking(params, root, state)
    common = _common(params, root, model_dir, deciders_of("convert", plugins_of("convert", params)), tracking.key)
    corrections = read_corrections(root, params.identities)
    jobs = []
    for path in files:
        video = valid_name(path.relative_to(above).as_posix())
        own = _with_corrections(common, corrections.get(video, {}))
        nowhere: dict[str, Any] = {name: str(state / "none") for name in ("output", "passed_on", "outcome", "parts")}
        jobs.append(ConversionJob(video=video, input=str(path), **nowhere, **own))
    return jobs, partial(_track_into, tracking)


def output_names(
    videos: Sequence[str], encoder: str = "libx264", stills: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Output paths for paths inside an archive. Containers that cannot be written, or cannot hold what the encoder
    gives, get `.mp4` behind their name, so that `a.avi` and `a.mp4` stay two, and kinds of pictures that cannot be
    written get `.png`; a name that is taken gets a number.

    Args:
        videos: paths, of which `stills` has the kind of those that are still pictures.
    """
    kept = {suffix for suffix, container in CONTAINERS.items() if container_holds(container, encoder)}
    taken = set(videos)  # what is passed on keeps its name, whatever its kind
    names = []
    for video in videos:
        name = video
        own = PurePosixPath(video).suffix.lower() in kept
        behind = written_suffix(stills[video]) if video in stills else None if own else ".mp4"
        if behind is not None:
            name, number = fitting_name(video, behind), 1
            while name in taken:
                number += 1
                name = fitting_name(video, f".{number}{behind}")
            taken.add(name)
        names.append(name)
    return names


def check_alike(names: Iterable[str], output: Path) -> None:
    """Some file systems take names for one that differ in case, or in the way that Unicode spells a letter: there one
    video would overwrite another.

    Args:
        names: output paths inside `output`, which exists.

    Raises:
        FacemillError: two of them are one there.
    """
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name and not tells_apart(output, other, name):
            raise FacemillError(
                f"{other} and {name} are one name for the file system of {output}: rename one of them, or choose an "
                "output folder on another file system"
            )


def tells_apart(folder: Path, one: str, other: str) -> bool:
    """Whether two paths, with as many parts, are two files in a folder."""
    first, second = next(
        pair for pair in zip(PurePosixPath(one).parts, PurePosixPath(other).parts, strict=True) if pair[0] != pair[1]
    )
    with scratch_path(folder / "names") as place:
        place.mkdir()
        try:
            (place / first).touch()
            return not (place / second).exists()
        finally:
            shutil.rmtree(place)


def _tracked_by_stage(root: Path, pool: Pool, job: ConversionJob) -> TrackedInput:
    """The tables of the stage `track` have a part of every video that could be opened."""
    assert job.input_sha256 is not None
    files = tracked_files(root, job.input_sha256)
    if missing := [path for path in vars(files).values() if not Path(path).is_file()]:
        raise FacemillError(f"{missing[0]} is missing: run the stage track first (`facemill stage track`)")
    return TrackedInput(job.input_sha256, files)


def _track_into(tracking: Tracking, pool: Pool, job: ConversionJob) -> TrackedInput:
    """Tracks a video, unless tracks of the same content lie there."""
    [(_, content)] = run_all(pool, _content_of, [job.input])
    if isinstance(content, Lost):
        raise InputError(content.reason, content.detail)
    found = track_video(tracking, ArchiveVideo(job.input, content, job.frames), pool)
    if found.reason is not None:
        raise InputError(found.reason, found.detail)
    return TrackedInput(content, found.files)


def _content_of(path: str) -> str:
    """In a worker, since it reads the whole file. Raises InputError where that cannot be done."""
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error


def _common(params: Params, root: Path, model_dir: Path, convert: Deciders, tracked_with: str) -> dict[str, Any]:
    """What all jobs of a plan share.

    Args:
        root: of the project.
        convert: the code and packages that decide about conversion.
        tracked_with: key of all that decides about the tracks.
    """
    if not (model_dir / MODEL_FILE).is_file():
        raise FacemillError(f"no model in {model_dir}: run the stage train first, or name a model folder with --model")
    # in whatever order they are written, the videos are the same
    becomes = dict(sorted(params.convert.becomes.items()))
    origin = check_becomes(model_dir, becomes)
    _check_landmarks(params, model_dir)
    check_conversion(params, root, model_dir)
    deciding = replace(params.convert, occlusion_options=deciding_occlusion(params.convert, root))
    placed = replace(params.convert, occlusion_options=placed_occlusion(params.convert, root))
    key = content_key(convert.key, tracked_with, origin.model_sha256, describe(deciding), origin.becomes)
    told = {"origin": origin, "packages": convert.packages}
    return {"model_dir": str(model_dir), "settings": placed, "fingerprint": key, **told}


def _with_corrections(common: dict[str, Any], corrections: Mapping[int, str | None]) -> dict[str, Any]:
    """Of one video; they are part of what decides about its bytes."""
    if not corrections:
        return common
    key = content_key(common["fingerprint"], sorted(corrections.items()))
    return {**common, "corrections": corrections, "fingerprint": key}


def _check_landmarks(params: Params, model_dir: Path) -> None:
    """Raises FacemillError where the model was trained on another predictor's points: each face would be drawn shifted,
    since predictors disagree about jaw and brows by several percent of the face."""
    trained = read_object(model_dir / MODEL_FILE).get("landmarks")
    if trained != (found := signature(params.track.landmarks)):
        raise FacemillError(
            f"the model in {model_dir} was trained on the landmarks of {trained}, track.landmarks gives those of "
            f"{found}: set track.landmarks to the model's, or train one on extract.landmarks: {params.track.landmarks}"
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
    """Jobs without an outcome, each input once, the largest files first, so that the last hour is not one film's; those
    that failed for a reason that may be gone; with `retry` all that failed."""
    todo: dict[str, ConversionJob] = {}
    for job in jobs:
        outcome = finished(job)
        failed = outcome is not None and outcome["status"] != State.OK
        if outcome is None or (failed and (retry or Reason(outcome["error"]) not in PERMANENT)):
            todo.setdefault(job.outcome, job)
    return tuple(sorted(todo.values(), key=lambda job: (-input_bytes(job), job.video)))


def _stated_frames(path: Path) -> int:
    """As many frames as a video's container promises; 0 where it cannot be opened: whoever converts it says why."""
    try:
        facts = media_facts(path)
    except (InputError, OSError):
        return 0
    return facts.frames or round((facts.duration_s or 0) * (facts.fps or 0))


def input_bytes(job: ConversionJob) -> int:
    """Size of a job's file; 0 where it cannot be asked."""
    try:
        return Path(job.input).stat().st_size
    except OSError:  # whoever opens it says why
        return 0
