"""What is in a video file, or the reason why it cannot be used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
from av.stream import Disposition, Stream

from facemill.errors import InputError
from facemill.foreign_files import open_regular
from facemill.reasons import Reason

PQ_TRC, HLG_TRC = 16, 18  # transfer characteristics of HDR10/Dolby Vision and of HLG (ITU-T H.273, table 3)
UNSPECIFIED = 2
# Demuxers that take a picture or a text for a video of one frame.
NOT_VIDEO_DEMUXERS = ("_pipe", "image2", "tty", "bin", "xbin", "idf", "adf")


@dataclass(frozen=True)
class Colour:
    """Colour tags as numbers of ITU-T H.273; 2 means unspecified. `range`: 0 unspecified, 1 limited, 2 full."""

    primaries: int = UNSPECIFIED
    trc: int = UNSPECIFIED
    space: int = UNSPECIFIED
    range: int = 0


@dataclass(frozen=True)
class AudioInfo:
    """One audio stream: FFmpeg's codec name, sample rate in Hz, channels."""

    index: int
    codec: str
    sample_rate_hz: int
    channels: int


@dataclass(frozen=True)
class VideoInfo:
    """The first real video stream of a file and what stands beside it. Sizes are upright, in pixels."""

    container: str  # FFmpeg's name of the demuxer, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    size_bytes: int
    index: int  # of the stream in the container
    codec: str
    width: int
    height: int
    pix_fmt: str
    bit_depth: int
    fps: Fraction | None  # average; frames may be spaced unevenly, so timing always comes from pts
    time_base: Fraction  # seconds per tick of pts
    frames: int | None  # packets as the container states them; None where it does not
    duration_s: float | None
    rotation: int  # degrees counter-clockwise by which the stored picture is turned to stand upright
    sample_aspect_ratio: Fraction | None  # None where pixels are square
    colour: Colour
    interlaced: bool
    audio: tuple[AudioInfo, ...]
    other: tuple[str, ...]  # streams that a conversion cannot carry, e.g. "subtitle stream 2 (mov_text)"

    @property
    def hdr(self) -> bool:
        """High dynamic range: PQ or HLG, or ten bits in BT.2020."""
        return self.colour.trc in (PQ_TRC, HLG_TRC) or (self.bit_depth > 8 and self.colour.primaries == 9)


def probe(path: Path | str) -> VideoInfo:
    """Reads the header and the first frame.

    Raises:
        InputError: UNREADABLE (no such file, no permission), EMPTY_FILE, NOT_A_VIDEO (no demuxer, no video stream, or
            not one frame that decodes), VIDEO_TRUNCATED (an MP4 whose index was never written).
    """
    path = Path(path)
    with open_input(path) as container:
        stream = video_stream(container)
        first = _first_frame(container, stream)
        context = stream.codec_context
        rotation = int(first.rotation) % 360
        width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
        pixel_ratio = stream.sample_aspect_ratio or None
        if pixel_ratio in (0, 1):
            pixel_ratio = None
        elif pixel_ratio and rotation in (90, 270):
            pixel_ratio = 1 / pixel_ratio
        return VideoInfo(
            container=container.format.name,
            size_bytes=path.stat().st_size,
            index=stream.index,
            codec=context.codec.canonical_name,
            width=width,
            height=height,
            pix_fmt=first.format.name,
            bit_depth=max(component.bits for component in first.format.components),
            fps=Fraction(stream.average_rate) if stream.average_rate else None,
            time_base=Fraction(stream.time_base or Fraction(1, 1000)),
            frames=stream.frames or None,
            duration_s=_duration_s(container, stream),
            rotation=rotation,
            sample_aspect_ratio=pixel_ratio,
            colour=_colour(context, first),
            interlaced=bool(first.interlaced_frame),
            audio=tuple(
                AudioInfo(audio.index, audio.codec_context.codec.canonical_name, audio.sample_rate or 0, audio.channels)
                for audio in container.streams.audio
                if audio.codec_context is not None
            ),
            other=_other_streams(container, stream.index),
        )


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[av.container.InputContainer]:
    """Opens a file for demuxing, with the errors of `probe`."""
    try:
        with open_regular(path) as stream:  # FFmpeg would wait for a pipe's other end
            if os.fstat(stream.fileno()).st_size == 0:
                raise InputError(Reason.EMPTY_FILE)
        # Metadata in whatever encoding an old camera used must not cost us the video.
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise _open_error(path, error) from error
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error
    with container:
        name = container.format.name
        if name.endswith(NOT_VIDEO_DEMUXERS[0]) or name in NOT_VIDEO_DEMUXERS:
            raise InputError(Reason.NOT_A_VIDEO, f"FFmpeg reads it as {name}")
        yield container


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The first video stream that is not a cover picture.

    Raises:
        InputError: NOT_A_VIDEO.
    """
    for stream in container.streams.video:
        if not _attached_picture(stream):
            if stream.codec_context is None:
                raise InputError(Reason.NOT_A_VIDEO, f"no decoder for video stream {stream.index}")
            return stream
    raise InputError(Reason.NOT_A_VIDEO, "no video stream")


def _attached_picture(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _open_error(path: Path, error: av.error.FFmpegError) -> InputError:
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return InputError(Reason.UNREADABLE, error.strerror or "")
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] == b"ftyp":
        return InputError(Reason.VIDEO_TRUNCATED, "an MP4 without its index (moov): it was cut off while being written")
    return InputError(Reason.NOT_A_VIDEO, error.strerror or "")


def _first_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, tries: int = 100
) -> av.VideoFrame:
    """The first frame that decodes within the first `tries` errors."""
    for _ in range(tries):
        try:
            for frame in container.decode(stream):
                return frame
            break
        except av.error.EOFError:
            break
        except av.error.FFmpegError:
            continue
    raise InputError(Reason.NOT_A_VIDEO, "not one frame could be decoded")


def _duration_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _colour(context: av.video.codeccontext.VideoCodecContext, frame: av.VideoFrame) -> Colour:
    full_by_name = frame.format.name.startswith("yuvj")  # the old way to say "full range"
    return Colour(
        primaries=int(context.color_primaries),
        trc=int(context.color_trc),
        space=int(context.colorspace),
        range=2 if full_by_name else int(context.color_range),
    )


def _other_streams(container: av.container.InputContainer, video_index: int) -> tuple[str, ...]:
    found = []
    for stream in container.streams:
        context = stream.codec_context
        if stream.index == video_index or (stream.type == "audio" and context is not None):
            continue
        kind = "attached picture" if _attached_picture(stream) else f"{stream.type} stream"
        found.append(f"{kind} {stream.index} ({context.name if context else 'no codec'})")
    return tuple(found)
