"""How a video will look before it is converted: one frame of each of its faces, and a short clip, for any settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from facemill.media import StillReader, open_media, pixel_ratio
from facemill.pictures import RGB
from facemill.swap.detail.tracks import TrackChoice
from facemill.swap.known import known_faces
from facemill.swap.painter import FacePainter, FacesOfFrame
from facemill.track.table import TrackedFiles, TrackedSegment, read_segments
from facemill.video import EncoderSettings, Frame, VideoWriter

CLIP_S = 3.0


@dataclass(frozen=True)
class BestView:
    """The frame in which a track's face is seen best.

    Attributes:
        pts: of the frame.
        box: (4,) xyxy in pixels of the frame.
    """

    track: int
    pts: int
    box: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ShownFace:
    """A track's face in its best frame, RGB uint8 of the whole picture: before, and after with each of the painters;
    `after` is empty where it is nobody's who is replaced."""

    view: BestView
    time_s: float
    before: RGB
    after: tuple[RGB, ...]


def best_views(files: TrackedFiles) -> list[BestView]:
    """Of each track the frame in which its face is large, turned to the camera and not about to be lost."""
    columns = ["track", "pts", "box", "yaw", "strength", "visibility"]
    part = pq.read_table(files.points, columns=columns)
    if not part.num_rows:
        return []
    track, pts, yaw, strength, visibility = (
        np.asarray(part[name].to_numpy(zero_copy_only=False))
        for name in ("track", "pts", "yaw", "strength", "visibility")
    )
    boxes = np.asarray(part["box"].combine_chunks().flatten(), np.float32).reshape(-1, 4)
    sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    score = sides * np.cos(np.radians(np.clip(np.nan_to_num(yaw.astype(float)), -90, 90)))
    score = score * strength * np.nan_to_num(visibility.astype(float), nan=1.0)
    views = []
    for number in np.unique(track):
        rows = np.flatnonzero(track == number)
        best = rows[np.argmax(score[rows])]
        views.append(BestView(int(number), int(pts[best]), boxes[best]))
    return views


def show_faces(
    video: Path,
    files: TrackedFiles,
    views: Sequence[BestView],
    wanted: Mapping[int, str],
    painters: Sequence[FacePainter],
) -> Iterator[ShownFace]:
    """The frames of these views, before and after, in the order of time.

    Args:
        video: as it was tracked.
        wanted: track → whose face it is, of those that are replaced.
        painters: one for each of the settings that are compared.
    """
    choices = _choices(video, files, wanted, painters)
    for segment in read_segments(files):
        here = {view.pts: [each for each in views if each.pts == view.pts] for view in views if _in(segment, view.pts)}
        if not here:
            continue
        known = known_faces(files, segment, wanted, choices)
        with open_media(video, segment=segment.segment) as reader:
            for frame in reader:
                if frame.pts not in here:
                    continue
                faces = tuple(known.faces.get(frame.pts, ()))
                after = tuple(_painted(frame, faces, painter) for painter in painters) if faces else ()
                for view in here.pop(frame.pts):
                    yield ShownFace(view, frame.time_s, frame.rgb, after if view.track in wanted else ())
                if not here:
                    break


def write_clip(
    video: Path,
    output: Path,
    files: TrackedFiles,
    around_pts: int,
    wanted: Mapping[int, str],
    painters: Sequence[FacePainter],
) -> None:
    """Writes some seconds around a frame, the original beside what each painter makes of it.

    Args:
        output: an `.mp4`; it has no sound.
        around_pts: of the frame in the middle.

    Raises:
        InputError: the video cannot be read.
        FacemillError: a full disk.
    """
    segment = next(each for each in read_segments(files) if _in(each, around_pts))
    known = known_faces(files, segment, wanted, _choices(video, files, wanted, painters))
    with open_media(video, segment=segment.segment) as reader:
        if isinstance(reader, StillReader):
            raise ValueError(f"{video} does not move")
        info = reader.info
        wide = replace(info, width=info.width * (1 + len(painters)), interlaced=False)
        with VideoWriter(output, wide, EncoderSettings()) as writer:
            for frame in reader:
                offset_s = float((frame.pts - around_pts) * Fraction(frame.time_base))
                if offset_s > CLIP_S / 2:
                    break
                if offset_s < -CLIP_S / 2:
                    continue
                faces = tuple(known.faces.get(frame.pts, ()))
                beside = [frame.rgb, *(_painted(frame, faces, painter) for painter in painters)]
                writer.write(Frame.from_rgb(np.hstack(beside), frame.pts, frame.time_base, pix_fmt=writer.pix_fmt))
            writer.commit()


def _choices(
    video: Path, files: TrackedFiles, wanted: Mapping[int, str], painters: Sequence[FacePainter]
) -> dict[int, TrackChoice]:
    """The same for all painters: they draw with one model."""
    return painters[0].choose(files, wanted, pixel_ratio(video)) if painters else {}


def _painted(frame: Frame, faces: Sequence[Any], painter: FacePainter) -> RGB:
    copy = Frame.from_rgb(frame.rgb, frame.pts, frame.time_base, pix_fmt="yuv444p")
    copy.pixel_ratio = frame.pixel_ratio
    painter.paint([FacesOfFrame(copy, tuple(faces))])
    return copy.rgb


def _in(segment: TrackedSegment, pts: int) -> bool:
    start, end = segment.segment.start, segment.segment.end
    return (start is None or pts >= start) and (end is None or pts < end)
