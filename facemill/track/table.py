"""The tables of one video's tracks: three parts, written once and read by segment.

SEGMENTS        the plan of the video, and what its frames had to say
TRACKS          each track once: from when to when, how large, what it looks like
TRACK_POINTS    each face in each frame, in the order of time: a segment's rows lie together
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facemill import tables
from facemill.embeddings import DIMENSIONS
from facemill.errors import InputError
from facemill.reasons import Reason, State
from facemill.schema import SEGMENTS, TRACK_POINTS, TRACKS, SegmentRow, TrackRow
from facemill.track.join import PointRows, VideoTracks
from facemill.track.segment import SegmentTracks
from facemill.video import Segment, SegmentPlan


@dataclass(frozen=True)
class TrackedFiles:
    """Paths of the three parts of one video."""

    segments: str
    tracks: str
    points: str


@dataclass(frozen=True)
class TrackedSegment:
    """One segment of a video's plan.

    Attributes:
        frames: that were read.
        warnings: what the reader said of the input.
        cut: whether the video ended before its container says.
        errors: pts → why a frame could not be looked at.
    """

    segment: Segment
    frames: int
    warnings: tuple[str, ...]
    cut: bool
    errors: Mapping[int, str]


POINT_STEP = 1 / 32
"""Pixels to which coordinates are rounded in the table: a sixth of what the best points tremble, and half the bytes."""


def write_tracks(
    files: TrackedFiles, video_sha256: str, plan: SegmentPlan, pieces: Sequence[SegmentTracks], found: VideoTracks
) -> None:
    """Writes the three parts of a video, whole or not at all each; the segments, whose part says that it was tracked,
    come last.

    Args:
        files: where they go.
        video_sha256: of the video.
        plan: as it was cut; `pieces`: what was seen in each of its segments.
        found: the pieces, joined.

    Raises:
        FacemillError: a full disk.
    """
    points = (_points_table(found.rows(index)) for index in range(len(pieces)))
    tables.write_chunks(Path(files.points), TRACK_POINTS.arrow, points)
    time_base = float(plan.time_base)
    first = pieces[0]
    rows: list[TrackRow] = [
        {
            "video_sha256": video_sha256,
            "track": track.track,
            "from_pts": int(found.pts[track.runs[0][0]]),
            "to_pts": int(found.pts[track.runs[-1][1]]),
            "from_s": int(found.pts[track.runs[0][0]]) * time_base,
            "to_s": int(found.pts[track.runs[-1][1]]) * time_base,
            "frames": track.frames,
            "bridged": track.bridged,
            "least_px": track.least_px,
            "most_px": track.most_px,
            "detector": first.detector,
            "predictor": first.predictor,
            "look_pts": track.look_pts.tolist(),
            "looks": track.looks.tolist(),
            "status": State.OK,
        }
        for track in found.tracks
    ]
    tables.write_part(Path(files.tracks), tables.from_rows(rows, TRACKS))
    segments = (
        _segment_row(video_sha256, plan, segment, piece, found.scene_starts(index))
        for index, (segment, piece) in enumerate(zip(plan.segments, pieces, strict=True))
    )
    tables.write_part(Path(files.segments), tables.from_rows([*segments], SEGMENTS))


def write_failure(files: TrackedFiles, video_sha256: str, reason: Reason, detail: str) -> None:
    """Writes the three parts of a video that could not be tracked: one row with the reason, and nothing else."""
    tables.write_part(Path(files.points), tables.empty(TRACK_POINTS))
    tables.write_part(Path(files.tracks), tables.empty(TRACKS))
    row: SegmentRow = {
        "video_sha256": video_sha256,
        "index": 0,
        "status": reason.state,
        "error": reason,
        "detail": detail,
    }
    tables.write_part(Path(files.segments), tables.from_rows([row], SEGMENTS))


def read_segments(files: TrackedFiles) -> tuple[TrackedSegment, ...]:
    """The segments of a video, in their order.

    Raises:
        InputError: the video could not be tracked; with the reason.
    """
    found = []
    for row in tables.to_rows(tables.read_part(Path(files.segments), SEGMENTS), SEGMENTS):
        if row["status"] != State.OK:
            raise InputError(Reason(row["error"] or Reason.PROCESSING_ERROR), row["detail"] or "")
        errors = {int(pts): str(word) for pts, word in json.loads(row["errors"])}
        segment = Segment.from_dict(json.loads(row["segment"]))
        found.append(TrackedSegment(segment, row["frames"], tuple(row["warnings"]), row["cut"], errors))
    return tuple(found)


def read_looks(files: TrackedFiles) -> dict[int, npt.NDArray[np.float32]]:
    """Track → (K, 128) embeddings of its looks."""
    part = tables.read_part(Path(files.tracks), TRACKS, ["track", "looks"])
    return {
        int(row["track"]): np.asarray(row["looks"], np.float32).reshape(-1, DIMENSIONS)
        for row in tables.to_rows(part, TRACKS)
    }


def read_predictors(files: TrackedFiles) -> set[str]:
    """Whose landmarks the tracks of a video have, as `facemill.landmarks.signature` names them; none without tracks."""
    part = tables.read_part(Path(files.tracks), TRACKS, ["predictor"])
    return {str(row["predictor"]) for row in tables.to_rows(part, TRACKS)}


def read_points(
    files: TrackedFiles, segment: Segment, tracks: Collection[int]
) -> dict[int, list[tuple[int, npt.NDArray[np.float32], float]]]:
    """What is known of some tracks in a segment's frames: pts → (track, (68, 2) points, strength) of each."""
    within: Any = pc.field("track").isin(sorted(tracks))
    if segment.start is not None:
        within &= pc.field("pts") >= segment.start
    if segment.end is not None:
        within &= pc.field("pts") < segment.end
    tables.check_part(Path(files.points), TRACK_POINTS)
    part = pq.read_table(files.points, columns=["pts", "track", "points", "strength"], filters=within)
    points = np.asarray(part["points"].combine_chunks().flatten(), np.float32).reshape(-1, 68, 2)
    found: dict[int, list[tuple[int, npt.NDArray[np.float32], float]]] = {}
    columns = (part[name].to_pylist() for name in ("pts", "track", "strength"))
    for pts, track, strength, own in zip(*columns, points, strict=True):
        found.setdefault(pts, []).append((track, own, strength))
    return found


def _segment_row(
    video_sha256: str, plan: SegmentPlan, segment: Segment, piece: SegmentTracks, scenes: list[int]
) -> SegmentRow:
    return {
        "video_sha256": video_sha256,
        "index": segment.index,
        "segment": json.dumps(segment.as_dict(), sort_keys=True),
        "time_base": str(plan.time_base),
        "frames": len(piece.pts),
        "scenes": scenes,
        "errors": json.dumps(sorted([pts, word] for pts, word in piece.errors.items())),
        "warnings": list(piece.warnings),
        "cut": piece.cut,
        "status": State.OK,
    }


def _points_table(rows: PointRows) -> pa.Table:
    """Column by column: a table of lists of Python numbers would take twenty times the memory."""
    posed = np.isfinite(rows.pose).all(axis=1)
    columns: dict[str, Any] = {
        "pts": rows.pts,
        "track": rows.track,
        "box": _lists(_rounded(rows.box), 4),
        "score": rows.score,
        "detected": rows.detected,
        "bridged": rows.bridged,
        "points": _lists(_rounded(rows.points), 136),
        "visibility": _rounded(rows.visibility),
        "doubt": _known(rows.doubt),
        "presence": _known(rows.presence),
        "strength": rows.strength,
        "status": [str(State.OK)] * len(rows.pts),
    }
    for place, name in enumerate(("yaw", "pitch", "roll")):
        columns[name] = pa.array(_rounded(rows.pose[:, place]), pa.float32(), mask=~posed)
    return pa.Table.from_arrays(
        [_filled(columns.get(one.name), len(rows.pts), one.type) for one in TRACK_POINTS.arrow],
        schema=TRACK_POINTS.arrow,
    )


def _filled(values: Any, count: int, kind: pa.DataType) -> pa.Array:
    if values is None:
        return pa.nulls(count, kind)
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _lists(values: npt.NDArray[np.float32], count: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), count)


def _known(values: npt.NDArray[np.float32]) -> pa.Array:
    """Rounded to three digits of what they have in front, null where they are NaN."""
    rounded = values.astype(np.float16).astype(np.float32)
    return pa.array(rounded, pa.float32(), mask=np.isnan(values))


def _rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.round(values / POINT_STEP) * POINT_STEP, np.float32)
