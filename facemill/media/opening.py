"""The calls by which a video and a still picture are read, cut, written and joined alike."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from facemill.errors import InputError
from facemill.media.animation import AnimationReader
from facemill.media.kinds import (
    ANIMATION,
    PICTURE,
    VIDEO,
    MediaFacts,
    media_kind,
    named_as_picture,
    read_still,
)
from facemill.media.still import StillReader, StillWriter, join_still
from facemill.pictures import orientation_of, picture_size
from facemill.reasons import Reason
from facemill.video import EncoderSettings, Part, PartWriter, Segment, SegmentPlan, VideoReader, join_parts, probe
from facemill.video import plan_segments as plan_video
from facemill.video.clock import Clock
from facemill.video.hdr import Hdr, written_info
from facemill.video.segments import LEAST_S, MOST_S

MediaReader = VideoReader | StillReader | AnimationReader
MediaWriter = PartWriter | StillWriter


def media_facts(path: Path | str) -> MediaFacts:
    """Reads headers, and of a video the first frame.

    Raises:
        InputError: it can be neither read as a video nor as a picture.
        OSError: it is gone.
    """
    path = Path(path)
    kind = media_kind(path)
    if kind not in (ANIMATION, VIDEO):
        data = read_still(path)
        width, height = picture_size(data) or (0, 0)
        if orientation_of(data) >= 5:
            width, height = height, width
        return MediaFacts(kind + PICTURE, width, height, 1, None, None)
    if kind == ANIMATION:
        with AnimationReader(path) as reader:
            info = reader.info
    else:
        with named_as_picture(path):
            info = probe(path)
    audio = info.audio[0].codec if info.audio else None
    fps = float(info.fps) if info.fps else None
    return MediaFacts(info.codec, info.width, info.height, info.frames, info.duration_s, audio, fps)


def plan_segments(path: Path | str, *, least_s: float = LEAST_S, most_s: float = MOST_S) -> SegmentPlan:
    """`facemill.video.plan_segments`; a still picture is one segment of one frame, and so is WebP that moves."""
    path = Path(path)
    kind = media_kind(path)
    if kind not in (ANIMATION, VIDEO):
        return SegmentPlan(Fraction(1), (Segment(frames=1),), None, Clock())
    if kind == ANIMATION:
        with AnimationReader(path) as reader:
            return SegmentPlan(reader.info.time_base, (Segment(frames=reader.info.frames),), None, Clock())
    with named_as_picture(path):
        return plan_video(path, least_s=least_s, most_s=most_s)


def open_media(
    path: Path | str, *, threads: int = 0, segment: Segment | None = None, hdr: Hdr = "refuse"
) -> MediaReader:
    """Opens a video, or one segment of it, or a picture.

    Args:
        threads: for the decoder of a video, 0 for one per core.
        segment: of `plan_segments` for the same file, by default all of it.
        hdr: what becomes of a video of high dynamic range, as `VideoReader` has it.

    Raises:
        InputError: as the reader of its kind.
    """
    path = Path(path)
    kind = media_kind(path)
    if kind == ANIMATION:
        return AnimationReader(path)
    if kind != VIDEO:
        return StillReader(path)
    with named_as_picture(path):
        return VideoReader(path, threads=threads, segment=segment, hdr=hdr)


def pixel_ratio(path: Path) -> float:
    """Width of a pixel over its height. Raises InputError as `facemill.video.probe`."""
    if media_kind(path) != VIDEO:
        return 1.0
    return float(probe(path).sample_aspect_ratio or 1)


def part_writer(reader: MediaReader, path: Path, settings: EncoderSettings) -> MediaWriter:
    """What writes frames of a reader into a part, with the suffix that the finished file will have.

    Raises:
        FacemillError: a container that cannot be written, or an encoder that this machine cannot open.
    """
    if isinstance(reader, StillReader):
        return StillWriter(path, reader)
    return PartWriter(path, reader.info, settings)


def join_media(
    parts: Sequence[Part], output: Path, source: Path, *, thorough: bool = False, hdr: Hdr = "refuse"
) -> list[str]:
    """Makes the finished file of its parts, with the sound and all else of the source.

    Args:
        hdr: as `open_media` was given it.
        thorough: check all of it before it is published, see `join_parts`; a still picture always is.

    Returns:
        What a person should know about it.

    Raises:
        InputError: CONVERSION_FAILED: the parts do not fit together, or the written file is not what was put in.
        FacemillError: the disk is full.
    """
    kind = media_kind(source)
    if kind not in (ANIMATION, VIDEO):
        if len(parts) != 1:
            raise InputError(Reason.CONVERSION_FAILED, f"{len(parts)} parts of one picture: it changed meanwhile")
        return join_still(parts[0], output, source)
    if kind == ANIMATION:
        with AnimationReader(source) as reader:
            return join_parts(parts, output, reader.info, thorough=thorough, dated_as=source)
    clock = Clock.of(source)
    info = written_info(probe(source), hdr)
    return join_parts(parts, output, info, sound_from=source, clock=clock, thorough=thorough)
