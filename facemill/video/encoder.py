"""Which encoder writes the pictures of a video: its settings, what it can hold, and whether it opens here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import av
import av.codec
import av.error
from av.codec.context import OptionType
from av.video.stream import VideoStream

from facemill.errors import FacemillError
from facemill.settings import Limits, Name, Settings
from facemill.video.frame import working_format
from facemill.video.info import VideoInfo
from facemill.video.scheduling import scheduled_as_before

# Containers we write, by suffix; anything else (avi, webm, ts, wmv, …) cannot hold H.264 with exact timestamps.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
AUTO = "auto"
USUAL_PRESETS = {"libx264": "veryfast", "libx265": "veryfast", "libsvtav1": "8"}
FIELD_ENCODERS = {"libx264"}  # encoders that keep the two fields of an interlaced picture
ODD_420_ENCODERS = {"libvpx-vp9", "libsvtav1", "libaom-av1", "librav1e", "ffv1"}
# One thread each, since films are encoded in as many pieces at once as there are cores, and nothing of the machine in
# the bytes: x264's depend on its threads and on the processor's instructions, x265 writes both of them down.
SAME_EVERYWHERE = {
    # x264's macroblock tree reads memory that it has not set: with two threads one run in twenty gave other bytes on a
    # small clip, and none of 300 did without it
    "libx264": {"x264-params": "mbtree=0:threads=1:lookahead-threads=1:cpu-independent=1"},
    "libx265": {"x265-params": "pools=1:frame-threads=1:info=0"},
    "libsvtav1": {"svtav1-params": "lp=1"},
}


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

    def options(self) -> dict[str, str]:
        """The settings as the encoder's own options, by FFmpeg's names for them."""
        quality = "cq" if self.name.endswith("_nvenc") else "crf"
        preset = _usual_preset(self.name) if self.preset == AUTO else self.preset
        options = {quality: str(self.crf)} | ({"preset": preset} if preset else {})
        return options | SAME_EVERYWHERE.get(self.name, {})


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
        with scheduled_as_before():
            context.open()
    except (av.error.FFmpegError, ValueError):
        return True
    try:
        with av.open(BytesIO(), "w", format=container) as trial:
            stream: Any = trial.add_stream(encoder, rate=25, options=settings.options())
            stream.width, stream.height, stream.pix_fmt = 256, 256, context.pix_fmt
            with scheduled_as_before():
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
    check_preset(settings)
    with av.open(BytesIO(), "w", format="mp4") as output:
        try:
            stream = output.add_stream(settings.name, rate=25, options=settings.options())
        except (av.error.FFmpegError, ValueError) as error:
            raise FacemillError(f"MP4 cannot hold what {settings.name} encodes: use libx264") from error
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = 256, 256  # some on graphics cards take nothing smaller
        stream.pix_fmt = "yuv420p" if "yuv420p" in formats or not formats else formats[0]
        open_encoder(stream.codec_context, settings)


def _formats(encoder: str) -> tuple[str, ...]:
    """Names of the pixel formats that an encoder takes; empty where it does not say. Raises as `output_format`."""
    try:
        codec = av.codec.Codec(encoder, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise FacemillError(f"this FFmpeg has no encoder {encoder!r}: use libx264") from error
    if codec.type != "video":
        raise FacemillError(f"{encoder} encodes {codec.type}, not pictures: use libx264")
    return tuple(layout.name for layout in codec.video_formats or ())


def check_preset(settings: EncoderSettings) -> None:
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


def open_encoder(context: Any, settings: EncoderSettings) -> None:
    """Opens the encoder; its threads are scheduled as this one is. Raises FacemillError where it does not open."""
    try:
        with scheduled_as_before():
            context.open()
    except (av.error.FFmpegError, ValueError) as error:
        raise FacemillError(
            f"the encoder {settings.name} does not open on this machine with the preset {settings.preset!r} "
            f"({error}): use libx264"
        ) from error


def encoded_size(info: VideoInfo, pix_fmt: str, encoder: str) -> tuple[int, int]:
    """Width and height of the written picture: a column or a row more where an encoder takes even sizes only."""
    pad = _must_pad(info, pix_fmt, encoder)
    return info.width + (info.width % 2) * pad, info.height + (info.height % 2) * pad


def _must_pad(info: VideoInfo, pix_fmt: str, encoder: str) -> bool:
    odd = info.width % 2 or info.height % 2
    return bool(odd) and pix_fmt != "yuv444p" and encoder not in ODD_420_ENCODERS


def losses(info: VideoInfo, pix_fmt: str, encoder: str) -> list[str]:
    """What a person should know about the pictures that are written."""
    notes = [f"dropped {other}" for other in info.other]
    if _must_pad(info, pix_fmt, encoder):
        notes.append(f"padded to an even size: {encoder} cannot encode {info.width}×{info.height}")
    elif pix_fmt == "yuv444p" and (info.width % 2 or info.height % 2):
        notes.append(f"encoded as 4:4:4 to keep the odd size {info.width}×{info.height}")
    return notes


def keeps_fields(info: VideoInfo, encoder: str) -> bool:
    """Whether interlaced pictures are written as such. Fields lie in lines: a picture that is turned or stands on its
    head has others."""
    return (
        info.interlaced and encoder in FIELD_ENCODERS and not (info.orientation.transposed or info.orientation.flip_y)
    )


def _usual_preset(encoder: str) -> str:
    return USUAL_PRESETS.get(encoder, "p4" if encoder.endswith("_nvenc") else "")
