"""Stage `track`: the archive's videos -> tables `segments`, `tracks` and `track_points`.

Each video is cut into segments by a plan that depends on its bytes alone; a segment is a piece of work on the cluster,
the longest videos first. What was seen in a segment is a file under the hash of what decides about it (the video's
content, the segment, the settings, code and packages), so that an interrupted run loses the segments in flight and no
more; how strongly points are smoothed does not decide about it. When all segments are there, a worker joins those of
each video to the three parts of the tables, named by the video's content: two files of the same content are one part.

A video that cannot be tracked is one row of `segments` with its reason; the others go on. The totals count videos.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from facemill import tables
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, foreign_stamp, is_as_stamped, read_json, stamp, sweep, write_json
from facemill.media import plan_segments
from facemill.reasons import Reason, State
from facemill.schema import VIDEOS, VideoRow
from facemill.track.join import join_tracks
from facemill.track.models import FaceModels
from facemill.track.pieces import StoredPieces, write_piece
from facemill.track.segment import track_segment
from facemill.track.settings import TrackingSettings
from facemill.track.table import TrackedFiles, write_failure, write_tracks
from facemill.video import Segment, SegmentPlan
from tasks.catalogue import Data, video_part
from tasks.params import Params, TrackParams
from tasks.paths import archive_folder
from tasks.work.cluster import Pool, one_thread, open_pool, run_all
from tasks.work.deciders import deciders_of, plugins_of, read_deciders
from tasks.work.failures import Lost
from tasks.work.interrupts import finishing
from tasks.work.plugin_files import deciding_options, file_stamps, placed_options
from tasks.work.progress import Progress, track
from tasks.work.results import content_key
from tasks.work.scratch import WORK_FOLDER
from tasks.work.silence import beater
from tasks.work.terminal import say
from tasks.work.totals import Totals, finish, publish_parts

_CHANGED = "the file has changed since it was collected: run collect again"


@dataclass(frozen=True)
class Tracking:
    """What all videos of one project are tracked with. Plain data.

    Attributes:
        folder: where results lie: `pieces`, what was seen in each segment, and `videos`, the joined parts.
        key: of all that decides about the tables but the video itself.
        piece_key: likewise about what is seen in a segment.
        settings: with every path as it is on this machine.
    """

    folder: str
    key: str
    piece_key: str
    settings: TrackingSettings

    def files(self, sha256: str) -> TrackedFiles:
        """Where the three parts of a video lie, or would lie."""
        stem = self._stem(sha256)
        return TrackedFiles(*(f"{stem}.{name}.parquet" for name in ("segments", "tracks", "points")))

    def receipt(self, sha256: str) -> Path:
        """Written last: what was made for a video."""
        return Path(f"{self._stem(sha256)}.json")

    def piece(self, sha256: str, segment: Segment) -> Path:
        """Where what is seen in a segment lies, or would lie."""
        name = content_key(self.piece_key, sha256, segment.as_dict())
        return Path(self.folder) / "pieces" / f"{name}.npz"

    def _stem(self, sha256: str) -> str:
        return str(Path(self.folder) / "videos" / content_key(self.key, sha256))


@dataclass(frozen=True)
class ArchiveVideo:
    """A video to be tracked: its path, its content, and how many frames it has, as far as its container says."""

    path: str
    sha256: str
    frames: int = 0


@dataclass(frozen=True)
class TrackedVideo:
    """What became of a video. `reason` and `detail`: why it could not be tracked; `summary`: plain numbers."""

    files: TrackedFiles
    summary: Mapping[str, int]
    pieces: tuple[str, ...] = ()
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True)
class _Planned:
    """A video, how it is cut, and how its file looked when its content was checked."""

    video: ArchiveVideo
    plan: SegmentPlan
    seen: Mapping[str, int]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Runs the stage. Raises FacemillError: no table of videos, a full disk, or too many videos failed."""
    start = time.monotonic()
    tracking = open_tracking(params, root)
    folder = archive_folder(params, root)
    rows = list(tables.iterate_rows(root / Data.VIDEOS, VIDEOS))
    videos = [_archive_video(folder, row) for row in rows if row["status"] == State.OK]
    clock = _Clock()
    with open_pool(params.cluster) as pool, finishing(pool, "segments"):
        found = track_videos(tracking, videos, pool, retry=retry, clock=clock)
    for name, table in _TABLES.items():
        parts = {video_part(sha256): Path(getattr(one.files, name)) for sha256, one in found.items()}
        publish_parts(parts, root / table)
    totals = Totals(
        stage="track",
        rows_in=len(rows),
        counts=tables.count_states(_outcome(row, found) for row in rows),
        seconds=time.monotonic() - start,
        worker_seconds=clock.seconds,
        worked=clock.pieces,
        kept_bytes=_drop_unreached(tracking, found),
        extra={name: sum(one.summary.get(name, 0) for one in found.values()) for name in _SUMMARY},
        pace={"frames_per_worker_second": round(clock.frames / clock.seconds, 2) if clock.seconds else None},
    )
    return finish(root, totals, params.track.failure_limit)


def tracked_files(root: Path, sha256: str) -> TrackedFiles:
    """The parts of a video in the tables of a project."""
    return TrackedFiles(
        **{name: str(root / table / f"{video_part(sha256)}.parquet") for name, table in _TABLES.items()}
    )


def open_tracking(params: Params, root: Path, folder: Path | None = None) -> Tracking:
    """What the videos of a project are tracked with.

    Args:
        params: of the project.
        root: of the project: where relative paths of its parameters lie.
        folder: where results lie; by default in the project's `.work`, and then the code is what the inventory found.
    """
    if folder is None:
        folder, code = root / WORK_FOLDER / "track", read_deciders(root, "track", params).key
    else:
        code = deciders_of("track", plugins_of("track", params)).key
    for name in ("pieces", "videos"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return Tracking(
        str(folder), tracking_key(params, root, code), _key(params.track, root, code, smoothed=False),
        _placed(params.track, root),
    )  # fmt: skip


def tracking_key(params: Params, root: Path, code: str | None = None) -> str:
    """Hash of all that decides about the tables of tracks but the videos: settings, weights, code and packages.

    Args:
        code: key of code and packages, by default as the inventory found them.
    """
    code = read_deciders(root, "track", params).key if code is None else code
    return _key(params.track, root, code, smoothed=True)


def track_videos(
    tracking: Tracking,
    videos: Sequence[ArchiveVideo],
    pool: Pool,
    *,
    retry: bool = False,
    clock: _Clock | None = None,
    show: bool = True,
) -> dict[str, TrackedVideo]:
    """Tracks what is not known yet.

    Args:
        tracking: what with.
        videos: of any number; of those with the same content one is tracked.
        pool: where the work is done; untouched when nothing is to do.
        retry: try videos again that failed before.
        clock: is told how long workers took.
        show: whether a person sees how far it is; whoever tracks video by video shows that of a larger work.

    Returns:
        What became of each, by its SHA-256.

    Raises:
        FacemillError: what no other video would survive either, such as a full disk; what is finished is kept.
    """
    clock = clock or _Clock()
    wanted = {video.sha256: video for video in videos}
    known = {sha256: done for sha256 in wanted if (done := _known(tracking, sha256)) is not None}
    if retry:
        known = {sha256: done for sha256, done in known.items() if done.reason is None}
    open_videos = sorted(
        (video for sha256, video in wanted.items() if sha256 not in known),
        key=lambda video: (-video.frames, video.path),
    )
    if not open_videos:
        if show:
            say(f"Stage track has nothing to do: all {len(wanted)} videos are known from earlier runs.")
        return {sha256: known[sha256] for sha256 in wanted}
    lost: dict[str, Lost] = {}
    planned: list[_Planned] = []
    for index, result in run_all(pool, _plan, open_videos):
        if isinstance(result, Lost):
            lost[open_videos[index].sha256] = result
        else:
            planned.append(result)
    planned.sort(key=lambda one: (-_frames(one), one.video.path))
    total = sum(map(_frames, planned))
    with track("track", total, "frames") if planned and show else nullcontext() as progress:
        lost |= _see(tracking, planned, pool, clock, progress)
        # Where decoding shows that a file is not what its packets said, it is tracked as a whole
        uncut = [
            replace(one, plan=one.plan.uncut(lost[one.video.sha256].detail))
            for one in planned
            if len(one.plan.segments) > 1
            and one.video.sha256 in lost
            and lost[one.video.sha256].reason == Reason.CONVERSION_FAILED
        ]
        again = _see(tracking, uncut, pool, clock, progress)
    for one in uncut:
        del lost[one.video.sha256]
    lost |= again
    whole = {one.video.sha256: one for one in [*planned, *uncut] if one.video.sha256 not in lost}
    jobs = [(tracking, one) for one in whole.values()]
    for index, result in run_all(pool, _join, jobs):
        if isinstance(result, Lost):
            lost[jobs[index][1].video.sha256] = result
    for sha256, one_lost in lost.items():
        _fail(tracking, sha256, one_lost)
    return {sha256: _made(tracking, sha256) for sha256 in wanted}


def track_video(tracking: Tracking, video: ArchiveVideo, pool: Pool, *, retry: bool = False) -> TrackedVideo:
    """`track_videos` of one, as part of a larger work, which is what a person sees."""
    return track_videos(tracking, [video], pool, retry=retry, show=False)[video.sha256]


@dataclass
class _Clock:
    """What workers did in this run."""

    seconds: float = 0.0
    frames: int = 0
    pieces: int = 0


_TABLES = {"segments": Data.SEGMENTS, "tracks": Data.TRACKS, "points": Data.TRACK_POINTS}
_SUMMARY = ("segments", "frames", "frames_failed", "tracks", "faces", "bridged")


def _see(
    tracking: Tracking, planned: Sequence[_Planned], pool: Pool, clock: _Clock, progress: Progress | None
) -> dict[str, Lost]:
    """Has all segments looked at that are not known; gives the first reason of each video of which one was lost."""
    jobs = [(tracking, one, segment) for one in planned for segment in one.plan.segments]
    there = [tracking.piece(one.video.sha256, segment).is_file() for _, one, segment in jobs]
    todo = [job for job, is_there in zip(jobs, there, strict=True) if not is_there]
    if progress is not None:
        done = sum(_share(one, segment) for (_, one, segment), is_there in zip(jobs, there, strict=True) if is_there)
        progress.advance(done)
    lost: dict[str, Lost] = {}
    for index, result in run_all(pool, _see_one, todo):
        _, one, segment = todo[index]
        if isinstance(result, Lost):
            lost.setdefault(one.video.sha256, result)
        else:
            frames, seconds = result
            clock.frames, clock.seconds, clock.pieces = (
                clock.frames + frames, clock.seconds + seconds, clock.pieces + 1,
            )  # fmt: skip
        if progress is not None:
            progress.advance(_share(one, segment), note=Path(one.video.path).name)
    return lost


def _plan(video: ArchiveVideo) -> _Planned:
    """Raises InputError where the video cannot be read, or is another one by now."""
    path = Path(video.path)
    try:
        seen = foreign_stamp(path)
        if file_sha256(path) != video.sha256:
            raise InputError(Reason.UNREADABLE, _CHANGED)
        return _Planned(video, plan_segments(path), seen)
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error


def _see_one(job: tuple[Tracking, _Planned, Segment]) -> tuple[int, float]:
    """Looks at a segment and keeps what was seen; gives the number of its frames and the seconds."""
    tracking, one, segment = job
    start = time.monotonic()
    try:
        if foreign_stamp(Path(one.video.path)) != one.seen:
            raise InputError(Reason.UNREADABLE, _CHANGED)
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error
    models = _models(_seen_with(tracking.settings), file_stamps(tracking.settings))
    piece = track_segment(one.video.path, segment, models, tracking.settings, on_frame=beater())
    write_piece(tracking.piece(one.video.sha256, segment), piece)
    return len(piece.pts), time.monotonic() - start


def _join(job: tuple[Tracking, _Planned]) -> None:
    """Joins the pieces of a video and keeps the three parts, with a receipt."""
    tracking, one = job
    sha256 = one.video.sha256
    paths = [tracking.piece(sha256, segment) for segment in one.plan.segments]
    pieces = StoredPieces(paths)
    found = join_tracks(pieces, tracking.settings)
    files = tracking.files(sha256)
    write_tracks(files, sha256, one.plan, pieces, found)
    summary = {
        "segments": len(pieces),
        "frames": len(found.pts),
        "frames_failed": sum(len(piece.errors) for piece in pieces),
        "tracks": len(found.tracks),
        "faces": sum(each.frames for each in found.tracks),
        "bridged": sum(each.bridged for each in found.tracks),
    }
    _record(tracking, sha256, {"summary": summary, "pieces": [path.name for path in paths], "reason": None})


def _fail(tracking: Tracking, sha256: str, lost: Lost) -> None:
    write_failure(tracking.files(sha256), sha256, lost.reason, lost.detail)
    _record(tracking, sha256, {"summary": {}, "pieces": [], "reason": lost.reason, "detail": lost.detail})


def _record(tracking: Tracking, sha256: str, told: dict[str, Any]) -> None:
    files = {
        name: {"stamp": stamp(Path(path)), "sha256": file_sha256(Path(path))}
        for name, path in vars(tracking.files(sha256)).items()
    }
    write_json(tracking.receipt(sha256), {"video_sha256": sha256, "files": files, **told})


def _known(tracking: Tracking, sha256: str) -> TrackedVideo | None:
    """What an earlier run made for a video, if all of it is as it was written."""
    files = tracking.files(sha256)
    try:
        told = read_json(tracking.receipt(sha256))
        for name, path in vars(files).items():
            if not is_as_stamped(Path(path), told["files"][name]["stamp"], told["files"][name]["sha256"]):
                return None
        reason = None if told["reason"] is None else Reason(told["reason"])
        summary = {str(name): int(count) for name, count in told["summary"].items()}
        return TrackedVideo(files, summary, tuple(told["pieces"]), reason, str(told.get("detail") or ""))
    except (FacemillError, KeyError, TypeError, ValueError, AttributeError):  # cut, or none of ours
        return None


def _made(tracking: Tracking, sha256: str) -> TrackedVideo:
    found = _known(tracking, sha256)
    if found is None:
        raise FacemillError(
            f"the tracks of a video in {tracking.folder} have gone while the stage ran (was {WORK_FOLDER} deleted?); "
            "run the same command again: what was finished is kept"
        )
    return found


def drop_unreached(tracking: Tracking, contents: Iterable[str]) -> int:
    """Removes the results that neither the present nor the previous videos and settings have; gives the bytes left.

    Args:
        contents: SHA-256 of each of the present videos.
    """
    return _drop_unreached(tracking, {one: done for one in contents if (done := _known(tracking, one)) is not None})


def _drop_unreached(tracking: Tracking, found: Mapping[str, TrackedVideo]) -> int:
    """Removes the results that neither the present nor the previous archive and settings have; gives what is left."""
    record = Path(tracking.folder) / "plan.json"
    present = sorted([path for sha256, one in found.items() for path in (*_names(tracking, sha256), *one.pieces)])
    try:
        plans = [[str(name) for name in plan] for plan in read_json(record)]
    except (FacemillError, TypeError):
        plans = []
    if plans[:1] != [present]:
        plans = [present, *plans[:1]]
        write_json(record, plans)
    wanted = {name for plan in plans for name in plan}
    left = 0
    for folder in ("pieces", "videos"):
        for path in (Path(tracking.folder) / folder).iterdir():
            if path.name in wanted:
                left += path.stat().st_size
            else:
                path.unlink(missing_ok=True)
    return left


def _names(tracking: Tracking, sha256: str) -> list[str]:
    paths = [*vars(tracking.files(sha256)).values(), str(tracking.receipt(sha256))]
    return [Path(path).name for path in paths]


def _archive_video(folder: Path, row: VideoRow) -> ArchiveVideo:
    return ArchiveVideo(str(folder / row["video"]), row["sha256"], row["frames"] or 0)


def _outcome(row: VideoRow, found: Mapping[str, TrackedVideo]) -> tuple[str, str | None]:
    """State and reason of a video: as it was tracked or, where it could not be opened, as it was probed."""
    if row["status"] != State.OK:
        return row["status"], row["error"]
    reason = found[row["sha256"]].reason
    return (State.OK, None) if reason is None else (reason.state, reason)


def _frames(one: _Planned) -> int:
    return sum(_share(one, segment) for segment in one.plan.segments)


def _share(one: _Planned, segment: Segment) -> int:
    """Frames of a segment; of a video that is not cut, as its container has them."""
    return segment.frames if segment.frames is not None else max(1, one.video.frames)


def _key(params: TrackParams, root: Path, code: str, *, smoothed: bool) -> str:
    values = _settings(params).plain() | deciding_options(params, root).keys()
    if not smoothed:
        del values["smoothing"]
    return content_key("track", code, values)


def _placed(params: TrackParams, root: Path) -> TrackingSettings:
    placed = placed_options(params, root)
    return replace(_settings(params), detector_options=placed.detector, landmark_options=placed.landmarks)


def _settings(params: TrackParams) -> TrackingSettings:
    """Those that decide about the tables, without what belongs to the stage."""
    return TrackingSettings(**{name: getattr(params, name) for name in TrackingSettings.__dataclass_fields__})


def _seen_with(settings: TrackingSettings) -> str:
    return json.dumps(
        {
            "detector": settings.detector,
            "options": settings.detector_options,
            "landmarks": settings.landmarks,
            "landmark_options": settings.landmark_options,
        }
    )


@lru_cache(maxsize=1)
def _models(seen_with: str, stamps: str) -> FaceModels:
    """A worker looks at many segments with the same models; `stamps` are those of the files that they name."""
    one_thread()  # here too: a worker that its nanny started again has not heard of it
    return FaceModels(**json.loads(seen_with))
