"""Encodes frames beside the original sound; the file appears only when it is whole and has been verified.

`with VideoWriter(...) as writer:` owns every handle. `commit` closes the temporary file, re-opens and checks it,
flushes it to the disk and gives it its name. Whatever ends the block otherwise (an error, Ctrl-C) leaves nothing
behind; a killed process leaves a hidden `.facemill-new-…` that `facemill.files.sweep` removes.
"""

from __future__ import annotations

from array import array
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import av
import av.codec
import av.container
import av.error
import numpy as np
from av.video.frame import PictureType
from av.video.stream import VideoStream

from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.settings import Limits, Name, Settings
from facemill.video.frame import Frame, planes, to_format, working_format
from facemill.video.info import VideoInfo
from facemill.video.sound import SoundTrack
from facemill.video.verify import verify

# Containers we write, by suffix; anything else (avi, webm, ts, wmv, …) cannot hold H.264 with exact timestamps.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
BITEXACT = 0x400  # AVFMT_FLAG_BITEXACT: no random ids, so that the same frames give the same bytes
ODD_420_ENCODERS = {"libvpx-vp9", "libsvtav1", "libaom-av1", "librav1e", "ffv1"}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Settings):
    """Which encoder writes the pictures of a video, at which quality and speed."""

    name: Name = "libx264"
    """FFmpeg's name of the encoder: libx264, libx265, libsvtav1, h264_nvenc and others."""
    crf: Annotated[int, Limits(ge=0, le=51)] = 20
    """Constant quality: 0 is lossless, 18 is visually close to the original, 51 is the worst."""
    preset: Annotated[str, Limits(max_length=64)] = "veryfast"
    """The encoder's own word for speed against size; empty for encoders that know none."""
    threads: Annotated[int, Limits(ge=1, le=64)] = 2
    """Threads of the encoder. The bytes of x264's output depend on it, so it is not taken from the machine."""

    def options(self) -> dict[str, str]:
        """The settings as the encoder's own options, by FFmpeg's names for them."""
        quality = "cq" if self.name.endswith("_nvenc") else "crf"
        options = {quality: str(self.crf)} | ({"preset": self.preset} if self.preset else {})
        # x264's macroblock tree reads memory that it has not set: one run in twenty gave other bytes on a small clip,
        # and none of 300 did without it
        return options | ({"x264-params": "mbtree=0"} if self.name == "libx264" else {})


class VideoWriter:
    """Writes one video.

    Attributes:
        pix_fmt: the format to decode into, so that nothing is converted on the way (`VideoReader(pix_fmt=...)`).
        warnings: what a person should know about the output.
        frames_written: frames handed to the encoder so far.
    """

    def __init__(
        self,
        path: Path | str,
        info: VideoInfo,
        settings: EncoderSettings | None = None,
        *,
        sound_from: Path | str | None = None,
    ) -> None:
        """
        Args:
            path: the output; its suffix must be in `CONTAINERS`.
            info: of the source: size, timing, colour tags and pixel ratio are taken from it.
            sound_from: the file whose audio streams are carried over.

        Raises:
            FacemillError: a container that cannot be written, or an encoder that this machine cannot open.
        """
        self.path = Path(path)
        self.settings = settings or EncoderSettings()
        self.info = info
        self.pix_fmt = output_format(info, self.settings.name)
        self.warnings = _losses(info, self.pix_fmt, self.settings.name)
        self.frames_written = 0
        self._sound_from = Path(sound_from) if sound_from is not None else None
        self._pts = array("q")
        self._stack = ExitStack()
        self._container_name = container_name(self.path)

    def __enter__(self) -> VideoWriter:
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        try:
            self._open()
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Without `commit` the temporary file goes."""
        reason = error or _NotCommitted()
        self._abandon()
        self._stack.__exit__(type(reason), reason, trace)  # a full disk becomes a FacemillError here

    def write(self, frame: Frame) -> None:
        """Encodes a frame of the source's size. Its pts is kept; frames come in order of display."""
        picture = to_format(frame.picture, self.pix_fmt)
        if (picture.width, picture.height) != (self._stream.width, self._stream.height):
            picture = _padded(picture, self._stream.width, self._stream.height)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        picture.pict_type = PictureType.NONE  # or the encoder would repeat the source's choice of key frames
        self._pts.append(frame.pts)
        self.frames_written += 1
        self._output.mux(self._stream.encode(picture))
        if self._sound:
            self._sound.advance(frame.time_s)

    def commit(self) -> None:
        """Closes, verifies, flushes, renames.

        Raises:
            InputError: CONVERSION_FAILED, the written file is not what was put in.
            FacemillError: the disk is full.
        """
        self._output.mux(self._stream.encode(None))
        if self._sound:
            self._sound.finish()
            self.warnings += self._sound.notes
        self._close()
        # Matroska knows no time below 0, where the sound of an MP4 begins: it moves everything by the same amount
        may_shift = self._container_name == "matroska" and "matroska" not in self.info.container
        size = (self._width, self._height)
        shift = verify(self._temporary, self._pts, self.info.time_base, size=size, shifted=may_shift)
        if shift:
            self.warnings.append(f"all times are {float(shift) * 1000:.0f} ms later: Matroska holds none below 0")
        self._stack.close()

    def _open(self) -> None:
        # the index first, so that it plays while it is still arriving
        options = {"movflags": "+faststart"} if self._container_name in ("mp4", "mov") else {}
        self._output = av.open(str(self._temporary), "w", format=self._container_name, options=options)
        self._output.flags |= BITEXACT
        self._sound: SoundTrack | None = None
        self._open_resources: list[Any] = [self._output]
        self._stream = self._add_video()
        self._width, self._height = self._stream.width, self._stream.height
        if self._sound_from is not None:
            self._sound = SoundTrack(self._sound_from, self._output)
            self._open_resources.insert(0, self._sound)

    def _add_video(self) -> VideoStream:
        info, settings = self.info, self.settings
        rate = info.fps or Fraction(25)
        try:
            stream = self._output.add_stream(settings.name, rate=rate, options=settings.options())
        except (av.error.FFmpegError, ValueError) as error:
            raise FacemillError(f"no encoder {settings.name!r} for {self.path.suffix} here: use libx264") from error
        if not isinstance(stream, VideoStream):
            raise FacemillError(f"{settings.name} encodes no pictures: use libx264")
        context = stream.codec_context
        pad = _must_pad(info, self.pix_fmt, settings.name)
        stream.width, stream.height = info.width + (info.width % 2) * pad, info.height + (info.height % 2) * pad
        stream.pix_fmt = self.pix_fmt
        context.time_base = info.time_base  # the source's clock: pts pass unchanged, however uneven
        context.thread_count = settings.threads
        context.thread_type = "AUTO"  # whole frames: slices alone cost size and, in x264, the lookahead
        context.color_primaries, context.color_trc = info.colour.primaries, info.colour.trc
        context.colorspace, context.color_range = _space(info), info.colour.range
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        _open_encoder(context, settings)
        return stream

    def _close(self) -> None:
        while self._open_resources:
            self._open_resources.pop(0).close()

    def _abandon(self) -> None:
        while getattr(self, "_open_resources", None):
            try:
                self._open_resources.pop(0).close()
            except (av.error.FFmpegError, OSError):  # the file is thrown away: its last bytes no longer matter
                continue


def container_name(path: Path) -> str:
    """FFmpeg's muxer for a suffix.

    Raises:
        FacemillError: not one of `CONTAINERS`.
    """
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(CONTAINERS))
        raise FacemillError(f"cannot write a video named {path.name}: the suffix must be one of {known}") from None


def output_format(info: VideoInfo, encoder: str) -> str:
    """The pixel format for a source and an encoder.

    Raises:
        FacemillError: FFmpeg has no such encoder, or it encodes no pictures.
    """
    return working_format(info, _formats(encoder), odd_420=encoder in ODD_420_ENCODERS)


def check_encoder(settings: EncoderSettings) -> None:
    """Opens the encoder as a video would, without one.

    Raises:
        FacemillError: FFmpeg has no such encoder, it encodes no pictures, MP4 cannot hold them, or it does not open
            with its preset on this machine.
    """
    formats = _formats(settings.name)
    with av.open(BytesIO(), "w", format="mp4") as output:
        try:
            stream = output.add_stream(settings.name, rate=25, options=settings.options())
        except (av.error.FFmpegError, ValueError) as error:
            raise FacemillError(f"MP4 cannot hold what {settings.name} encodes: use libx264") from error
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = 256, 256  # some on graphics cards take nothing smaller
        stream.pix_fmt = "yuv420p" if "yuv420p" in formats or not formats else formats[0]
        _open_encoder(stream.codec_context, settings)
        if "preset" in stream.codec_context.options:  # what the encoder has not taken is left in there
            raise FacemillError(f"{settings.name} knows no presets: leave the preset empty")


def _formats(encoder: str) -> tuple[str, ...]:
    """Names of the pixel formats that an encoder takes; empty where it does not say. Raises as `output_format`."""
    try:
        codec = av.codec.Codec(encoder, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise FacemillError(f"this FFmpeg has no encoder {encoder!r}: use libx264") from error
    if codec.type != "video":
        raise FacemillError(f"{encoder} encodes {codec.type}, not pictures: use libx264")
    return tuple(layout.name for layout in codec.video_formats or ())


def _open_encoder(context: Any, settings: EncoderSettings) -> None:
    """Raises FacemillError where the encoder does not open."""
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        raise FacemillError(
            f"the encoder {settings.name} does not open on this machine with the preset {settings.preset!r} "
            f"({error}): use libx264 with veryfast"
        ) from error


class _NotCommitted(Exception):
    """The block ended without `commit`."""


def _must_pad(info: VideoInfo, pix_fmt: str, encoder: str) -> bool:
    odd = info.width % 2 or info.height % 2
    return bool(odd) and pix_fmt != "yuv444p" and encoder not in ODD_420_ENCODERS


def _losses(info: VideoInfo, pix_fmt: str, encoder: str) -> list[str]:
    notes = [f"dropped {other}" for other in info.other]
    if _must_pad(info, pix_fmt, encoder):
        notes.append(f"padded to an even size: {encoder} cannot encode {info.width}×{info.height}")
    elif pix_fmt == "yuv444p" and (info.width % 2 or info.height % 2):
        notes.append(f"encoded as 4:4:4 to keep the odd size {info.width}×{info.height}")
    return notes


def _space(info: VideoInfo) -> int:
    """The matrix tag. RGB sources (0) become YUV and are tagged with the matrix that did it."""
    if info.colour.space != 0:
        return info.colour.space
    return 1 if info.width >= 1280 or info.height > 576 else 6


def _padded(picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The picture with its last column or row repeated."""
    larger = av.VideoFrame(width, height, picture.format.name)
    for source, target in zip(planes(picture), planes(larger), strict=True):
        missing = ((0, target.shape[0] - source.shape[0]), (0, target.shape[1] - source.shape[1]))
        target[:] = np.pad(source, missing, mode="edge")
    larger.color_range, larger.colorspace = picture.color_range, picture.colorspace
    return larger
