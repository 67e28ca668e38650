"""A film that is encoded in parts, at any time and by anybody, to be joined packet by packet (`joining.py`).

    with PartWriter(folder / "000.mp4", info, settings) as writer:      # one for each segment of the film
        for frame in frames:
            writer.write(frame)
        part = writer.commit()

Every part begins with a fresh encoder, so with a key frame that needs nothing before it, and its bytes depend on its
frames and its settings alone. A part is a video of the kind that the film will be, its packets one step apart as they
were encoded; the times of its frames stand in `Part`, exact in every container.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import av.container
import av.error
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from facemill.errors import FacemillError, InputError
from facemill.files import atomic_path, file_sha256
from facemill.reasons import Reason
from facemill.video.changes import CAPTION_ENCODERS, CAPTIONS_LOST, captioned
from facemill.video.encoder import (
    EncoderSettings,
    check_preset,
    container_name,
    encoded_size,
    keeps_fields,
    losses,
    open_encoder,
    output_format,
)
from facemill.video.frame import Frame, planes, to_format, working_colour
from facemill.video.info import VideoInfo, open_input, video_stream
from facemill.video.verify import verify

BITEXACT = 0x400  # AVFMT_FLAG_BITEXACT: no random ids, so that the same frames give the same bytes
LEAST_STEP_S = Fraction(2, 1000)  # so that Matroska tells the frames of a part apart


@dataclass(frozen=True, kw_only=True)
class Part:
    """A written part: what its file must be, and what joining it needs.

    Attributes:
        sha256: of the file.
        reorder_depth: by how many places a packet comes earlier than its frame is shown, at most.
        header_sha256: of what its decoder must know beforehand (extradata). A film has one header for all its parts.
        pts, durations, keys: of each packet in order of decoding: its time and length in ticks of `time_base`, and
            whether it is a key frame. A length of 0 is one that nobody stated.
    """

    path: Path
    sha256: str
    encoder: str
    pix_fmt: str
    size_wh: tuple[int, int]
    time_base: Fraction
    reorder_depth: int
    header_sha256: str
    pts: array[int]
    durations: array[int]
    keys: array[int]

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.pts)

    def as_dict(self) -> dict[str, Any]:
        """All but the path, as plain values for JSON."""
        return {
            "sha256": self.sha256,
            "encoder": self.encoder,
            "pix_fmt": self.pix_fmt,
            "size_wh": list(self.size_wh),
            "time_base": str(self.time_base),
            "reorder_depth": self.reorder_depth,
            "header_sha256": self.header_sha256,
            "pts": list(self.pts),
            "durations": list(self.durations),
            "keys": [number for number, key in enumerate(self.keys) if key],
        }

    @classmethod
    def from_dict(cls, path: Path, values: Mapping[str, Any]) -> Part:
        """What `as_dict` gave, for a file that may lie elsewhere by now."""
        keys = set(values["keys"])
        width, height = values["size_wh"]
        return cls(
            path=path,
            sha256=values["sha256"],
            encoder=values["encoder"],
            pix_fmt=values["pix_fmt"],
            size_wh=(width, height),
            time_base=Fraction(values["time_base"]),
            reorder_depth=values["reorder_depth"],
            header_sha256=values["header_sha256"],
            pts=array("q", values["pts"]),
            durations=array("q", values["durations"]),
            keys=array("b", (number in keys for number in range(len(values["pts"])))),
        )


class FrameWriter:
    """Frames on their way into a file that appears when it is whole and has been verified, or not at all.

    What the writers of a part and of a film have in common; `commit` is theirs. A block that ends without it leaves
    nothing.

    Attributes:
        pix_fmt: the format to decode into, so that nothing is converted on the way (`VideoReader(pix_fmt=...)`).
        keeps_fields: whether interlaced pictures are written as such; else whoever reads deinterlaces.
        warnings: what a person should know about the output.
    """

    def __init__(self, path: Path | str, info: VideoInfo, settings: EncoderSettings | None = None) -> None:
        """
        Args:
            path: where the file goes; its suffix must be in `CONTAINERS`.
            info: of the whole film: size, timing, colour tags and pixel ratio are taken from it.

        Raises:
            FacemillError: a container that cannot be written, or an encoder that this machine cannot open.
        """
        self.path = Path(path)
        self._encoding = Encoding(self.path, info, settings or EncoderSettings())
        self.pix_fmt = self._encoding.pix_fmt
        self.keeps_fields = self._encoding.keeps_fields
        self.warnings = losses(info, self.pix_fmt, self._encoding.settings.name)
        self._stack = ExitStack()

    @property
    def frames_written(self) -> int:
        """Frames handed to the encoder so far."""
        return self._encoding.frames_written

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self.path))
            stack.enter_context(self._encoding.into(self._part_path(stack)))
            self._stack = stack.pop_all()
        return self

    def _part_path(self, stack: ExitStack) -> Path:
        """Where the encoder writes."""
        return self._temporary

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Without `commit` the temporary file goes."""
        reason = error or NotCommitted()
        self._stack.__exit__(type(reason), reason, trace)  # a full disk becomes a FacemillError here

    def write(self, frame: Frame) -> None:
        """Encodes a frame of the film's size. Its pts is kept; frames come in order of display."""
        lost = captioned(frame.picture) and self._encoding.settings.name not in CAPTION_ENCODERS
        if lost and CAPTIONS_LOST not in self.warnings:
            self.warnings.append(CAPTIONS_LOST)
        self._encoding.write(frame)


class PartWriter(FrameWriter):
    """Writes one part of a film, with the suffix that the film will have; `join_parts` says its warnings, too."""

    def commit(self) -> Part:
        """Closes, verifies, flushes, renames.

        Raises:
            InputError: CONVERSION_FAILED, the written file is not what was put in.
            FacemillError: the disk is full.
        """
        part = self._encoding.finish()
        self._stack.close()
        return replace(part, path=self.path)


class Encoding:
    """Frames on their way through an encoder into the file of a part; their times are kept beside it."""

    def __init__(self, path: Path, info: VideoInfo, settings: EncoderSettings) -> None:
        self.settings = settings
        self.pix_fmt = output_format(info, settings.name)
        check_preset(settings)
        self.keeps_fields = keeps_fields(info, settings.name)
        self.frames_written = 0
        self._info = info
        self._container = container_name(path)
        self._step = max(info.usual_ticks, math.ceil(LEAST_STEP_S / info.time_base))
        self._colour = working_colour(info)
        self._given = array("q")  # pts of the frames that were put in
        self._lengths: dict[int, int] = {}  # of those that the encoder still holds, by their pts
        self._pts, self._durations, self._keys = array("q"), array("q"), array("b")  # of the packets that came out

    @contextmanager
    def into(self, path: Path) -> Iterator[None]:
        """Opens the encoder and the file. Whatever ends the block closes both."""
        self._path = path
        self._output = av.open(f"file:{path}", "w", format=self._container)
        try:
            self._output.flags |= BITEXACT
            self._stream = self._add_video()
            yield
        finally:
            # without `finish` the file is thrown away: its last bytes no longer matter
            with suppress(av.error.FFmpegError, OSError):
                self._output.close()

    def write(self, frame: Frame) -> None:
        """Encodes a frame; see `PartWriter.write`."""
        picture = to_format(frame.picture, self.pix_fmt, self._colour)
        if (picture.width, picture.height) != (self._stream.width, self._stream.height):
            picture = _padded(picture, self._stream.width, self._stream.height)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        picture.pict_type = PictureType.NONE  # or the encoder would repeat the source's choice of key frames
        self._given.append(frame.pts)
        self._lengths[frame.pts] = frame.duration
        self.frames_written += 1
        self._mux(self._stream.encode(picture))

    def finish(self) -> Part:
        """Closes and verifies the file."""
        self._mux(self._stream.encode(None))
        self._output.close()
        if not self._given:
            raise InputError(Reason.CONVERSION_FAILED, "verification: no frames")
        size = (self._stream.width, self._stream.height)
        if sorted(self._pts) != list(self._given):
            detail = f"verification: {len(self._given)} frames became {len(self._pts)} packets, or have other times"
            raise InputError(Reason.CONVERSION_FAILED, detail)
        steps = [self._step * number for number in range(len(self._pts))]
        verify(self._path, steps, self._info.time_base, size=size, tail=False)
        with open_input(self._path) as written:
            header = hashlib.sha256(video_stream(written).codec_context.extradata or b"").hexdigest()
        return Part(
            path=self._path,
            sha256=file_sha256(self._path),
            encoder=self.settings.name,
            pix_fmt=self.pix_fmt,
            size_wh=size,
            time_base=self._info.time_base,
            reorder_depth=max(self._stream.codec_context.reorder_depth, _reorder_depth(self._pts)),
            header_sha256=header,
            pts=self._pts,
            durations=self._durations,
            keys=self._keys,
        )

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            at = packet.pts if packet.pts is not None else self._given[0]
            # some encoders give the usual length to all
            self._durations.append(self._lengths.pop(at, 0) or packet.duration or 0)
            packet.pts = packet.dts = len(self._pts) * self._step
            packet.duration = self._step
            self._pts.append(at)
            self._keys.append(packet.is_keyframe)
            self._output.mux(packet)

    def _add_video(self) -> VideoStream:
        info, settings = self._info, self.settings
        try:
            stream = self._output.add_stream(settings.name, rate=info.nominal_rate, options=settings.options())
        except (av.error.FFmpegError, ValueError) as error:
            raise FacemillError(f"no encoder {settings.name!r} for {self._container} here: use libx264") from error
        if not isinstance(stream, VideoStream):
            raise FacemillError(f"{settings.name} encodes no pictures: use libx264")
        context = stream.codec_context
        stream.width, stream.height = encoded_size(info, self.pix_fmt, settings.name)
        stream.pix_fmt = self.pix_fmt
        context.time_base = info.time_base  # the source's clock: pts pass unchanged, however uneven
        context.thread_count = 1  # as many parts are encoded at once as there are cores
        colour = self._colour
        context.color_primaries, context.color_trc = colour.primaries, colour.trc
        context.colorspace, context.color_range = colour.space, colour.range
        context.flags |= Flags.frame_duration.value  # or the last frame would last as long as the one before
        if self.keeps_fields:
            context.flags |= Flags.interlaced_dct.value | Flags.interlaced_me.value
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        open_encoder(context, settings)
        return stream


def _reorder_depth(pts: Sequence[int]) -> int:
    """By how many places packets come earlier than their frames are shown, as far as these tell."""
    shown = np.argsort(np.argsort(np.asarray(pts)))
    return int(np.max(np.arange(len(shown)) - shown, initial=0))


class NotCommitted(Exception):
    """The block ended without `commit`."""


def _padded(picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The picture with its last column or row repeated."""
    larger = av.VideoFrame(width, height, picture.format.name)
    for source, target in zip(planes(picture), planes(larger), strict=True):
        missing = ((0, target.shape[0] - source.shape[0]), (0, target.shape[1] - source.shape[1]))
        target[:] = np.pad(source, missing, mode="edge")
    larger.color_range, larger.colorspace = picture.color_range, picture.colorspace
    return larger
