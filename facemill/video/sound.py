"""Carries the original sound into the output: packets as they are, or AAC where the container cannot hold the codec.

The file is opened a second time for its sound, so that the frames may take as long as they like and packets are muxed
just ahead of the picture: memory stays flat, and the two stay interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.container
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet

from facemill.video.info import open_input

# What players accept in MP4; the muxer itself would take more. QuickTime also holds PCM, Matroska everything.
MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


class SoundTrack:
    """All audio streams of one file on their way into another.

    Attributes:
        notes: what was changed or lost, for the receipt.
    """

    def __init__(self, source: Path, output: av.container.OutputContainer) -> None:
        self.notes: list[str] = []
        self._output = output
        self._opened = open_input(source)
        self._input = self._opened.__enter__()
        self._carriers = {
            stream.index: self._carrier(stream)
            for stream in self._input.streams.audio
            if stream.codec_context is not None
        }
        self._packets = self._demux()
        self._waiting: Packet[AudioStream] | None = next(self._packets, None)

    def advance(self, until_s: float) -> None:
        """Muxes what sounds up to a time in seconds on the container's clock."""
        while self._waiting is not None and _time_s(self._waiting) <= until_s:
            self._carriers[self._waiting.stream.index].carry(self._waiting)
            self._waiting = next(self._packets, None)

    def finish(self) -> None:
        """Muxes the rest and flushes the encoders."""
        self.advance(float("inf"))
        for carrier in self._carriers.values():
            carrier.finish()

    def close(self) -> None:
        self._opened.__exit__(None, None, None)

    def _carrier(self, stream: AudioStream) -> _Copier | _Transcoder:
        codec = stream.codec_context.codec.canonical_name
        if _holds(self._output, codec):
            return _Copier(stream, self._output)
        self.notes.append(f"sound {codec} became aac, which the container can hold")
        return _Transcoder(stream, self._output)

    def _demux(self) -> Iterator[Packet[AudioStream]]:
        if not self._carriers:
            return
        try:
            for packet in self._input.demux(
                [stream for stream in self._input.streams.audio if stream.index in self._carriers]
            ):
                if packet.size and packet.dts is not None:
                    yield packet  # type: ignore[misc]  # a list of audio streams gives audio packets
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self.notes.append(f"sound ends early ({error.strerror})")


class _Copier:
    def __init__(self, stream: AudioStream, output: av.container.OutputContainer) -> None:
        self._output = output
        self._target = output.add_stream_from_template(stream)
        self._target.metadata.update(stream.metadata)

    def carry(self, packet: Packet[AudioStream]) -> None:
        packet.stream = self._target
        self._output.mux(packet)

    def finish(self) -> None:
        pass


class _Transcoder:
    def __init__(self, stream: AudioStream, output: av.container.OutputContainer) -> None:
        self._output = output
        # Matroska names no layout, only a number of channels, and the encoder wants a name
        layout = LAYOUTS.get(stream.channels, "stereo")
        self._target = output.add_stream("aac", rate=stream.sample_rate, layout=layout)
        self._target.metadata.update(stream.metadata)
        self._resampler = AudioResampler("fltp", layout, stream.sample_rate)

    def carry(self, packet: Packet[AudioStream]) -> None:
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # one broken packet of sound is a click, not a failed video
            return
        for frame in frames:
            for part in self._resampler.resample(frame):
                self._output.mux(self._target.encode(part))

    def finish(self) -> None:
        for part in self._resampler.resample(None):
            self._output.mux(self._target.encode(part))
        self._output.mux(self._target.encode(None))


def _holds(output: av.container.OutputContainer, codec: str) -> bool:
    name = output.format.name
    if name == "mp4":
        return codec in MP4_SOUND
    if name == "mov":
        return codec in MP4_SOUND - {"opus", "flac"} or codec.startswith("pcm_")
    return codec in output.supported_codecs


def _time_s(packet: Packet[AudioStream]) -> float:
    return float(packet.dts * packet.time_base)  # type: ignore[operator]  # `_demux` lets none without dts through
