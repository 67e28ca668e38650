"""Encodes frames beside the original sound; the file appears only when it is whole and has been verified.

`with VideoWriter(...) as writer:` owns every handle. `commit` closes the temporary file, re-opens and checks it,
flushes it to the disk and gives it its name. Whatever ends the block otherwise (an error, Ctrl-C) leaves nothing
behind; a killed process leaves a hidden `.facemill-new-…` that `facemill.files.sweep` removes.
"""

from __future__ import annotations

import os
from array import array
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from math import lcm
from pathlib import Path
from typing import Annotated, Any

import av
import av.codec
import av.container
import av.error
import numpy as np
from av.codec.context import Flags, OptionType
from av.video.frame import PictureType
from av.video.stream import VideoStream

from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.settings import Limits, Name, Settings
from facemill.video.clock import Clock
from facemill.video.frame import Frame, planes, to_format, working_colour, working_format
from facemill.video.info import VideoInfo, open_input
from facemill.video.labels import copy_container, copy_labels, lost_labels
from facemill.video.sound import SoundTrack
from facemill.video.verify import verify

# Containers we write, by suffix; anything else (avi, webm, ts, wmv, …) cannot hold H.264 with exact timestamps.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
BITEXACT = 0x400  # AVFMT_FLAG_BITEXACT: no random ids, so that the same frames give the same bytes
AUTO = "auto"
USUAL_PRESETS = {"libx264": "veryfast", "libx265": "veryfast", "libsvtav1": "8"}
FIELD_ENCODERS = {"libx264"}  # encoders that keep the two fields of an interlaced picture
WORTH_SAYING_S = Fraction(1, 1000)
MOST_TICKS = 2**31 - 1  # of a second of MP4's clock
ODD_420_ENCODERS = {"libvpx-vp9", "libsvtav1", "libaom-av1", "librav1e", "ffv1"}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Settings):
    """Which encoder writes the pictures of a video, at which quality and speed."""

    name: Name = "libx264"
    """FFmpeg's name of the encoder: libx264, libx265, libsvtav1, h264_nvenc and others."""
    crf: Annotated[int, Limits(ge=0, le=51)] = 20
    """Constant quality: 0 is lossless, 18 is visually close to the original, 51 is the worst."""
    preset: Annotated[str, Limits(max_length=64)] = "auto"
    """The encoder's own word for speed against size; auto: veryfast for libx264 and libx265, p4 for those of NVIDIA, 8
    for libsvtav1, and none for others; empty for none."""
    threads: Annotated[int, Limits(ge=1, le=64)] = 2
    """Threads of the encoder. The bytes of x264's output depend on it, so it is not taken from the machine."""

    def options(self) -> dict[str, str]:
        """The settings as the encoder's own options, by FFmpeg's names for them."""
        quality = "cq" if self.name.endswith("_nvenc") else "crf"
        preset = _usual_preset(self.name) if self.preset == AUTO else self.preset
        options = {quality: str(self.crf)} | ({"preset": preset} if preset else {})
        # x264's macroblock tree reads memory that it has not set: one run in twenty gave other bytes on a small clip,
        # and none of 300 did without it
        return options | ({"x264-params": "mbtree=0"} if self.name == "libx264" else {})


class VideoWriter:
    """Writes one video.

    Attributes:
        pix_fmt: the format to decode into, so that nothing is converted on the way (`VideoReader(pix_fmt=...)`).
        keeps_fields: whether interlaced pictures are written as such; else whoever reads deinterlaces.
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
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            path: the output; its suffix must be in `CONTAINERS`.
            info: of the source: size, timing, colour tags and pixel ratio are taken from it.
            sound_from: the file whose sound, subtitles, chapters and labels are carried over.
            clock: of that file, where it is known; the frames' times are on it.

        Raises:
            FacemillError: a container that cannot be written, or an encoder that this machine cannot open.
        """
        self.path = Path(path)
        self.settings = settings or EncoderSettings()
        self.info = info
        self.pix_fmt = output_format(info, self.settings.name)
        _check_preset(self.settings)
        self.keeps_fields = info.interlaced and _keeps_fields(info, self.settings.name)
        self.warnings = _losses(info, self.pix_fmt, self.settings.name)
        self.frames_written = 0
        self._sound_from = Path(sound_from) if sound_from is not None else None
        self._clock = clock
        self._colour = working_colour(info)
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
        picture = to_format(frame.picture, self.pix_fmt, self._colour)
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
        if self._sound_from is not None:
            self.warnings += lost_labels(self._sound_from, self._temporary)
            _keep_times(self._sound_from, self._temporary)
        # Matroska knows no time below 0, where the sound of an MP4 begins: it moves everything by the same amount
        may_shift = self._container_name == "matroska" and "matroska" not in self.info.container
        size = (self._width, self._height)
        shift = verify(self._temporary, self._pts, self.info.time_base, size=size, shifted=may_shift)
        if abs(shift) >= WORTH_SAYING_S:
            self.warnings.append(f"all times are {float(shift) * 1000:.0f} ms later: Matroska holds none below 0")
        self._stack.close()

    def _open(self) -> None:
        clock = self._clock
        if clock is None:
            clock = Clock.of(self._sound_from) if self._sound_from is not None else Clock()
        self._output = av.open(
            f"file:{self._temporary}", "w", format=self._container_name, options=self._muxer_options(clock)
        )
        self._output.flags |= BITEXACT
        self._sound: SoundTrack | None = None
        self._open_resources: list[Any] = [self._output]
        self._stream = self._add_video()
        self._width, self._height = self._stream.width, self._stream.height
        if self._sound_from is not None:
            with open_input(self._sound_from) as source:
                copy_labels(source.streams[self.info.index], self._stream, self._output.format.name)
                self.warnings += copy_container(source, self._output, clock)
            self._sound = SoundTrack(self._sound_from, self._output, clock)
            self._open_resources.insert(0, self._sound)

    def _muxer_options(self, clock: Clock) -> dict[str, str]:
        if self._container_name not in ("mp4", "mov"):
            return {}
        # the index first, so that it plays while it is still arriving
        options = {"movflags": "+faststart"}
        # A stream that begins later does so on the film's own clock, of whole milliseconds unless told otherwise
        exact = lcm(1000, *(start.denominator for start in clock.starts_s.values()))
        if exact != 1000:
            options["movie_timescale"] = str(exact if exact <= MOST_TICKS else self.info.time_base.denominator)
        return options

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
        colour = self._colour
        context.color_primaries, context.color_trc = colour.primaries, colour.trc
        context.colorspace, context.color_range = colour.space, colour.range
        context.flags |= Flags.frame_duration.value  # or the last frame would last as long as the one before
        if self.keeps_fields:
            context.flags |= Flags.interlaced_dct.value | Flags.interlaced_me.value
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


@lru_cache
def container_holds(container: str, encoder: str) -> bool:
    """Whether a muxer takes what an encoder gives, by the header that it writes. True where that cannot be told here,
    since the encoder does not open on this machine.

    Args:
        container: FFmpeg's name of the muxer, see `CONTAINERS`.
    """
    settings = EncoderSettings(name=encoder)
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.time_base = 256, 256, Fraction(1, 25)
    formats = _formats(encoder)
    context.pix_fmt = "yuv420p" if "yuv420p" in formats or not formats else formats[0]
    try:
        context.options = settings.options()
        context.open()
    except (av.error.FFmpegError, ValueError):
        return True
    try:
        with av.open(BytesIO(), "w", format=container) as trial:
            stream: Any = trial.add_stream(encoder, rate=25, options=settings.options())
            stream.width, stream.height, stream.pix_fmt = 256, 256, context.pix_fmt
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


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
    _check_preset(settings)
    with av.open(BytesIO(), "w", format="mp4") as output:
        try:
            stream = output.add_stream(settings.name, rate=25, options=settings.options())
        except (av.error.FFmpegError, ValueError) as error:
            raise FacemillError(f"MP4 cannot hold what {settings.name} encodes: use libx264") from error
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = 256, 256  # some on graphics cards take nothing smaller
        stream.pix_fmt = "yuv420p" if "yuv420p" in formats or not formats else formats[0]
        _open_encoder(stream.codec_context, settings)


def _formats(encoder: str) -> tuple[str, ...]:
    """Names of the pixel formats that an encoder takes; empty where it does not say. Raises as `output_format`."""
    try:
        codec = av.codec.Codec(encoder, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise FacemillError(f"this FFmpeg has no encoder {encoder!r}: use libx264") from error
    if codec.type != "video":
        raise FacemillError(f"{encoder} encodes {codec.type}, not pictures: use libx264")
    return tuple(layout.name for layout in codec.video_formats or ())


def _check_preset(settings: EncoderSettings) -> None:
    """Raises FacemillError where FFmpeg's own table of the encoder's options knows no such preset."""
    if settings.preset in (AUTO, ""):
        return
    options = av.CodecContext.create(settings.name, "w").supported_options.private
    preset = next((option for option in options if option.name == "preset"), None)
    if preset is None:
        raise FacemillError(f"{settings.name} knows no presets: leave the preset at auto")
    names = [choice.name for choice in preset.choices]
    if names and settings.preset not in names:
        raise FacemillError(
            f"{settings.name} knows no preset {settings.preset!r}: take auto, or one of {', '.join(names)}"
        )
    if not names and preset.type == OptionType.INT and not settings.preset.lstrip("-").isdecimal():
        raise FacemillError(
            f"{settings.name} knows no preset {settings.preset!r}: take auto, or a number from {preset.min:.0f} to "
            f"{preset.max:.0f}"
        )


def _open_encoder(context: Any, settings: EncoderSettings) -> None:
    """Raises FacemillError where the encoder does not open."""
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        raise FacemillError(
            f"the encoder {settings.name} does not open on this machine with the preset {settings.preset!r} "
            f"({error}): use libx264"
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


def _keeps_fields(info: VideoInfo, encoder: str) -> bool:
    """Fields lie in lines: a picture that is turned or stands on its head has others."""
    return encoder in FIELD_ENCODERS and not (info.orientation.transposed or info.orientation.flip_y)


def _keep_times(source: Path, target: Path) -> None:
    """The date by which an archive is sorted."""
    status = source.stat()
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _usual_preset(encoder: str) -> str:
    return USUAL_PRESETS.get(encoder, "p4" if encoder.endswith("_nvenc") else "")


def _padded(picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The picture with its last column or row repeated."""
    larger = av.VideoFrame(width, height, picture.format.name)
    for source, target in zip(planes(picture), planes(larger), strict=True):
        missing = ((0, target.shape[0] - source.shape[0]), (0, target.shape[1] - source.shape[1]))
        target[:] = np.pad(source, missing, mode="edge")
    larger.color_range, larger.colorspace = picture.color_range, picture.colorspace
    return larger
