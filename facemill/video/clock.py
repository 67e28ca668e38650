"""One clock for all streams of a file: where it begins, and where it was set anew in the middle.

A broadcast's clock begins anywhere, and where recordings were joined (a `.ts` behind another, a camera that wrote on)
it falls back or leaps for picture and sound together. Whoever took such stamps one by one would tear the two apart, so
the file is read once beforehand, without decoding, and each stream learns what is to be added from which packet on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.container
import av.error
from av.packet import Packet
from av.stream import Stream

from facemill.video.info import demux, open_input, video_stream

LEAP_S = Fraction(10)  # a clock that leaps ahead by more was set anew, in containers whose clock may do that
SAME_EVENT_S = Fraction(1)  # picture and sound see one event within so much
TS_DISCONT = 0x200  # AVFMT_TS_DISCONT: a container whose clock may leap
RUNS_OVER = ("mpegts", "mpeg")  # containers whose clock has 33 bits: 26 and a half hours
TIMED = ("video", "audio", "subtitle")


@dataclass(frozen=True)
class Clock:
    """What is to be added to the stamps of a file so that they run on from 0, in seconds.

    Attributes:
        origin_s: where the container's clock begins. One that begins below 0 is that of a broadcast, whose clock has
            run over meanwhile; of other files 0, for there sound may lead in before the picture.
        starts_s: where each stream begins after that, by its index.
        breaks: stream → (number of its packet, seconds that are added from this packet on), in order.
        strays: stream → numbers of packets whose stamps belong to no clock.
    """

    origin_s: Fraction = Fraction(0)
    starts_s: dict[int, Fraction] = field(default_factory=dict)
    breaks: dict[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)
    strays: dict[int, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, also: Callable[[Packet[Any] | None], None] | None = None) -> Clock:
        """Reads the whole file, but for one whose index has every stamp (MP4).

        Args:
            also: is shown every packet of picture, sound and subtitles that is read, and None at a broken place.

        Raises:
            InputError: as `open_input`; NOT_A_VIDEO.
        """
        with open_input(path) as container:
            video = video_stream(container)
            starts = {
                stream.index: stream.start_time * Fraction(stream.time_base)
                for stream in container.streams
                if stream.start_time is not None
                and stream.time_base
                and (stream.index == video.index or stream.type == "audio")
            }
            watch = _Watch(may_leap=bool(container.format.flags & TS_DISCONT))
            if "mp4" not in container.format.name:
                watch.read(container, also)
            # FFmpeg may take the first time of sound that begins hours later for the start of all streams
            starts = {index: min(start, watch.first_s(index, start)) for index, start in starts.items()}
            origin = min(starts.values(), default=Fraction(0))
            if container.format.name not in RUNS_OVER:
                origin = max(Fraction(0), origin)
            return cls(origin, {index: start - origin for index, start in starts.items()}, *watch.result())

    @property
    def times_set_anew(self) -> int:
        """How often the clock fell back or leapt."""
        return max((len(breaks) for breaks in self.breaks.values()), default=0)


class StreamClock:
    """Sets the stamps of one stream's packets, as they come, to those of the file's one clock."""

    def __init__(self, clock: Clock, stream: Stream) -> None:
        self._time_base = Fraction(stream.time_base or 1)
        self._breaks = list(clock.breaks.get(stream.index, ()))
        self._strays = clock.strays.get(stream.index, frozenset())
        self._origin_s = clock.origin_s
        self._shift = -round(clock.origin_s / self._time_base)
        self._number = 0

    def time_s(self, packet: Packet[Any]) -> float:
        """When a packet whose stamps are set is decoded, or shown where that is all it says."""
        at = packet.dts if packet.dts is not None else packet.pts
        return float("-inf") if at is None else at * self._time_base.numerator / self._time_base.denominator

    def set(self, packet: Packet[Any]) -> None:
        """Changes `pts` and `dts` of the stream's next packet; those of a stray become None."""
        while self._breaks and self._number >= self._breaks[0][0]:
            self._shift = round((self._breaks.pop(0)[1] - self._origin_s) / self._time_base)
        stray = self._number in self._strays
        self._number += 1
        if stray:
            packet.pts = packet.dts = None
        elif self._shift:
            packet.pts = None if packet.pts is None else packet.pts + self._shift
            packet.dts = None if packet.dts is None else packet.dts + self._shift


@dataclass
class _Seen:
    """What the packets of one stream have told so far; times in its ticks."""

    time_base: Fraction
    steady: bool  # picture or sound; subtitles come when somebody speaks
    number: int = 0
    first: int | None = None
    last: int | None = None
    expected: int = 0  # of the next packet
    suspect: tuple[int, int, dict[int, int]] | None = (
        None  # number, time and everybody's numbers at a packet that is off
    )
    strays: list[int] = field(default_factory=list)


@dataclass
class _Event:
    """A clock set anew: who saw it at which of its packets, and what must be added for no stream to overlap."""

    numbers: dict[int, int]
    seen_by: set[int]
    add_s: Fraction


class _Watch:
    def __init__(self, *, may_leap: bool) -> None:
        self._may_leap = may_leap
        self._streams: dict[int, _Seen] = {}
        self._events: list[_Event] = []

    def read(
        self, container: av.container.InputContainer, also: Callable[[Packet[Any] | None], None] | None = None
    ) -> None:
        errors = 0
        packets = demux(container)
        while errors <= 64:
            try:
                for packet in packets:
                    if packet.size and packet.stream.type in TIMED and packet.time_base:
                        self._see(packet)
                        if also is not None:
                            also(packet)
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError:  # whoever decodes counts them
                errors += 1
                if also is not None:
                    also(None)
                packets = demux(container)

    def first_s(self, index: int, otherwise: Fraction) -> Fraction:
        """When the first packet of a stream is shown, in seconds; `otherwise` where none was seen."""
        seen = self._streams.get(index)
        return otherwise if seen is None or seen.first is None else seen.first * seen.time_base

    def result(self) -> tuple[dict[int, tuple[tuple[int, Fraction], ...]], dict[int, frozenset[int]]]:
        for index, seen in self._streams.items():
            if seen.suspect is not None:
                self._set_anew(index, seen)
        breaks: dict[int, list[tuple[int, Fraction]]] = {index: [] for index in self._streams}
        for event in self._events:
            unmoved = [index for index in self._streams if self._went_on(index, event)]
            if unmoved and event.add_s < 0:  # the picture or the sound was away for a while, the clock was not
                continue
            for index, found in breaks.items():
                if index not in unmoved:
                    added = found[-1][1] if found else Fraction(0)
                    found.append((event.numbers.get(index, 0), added + event.add_s))
        strays = {index: frozenset(seen.strays) for index, seen in self._streams.items() if seen.strays}
        return {index: tuple(found) for index, found in breaks.items() if found}, strays

    def _went_on(self, index: int, event: _Event) -> bool:
        """Whether a stream of picture or sound has packets on both sides and saw nothing."""
        seen, before = self._streams[index], event.numbers.get(index, 0)
        return seen.steady and index not in event.seen_by and 0 < before < seen.number

    def _see(self, packet: Packet[Any]) -> None:
        index = packet.stream.index
        seen = self._streams.get(index)
        if seen is None:
            seen = self._streams[index] = _Seen(Fraction(packet.time_base), packet.stream.type != "subtitle")
        if seen.first is None:
            seen.first = packet.pts
        # Matroska stores times of display only: those of decoding are missing until FFmpeg has worked them out
        time = packet.dts
        if time is None:
            seen.number += 1
            return
        duration = int(packet.duration or 0)
        if seen.suspect is not None:
            number, _, _ = seen.suspect
            if time >= seen.expected and not self._off(seen, time):  # the clock goes on: that one packet was wrong
                seen.strays.append(number)
                seen.suspect = None
            else:
                self._set_anew(index, seen)
        if self._off(seen, time):
            numbers = {other: one.number for other, one in self._streams.items()}
            seen.suspect = (seen.number, time, numbers)
        else:
            self._go_on(seen, time, duration)
        seen.number += 1

    def _off(self, seen: _Seen, time: int) -> bool:
        if seen.last is None or not seen.steady:
            return False
        ahead = (time - seen.expected) * seen.time_base
        return time < seen.last or (self._may_leap and ahead > LEAP_S)

    @staticmethod
    def _go_on(seen: _Seen, time: int, duration: int) -> None:
        step = duration or (time - seen.last if seen.last is not None else 0)
        seen.last, seen.expected = time, time + max(0, step)

    def _set_anew(self, index: int, seen: _Seen) -> None:
        assert seen.suspect is not None
        number, time, numbers = seen.suspect
        add_s = (seen.expected - time) * seen.time_base
        event = self._events[-1] if self._events else None
        if event is not None and index not in event.seen_by and abs(event.add_s - add_s) < SAME_EVENT_S:
            event.numbers[index] = number
            event.seen_by.add(index)
            event.add_s = max(event.add_s, add_s)
        else:
            self._events.append(_Event({**numbers, index: number}, {index}, add_s))
        seen.suspect = None
        seen.last, seen.expected = time, time + (seen.expected - seen.last if seen.last is not None else 0)
