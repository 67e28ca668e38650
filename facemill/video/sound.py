"""Carries what stands beside the picture into the output: sound and subtitles, as packets if it holds them.

The file is opened a second time, so that the frames may take as long as they like and packets are muxed just ahead of
the picture: memory stays flat, and all stay interleaved. Sound that the container does not hold becomes AAC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import av.codec
import av.container
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream

from facemill.errors import FacemillError
from facemill.video.clock import Clock, StreamClock
from facemill.video.info import demux, open_input
from facemill.video.labels import copy_labels

UNKNOWN_RATE_HZ = 48_000  # of a stream that first appears in the middle, whose head says nothing
ADTS_FIXED = bytes([0xFF, 0xFE, 0xFD, 0xC0])  # of AAC's own header: sync, profile, rate, channels
# What players accept in MP4; the muxer itself would take more. QuickTime also holds PCM, Matroska everything.
MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


class SoundTrack:
    """All streams of sound and subtitles of one file on their way into another.

    Attributes:
        notes: what was changed or lost, for the receipt.
    """

    def __init__(self, source: Path, output: av.container.OutputContainer, clock: Clock) -> None:
        self.notes: list[str] = []
        self._path, self._output = source, output
        self._opened = open_input(source)
        self._input = self._opened.__enter__()
        self._clocks: dict[int, StreamClock] = {}
        self._carriers: dict[int, _Copier | _Transcoder] = {}
        for stream in self._input.streams:
            if carrier := self._carrier(stream):
                self._carriers[stream.index] = carrier
                self._clocks[stream.index] = StreamClock(clock, stream)
        self._packets = self._demux()
        self._waiting: Packet[Any] | None = next(self._packets, None)

    def advance(self, until_s: float) -> None:
        """Muxes what is due up to a time in seconds on the output's clock."""
        while self._waiting is not None:
            index = self._waiting.stream.index
            if self._clocks[index].time_s(self._waiting) > until_s:
                return
            self._carriers[index].carry(self._waiting)
            self._waiting = next(self._packets, None)

    def finish(self) -> None:
        """Muxes the rest and flushes the encoders."""
        self.advance(float("inf"))
        for carrier in self._carriers.values():
            carrier.finish()
            self.notes += carrier.notes

    def close(self) -> None:
        self._opened.__exit__(None, None, None)

    def _carrier(self, stream: Stream) -> _Copier | _Transcoder | None:
        if stream.type not in ("audio", "subtitle"):
            return None
        container = self._output.format.name
        context: Any = stream.codec_context  # None where FFmpeg has no decoder, whatever its stub says
        if context is None:
            self.notes.append(f"dropped {stream.type} stream {stream.index}: no decoder here knows its codec")
            return None
        codec = context.codec.canonical_name
        if stream.type == "subtitle":
            if _muxer_takes(stream, container):
                return _Copier(stream, self._output)
            self.notes.append(f"dropped subtitle stream {stream.index} ({codec}): {container} does not hold it")
            return None
        assert isinstance(stream, AudioStream)
        if _players_take(container, codec) and _muxer_takes(stream, container):
            if not _header_changes(self._path, stream):
                return _Copier(stream, self._output)
            self.notes.append(f"sound {codec} (stream {stream.index}) was encoded anew: its header changes on the way")
            return _Transcoder(stream, self._output)
        carrier = _Transcoder(stream, self._output)
        same = carrier.rate == (stream.sample_rate or UNKNOWN_RATE_HZ)
        changed = "" if same else f" at {carrier.rate} Hz instead of {stream.sample_rate}"
        self.notes.append(f"sound {codec} (stream {stream.index}) became aac{changed}, which the container can hold")
        return carrier

    def _demux(self) -> Iterator[Packet[Any]]:
        if not self._carriers:
            return
        try:
            for packet in demux(self._input, *(self._input.streams[index] for index in self._carriers)):
                if packet.size:
                    self._clocks[packet.stream.index].set(packet)
                    yield packet
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self.notes.append(f"sound ends early ({error.strerror})")


class _Copier:
    """Packets as they are, at times that rise."""

    def __init__(self, stream: Stream, output: av.container.OutputContainer) -> None:
        self.notes: list[str] = []
        self._output = output
        self._index = stream.index
        self._target = output.add_stream_from_template(stream)
        copy_labels(stream, self._target, output.format.name)
        self._next: int | None = None  # the earliest time that a packet can have
        self._moved = self._broken = 0

    def carry(self, packet: Packet[Any]) -> None:
        expected = self._next
        if packet.dts is None:
            packet.dts = packet.pts if packet.pts is not None else (expected or 0)
        if expected is not None and packet.dts < expected:
            self._moved += 1
            packet.dts = expected
        if packet.pts is None or packet.pts < packet.dts:
            packet.pts = packet.dts
        # two packets of a subtitle may begin together, two of sound may not
        self._next = packet.dts + 1
        packet.stream = self._target
        try:
            self._output.mux(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError):  # a click, not a failed video
            self._broken += 1

    def finish(self) -> None:
        if self._moved:
            self.notes.append(f"{self._moved} falling timestamps of stream {self._index} were moved")
        if self._broken:
            self.notes.append(f"{self._broken} broken packets of stream {self._index} were skipped")


class _Transcoder:
    """Sound as AAC; at the rates and in the layouts that its encoder knows. It keeps those that it began with, also
    where the source's change."""

    def __init__(self, stream: AudioStream, output: av.container.OutputContainer) -> None:
        self.notes: list[str] = []
        self.rate = _aac_rate(stream.sample_rate or UNKNOWN_RATE_HZ)
        self._output = output
        self._index = stream.index
        self._broken = 0
        # Matroska names no layout, only a number of channels, and the encoder wants a name
        self._layout = LAYOUTS.get(stream.channels, "stereo")
        self._target = output.add_stream("aac", rate=self.rate, layout=self._layout)
        copy_labels(stream, self._target, output.format.name)
        self._resampler = AudioResampler("fltp", self._layout, self.rate)
        self._kind: SoundKind | None = None
        self._changes = 0

    def carry(self, packet: Packet[Any]) -> None:
        try:
            frames: list[Any] = packet.decode()
        except av.error.FFmpegError:  # one broken packet of sound is a click, not a failed video
            self._broken += 1
            return
        for frame in frames:
            kind = kind_of(frame)
            if kind != self._kind and self._kind is not None:  # a resampler takes what it was begun with
                self._encode(None)
                self._resampler = AudioResampler("fltp", self._layout, self.rate)
                self._changes += 1
            self._kind = kind
            self._encode(frame)

    def finish(self) -> None:
        self._encode(None)
        self._output.mux(self._target.encode(None))
        if self._changes:
            kept = f"all of it is {self._layout} at {self.rate} Hz now"
            self.notes.append(f"sound (stream {self._index}) changes its kind {self._changes} times: {kept}")
        if self._broken:
            self.notes.append(f"{self._broken} broken packets of sound (stream {self._index}) were skipped")

    def _encode(self, frame: Any) -> None:
        """A frame, or with None what the resampler still holds."""
        for part in self._resampler.resample(frame):
            if part.pts is not None:  # in the encoder's own ticks, whichever the resampler has
                part.pts = round(part.pts * Fraction(part.time_base or 1) * self.rate)
                part.time_base = Fraction(1, self.rate)
            self._output.mux(self._target.encode(part))


SoundKind = tuple[str, str, int]


def kind_of(frame: Any) -> SoundKind:
    """Format, layout and rate in Hz of decoded sound, all of which may change within a stream."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def _header_changes(path: Path, stream: Stream) -> bool:
    """Whether the header that each packet of AAC has in a broadcast becomes another one, for more than one that may be
    damaged. A container that keeps one for all of a stream would have the rest played at a wrong speed."""
    context: Any = stream.codec_context
    if context.name != "aac" or context.extradata:
        return False
    headers: Counter[bytes] = Counter()
    with open_input(path) as container, suppress(av.error.FFmpegError):  # whoever carries the packets says so
        for packet in demux(container, container.streams[stream.index]):
            head = bytes(packet)[:4] if packet.size else b""
            if len(head) == 4 and head[0] == 0xFF and head[1] >= 0xF0:
                headers[bytes(byte & kept for byte, kept in zip(head, ADTS_FIXED, strict=True))] += 1
    return sum(count > 1 for count in headers.values()) > 1


def _players_take(container: str, codec: str) -> bool:
    if container == "mp4":
        return codec in MP4_SOUND
    if container == "mov":
        return codec in MP4_SOUND - {"opus", "flac"} or codec.startswith("pcm_")
    return True


def _muxer_takes(stream: Stream, container: str) -> bool:
    """Whether the muxer writes a header with this stream: the only one who knows all limits of codec, rate and tag."""
    try:
        with av.open(BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _aac_rate(rate_hz: int) -> int:
    """The rate at which AAC holds sound of a rate: the same, or the next higher, or the highest."""
    rates = sorted(av.codec.Codec("aac", "w").audio_rates or ())
    if not rates:
        raise FacemillError("this FFmpeg has no encoder of AAC: install the project's PyAV")
    return next((rate for rate in rates if rate >= rate_hz), rates[-1])
