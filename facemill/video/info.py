"""What is in a video file, or the reason why it cannot be used."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import av.error
import av.video.stream
import numpy.typing as npt
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream

from facemill.errors import InputError
from facemill.foreign_files import open_regular
from facemill.picture_headers import jpegs_in_a_row
from facemill.reasons import Reason

PQ_TRC, HLG_TRC = 16, 18  # transfer characteristics of HDR10/Dolby Vision and of HLG (ITU-T H.273, table 3)
UNSPECIFIED = 2
PROGRESSIVE = 1  # a field order: above it, fields
SKEW = 0.02  # of a display matrix's small numbers over its large ones, up to which it turns by quarters
# Demuxers of files that hold a video themselves. None that reads a list (ffconcat, HLS, DASH, …): the names in there
# are opened. None that takes a picture or a text for a video of one frame. "matroska" stands for "matroska,webm" etc.
DEMUXERS = (
    "apng,asf,av1,avi,avs2,avs3,bink,dirac,dv,dxa,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ifv,ingenient,ivf,"
    "ivr,jpegxl_anim,live_flv,lvf,lxf,m4v,matroska,mjpeg,mjpeg_2000,mlv,mov,mp4,mpeg,mpegts,mpegvideo,mtv,mv,mxf,nsv,"
    "nut,nuv,obu,ogg,pmp,psp,psxstr,pva,r3d,rl2,rm,roq,rpl,smjpeg,smk,swf,tmv,ty,vc1,vc1test,vivo,vmd,vvc,webm,wsd,wtv,"
    "wtv,yuv4mpegpipe"
)
FIRST_BYTES = 2**24  # of JPEGs behind one another, in which the second begins
MAX_PIXELS = 2**26  # 8,192 × 8,192: above that a frame and its copies take gigabytes
STILL_BRANDS = {"heic", "heix", "heim", "heis", "mif1", "avif"}
MAYBE_STILL = {"gif", "apng"}  # one picture, or more
CUT_TOLERANCE_S = 0.5  # containers round their duration, some to whole frames of sound
LEAST_TOLERANCE_S = 0.05  # a single picture has no length in TS, and one tick in AVI
DOLBY_VISION_TAGS = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
IMMERSIVE = {Type.SPHERICAL: "spherical data", Type.STEREO3D: "stereo 3D data"}


@dataclass(frozen=True)
class Colour:
    """Colour tags as numbers of ITU-T H.273; 2 means unspecified. `range`: 0 unspecified, 1 limited, 2 full."""

    primaries: int = UNSPECIFIED
    trc: int = UNSPECIFIED
    space: int = UNSPECIFIED
    range: int = 0


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the one that players show: transposed first, then mirrored in x and in y."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def __bool__(self) -> bool:
        return self.transposed or self.flip_x or self.flip_y

    @classmethod
    def of(cls, matrix: Sequence[float]) -> Orientation | None:
        """By a display matrix (a b u, c d v, x y w); None where it is not made of quarter turns and mirrors.

        It sends a stored point (x, y) to (a x + c y, b x + d y).
        """
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
        if max(abs(b), abs(c)) < SKEW * straight:
            return cls(False, a < 0, d < 0)
        if max(abs(a), abs(d)) < SKEW * crossed:
            return cls(True, c < 0, b < 0)
        return None

    @property
    def mirrored(self) -> bool:
        """Whether writing would read backwards in the stored picture."""
        return self.transposed ^ self.flip_x ^ self.flip_y

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise; a mirrored picture is mirrored from left to right before."""
        if self.transposed:
            return 270 if self.flip_x else 90
        return 180 if self.flip_y else 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Of the shown picture."""
        return (height, width) if self.transposed else (width, height)

    def apply(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of H×W samples as they are shown."""
        shown = samples.T if self.transposed else samples
        return shown[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


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
    orientation: Orientation  # how the stored picture is turned and mirrored to be shown
    skew: bool  # whether it would have to be turned by something else than quarters, which is left
    sample_aspect_ratio: Fraction | None  # None where pixels are square
    colour: Colour
    interlaced: bool
    alpha: bool  # whether pixels can be transparent
    dolby_vision: int | None  # the profile, where there is one
    immersive: tuple[str, ...]  # what else the picture is to be shown by: "spherical data", "stereo 3D data"
    audio: tuple[AudioInfo, ...]
    other: tuple[str, ...]  # streams that a conversion cannot carry, e.g. "subtitle stream 2 (mov_text)"

    @property
    def hdr(self) -> bool:
        """High dynamic range: PQ or HLG, ten bits in BT.2020, or Dolby Vision (whose profile 5 has no tags)."""
        by_tags = self.colour.trc in (PQ_TRC, HLG_TRC) or (self.bit_depth > 8 and self.colour.primaries == 9)
        return by_tags or self.dolby_vision is not None

    @property
    def hdr_name(self) -> str:
        """What kind of high dynamic range it is, in words."""
        if self.dolby_vision is not None:
            return f"Dolby Vision, profile {self.dolby_vision}"
        return {PQ_TRC: "HDR10 (PQ)", HLG_TRC: "HLG"}.get(self.colour.trc, f"BT.2020 in {self.bit_depth} bits")

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise by which the stored picture is turned to stand upright."""
        return self.orientation.rotation

    @property
    def nominal_rate(self) -> Fraction:
        """What is stated as a film's frames a second, known or not. The times of frames do not depend on it."""
        return self.fps or Fraction(25)

    @property
    def usual_ticks(self) -> int:
        """How long a frame is shown where nothing says it, in ticks of `time_base`."""
        return max(1, round(1 / (self.nominal_rate * self.time_base)))


def probe(path: Path | str) -> VideoInfo:
    """Reads the header and the first frame.

    Raises:
        InputError: UNREADABLE (no such file, no permission), EMPTY_FILE, NOT_A_VIDEO (no demuxer, no video stream, or
            not one frame that decodes), VIDEO_TRUNCATED (an MP4 whose index was never written), TOO_LARGE (a picture of
            more than `MAX_PIXELS`).
    """
    path = Path(path)
    with open_input(path) as container:
        stream = video_stream(container)
        first = _first_frame(container, stream)
        context = stream.codec_context
        turned = orientation(first)
        width, height = (turned or Orientation()).size(first.width, first.height)
        pixel_ratio = stream.sample_aspect_ratio or None
        if pixel_ratio in (0, 1):
            pixel_ratio = None
        elif pixel_ratio and turned and turned.transposed:
            pixel_ratio = 1 / pixel_ratio
        if _still(container, stream):
            raise InputError(Reason.NOT_A_VIDEO, "a still picture")
        dolby = _dolby_vision(path, container, stream, first)
        return VideoInfo(
            container=container.format.name,
            size_bytes=path.stat().st_size,
            index=stream.index,
            codec=context.codec.canonical_name,
            width=width,
            height=height,
            pix_fmt=first.format.name,
            bit_depth=max(component.bits for component in first.format.components),
            fps=_fps(stream),
            time_base=Fraction(stream.time_base or Fraction(1, 1000)),
            frames=stream.frames or None,
            duration_s=_duration_s(container, stream),
            orientation=turned or Orientation(),
            skew=turned is None,
            sample_aspect_ratio=pixel_ratio,
            colour=_colour(context, first),
            interlaced=bool(first.interlaced_frame) or context.field_order > PROGRESSIVE,
            alpha=_transparent(first, stream),
            dolby_vision=dolby,
            immersive=tuple(name for kind, name in IMMERSIVE.items() if side_data(first, kind) is not None),
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
            # by their content FFmpeg takes JPEGs behind one another for single pictures
            jpeg = stream.read(3) == b"\xff\xd8\xff"
            form = "mjpeg" if jpeg and jpegs_in_a_row(b"\xff\xd8\xff" + stream.read(FIRST_BYTES)) else None
        # Metadata in whatever encoding an old camera used must not cost us the video. Nothing but this file is opened.
        container = av.open(
            f"file:{path}",
            format=form,
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)},
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        raise _open_error(path, error) from error
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error
    with container:
        yield container


def side_data(picture: av.VideoFrame, kind: Type) -> bytes | None:
    """What a decoder has put beside a picture."""
    found: Any = picture.side_data.get(kind)  # type: ignore[call-overload]  # a mapping by type
    return None if found is None else bytes(found)


def orientation(picture: av.VideoFrame) -> Orientation | None:
    """How a decoded picture is to be shown; None where that takes more than quarter turns and mirrors."""
    matrix = side_data(picture, Type.DISPLAYMATRIX)
    if matrix is None:
        return Orientation()
    return Orientation.of(struct.unpack("=9i", matrix[:36]))


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The first video stream that is not a cover picture.

    Raises:
        InputError: NOT_A_VIDEO.
    """
    for stream in container.streams.video:
        if not _attached_picture(stream):
            context = stream.codec_context
            if context is None:
                raise InputError(Reason.NOT_A_VIDEO, f"no decoder for video stream {stream.index}")
            if context.width * context.height > MAX_PIXELS:
                size = f"{context.width}×{context.height} pixels in video stream {stream.index}"
                raise InputError(Reason.TOO_LARGE, f"{size}, limit {MAX_PIXELS}: make it smaller before")
            context.options = {"max_pixels": str(MAX_PIXELS)}  # for a size that grows on the way
            return stream
    raise InputError(Reason.NOT_A_VIDEO, "no video stream")


def demux(container: av.container.InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """Packets of the named streams, by default of all, each followed by an empty one; not those of a stream that first
    appears in the middle of a (damaged) file, at whose end PyAV stumbles."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        return


class Reach:
    """How far the packets of a file reach, against where its head says that it ends.

    Args:
        index: of the video stream.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._ticks: dict[int, tuple[int, int]] = {}  # by stream, since a fraction costs more than all else here
        self._end_s = self._last_s = self._step_s = 0.0

    def see(self, packet: Packet[Any]) -> None:
        """Takes a packet of any stream, in the order of the file."""
        pts, index = packet.pts, packet.stream.index
        if pts is None:
            return
        tick = self._ticks.get(index)
        if tick is None:
            tick = self._ticks[index] = Fraction(packet.time_base or 0).as_integer_ratio()
        at_s = pts * tick[0] / tick[1]
        self._end_s = max(self._end_s, at_s + (packet.duration or 0) * tick[0] / tick[1])
        if index == self._index and at_s > self._last_s:
            self._last_s, self._step_s = at_s, at_s - self._last_s

    def ends_early(self, container: av.container.InputContainer) -> bool:
        """Whether the file ends before it should, by more than containers round and the last picture may stay."""
        if not container.duration:
            return False
        whole_s = container.duration / av.time_base
        # Matroska states the end, not the length, and FFmpeg may take the first time of late sound for its start
        start_s = 0.0 if "matroska" in container.format.name else (container.start_time or 0) / av.time_base
        tolerance_s = max(min(CUT_TOLERANCE_S, 0.25 * whole_s), 0.02 * whole_s, self._step_s, LEAST_TOLERANCE_S)
        return self._end_s < start_s + whole_s - tolerance_s


def _attached_picture(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _open_error(path: Path, error: av.error.FFmpegError) -> InputError:
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return InputError(Reason.UNREADABLE, error.strerror or "")
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] == b"ftyp":
        return InputError(Reason.VIDEO_TRUNCATED, "an MP4 without its index (moov): it was cut off while being written")
    if isinstance(error, av.error.EOFError):
        return InputError(Reason.NOT_A_VIDEO, "it ends before its first picture")
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
    if not stream.codec_context.width:  # FFmpeg has none where its limit was exceeded, too
        raise InputError(
            Reason.NOT_A_VIDEO, f"not one frame could be decoded: its size is unknown, or above {MAX_PIXELS} pixels"
        )
    raise InputError(Reason.NOT_A_VIDEO, "not one frame could be decoded")


def _fps(stream: av.video.stream.VideoStream) -> Fraction | None:
    """The average rate. Of raw DV FFmpeg states the ticks of its clock instead, 60,000 a second."""
    average, tick = stream.average_rate, stream.time_base
    if average and tick and average * tick == 1:
        average = stream.guessed_rate or average
    return Fraction(average) if average else None


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


def _still(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> bool:
    """Whether it is a picture in a container of videos: HEIF and AVIF, and a GIF or the like that does not move."""
    if container.metadata.get("major_brand", "").strip() in STILL_BRANDS:
        return True
    return container.format.name in MAYBE_STILL and sum(1 for packet in container.demux(stream) if packet.size) == 0


def _transparent(first: av.VideoFrame, stream: av.video.stream.VideoStream) -> bool:
    """Whether pixels can be transparent; of RGB and palettes, which always can, whether some of the first picture are.

    VP8 and VP9 keep that beside the picture, where FFmpeg's decoder drops it.
    """
    beside = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode")
    if first.format.name == "pal8" or (first.format.is_rgb and len(first.format.components) == 4):
        return bool(first.to_ndarray(format="rgba")[..., 3].min() < 255)
    return beside == "1" or len(first.format.components) in (2, 4)


def _dolby_vision(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream, first: av.VideoFrame
) -> int | None:
    """The profile of Dolby Vision, 0 where it is Dolby Vision and says no more."""
    by_box = _dolby_box(path) if container.format.name.startswith(("mov", "matroska")) else None
    if by_box is not None:
        return by_box
    by_frame = any(side_data(first, kind) is not None for kind in (Type.DOVI_METADATA, Type.DOVI_RPU_BUFFER))
    return 0 if by_frame or stream.codec_context.codec_tag in DOLBY_VISION_TAGS else None


def _dolby_box(path: Path, reach: int = 2**20) -> int | None:
    """The profile out of an MP4's or a Matroska's `dvcC`, `dvvC` or `dvwC`: FFmpeg has read it, PyAV does not show it.

    The box stands in the header, which lies within the first or the last `reach` bytes.
    """
    with path.open("rb") as stream:
        head = stream.read(reach)
        stream.seek(max(len(head), os.fstat(stream.fileno()).st_size - reach))
        tail = stream.read(reach)
    for part in (head, tail):
        # MP4: size, type, then version 1.0 and 7 bits of profile; Matroska: the type (BlockAddIDType), then the data
        if found := re.search(rb"dv[cvw]C(?:\x41\xed[\x80-\xff])?[\x01\x02][\x00-\x03](.)", part, re.DOTALL):
            return found[1][0] >> 1
    return None


def _other_streams(container: av.container.InputContainer, video_index: int) -> tuple[str, ...]:
    """Streams that are neither sound nor subtitles nor attachments, and that the muxers do not make anew.

    MP4 keeps its chapters and its timecode in streams of their own.
    """
    found = []
    chapters = len(container.chapters())
    for stream in container.streams:
        context = stream.codec_context
        if stream.index == video_index or stream.type in ("audio", "subtitle", "attachment"):
            continue
        if stream.type == "data" and ("timecode" in stream.metadata or (chapters and stream.frames == chapters)):
            continue
        kind = "cover picture" if _attached_picture(stream) else f"{stream.type} stream"
        found.append(f"{kind} {stream.index} ({context.name if context else 'no codec'})")
    return tuple(found)
