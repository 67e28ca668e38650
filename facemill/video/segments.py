"""Where a film may be cut so that its pieces can be read one by one, each frame once and at its own time.

    plan = plan_segments(path)                      # depends on the file's bytes alone
    for segment in plan.segments:                   # in any order, in any process
        with VideoReader(path, segment=segment) as reader: ...

A plan costs one pass over the file's packets, without decoding. It cuts at key frames, from which a decoder can begin;
what lies before is otherwise decoded again and thrown away. A file whose times `VideoReader` has to repair depends, at
every frame, on all frames before: it stays whole, and the plan says why. So does every container in which a seek has
not been shown to be exact (tests/facemill/test_segments.py).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av.container
import av.error
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.stream import VideoStream

from facemill.video.clock import Clock
from facemill.video.info import Reach, demux, open_input, video_stream

LEAST_S, MOST_S = 10.0, 30.0
LAST_S = 5.0  # of the last segment, at least
PRE_ROLL = 2  # times the longest segment: how much is decoded for nothing where a cut lies on no key frame
SEEK_POINTS = 3  # key frames that a reader tries before it begins with the file
# Parts of the names of containers in which a seek is exact. It is not in AVI, MPEG-PS and streams without a container;
# a damaged FLV is read otherwise from its middle than from its beginning.
CUTTABLE = ("mp4", "matroska", "mpegts", "asf", "mxf", "nut")
BY_BYTES = ("mpegts",)  # those that find a key frame by its place in the file alone
ORDER_FRAMES = 64  # decoded to see that a file's times are those of display
MAX_ERRORS = 64


@dataclass(frozen=True)
class SeekPoint:
    """A key frame from which a decoder can begin: its pts on the file's own clock, and its byte in the file."""

    pts: int
    pos: int | None


@dataclass(frozen=True)
class Segment:
    """The frames of a video with `start <= pts < end`, on the clock of `VideoReader`, in ticks of its time base.

    Attributes:
        index: its place in the plan, from 0.
        start: pts of its first frame; None: from the very beginning.
        end: pts of the first frame of the next one; None: to the end.
        frames: how many the file has; None where nobody has counted, since the file is not cut.
        origin_s: where the file's own clock begins, in seconds.
        seek: where a reader may begin, the nearest first.
    """

    index: int = 0
    start: int | None = None
    end: int | None = None
    frames: int | None = None
    origin_s: Fraction = Fraction(0)
    seek: tuple[SeekPoint, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is the whole video."""
        return self.start is None and self.end is None

    def as_dict(self) -> dict[str, Any]:
        """The segment as plain values for JSON."""
        return asdict(self) | {"origin_s": str(self.origin_s), "seek": [[point.pts, point.pos] for point in self.seek]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Segment:
        """What `as_dict` gave."""
        seek = tuple(SeekPoint(pts, pos) for pts, pos in values["seek"])
        return cls(**{**values, "origin_s": Fraction(values["origin_s"]), "seek": seek})


@dataclass(frozen=True)
class SegmentPlan:
    """How one video is cut.

    Attributes:
        time_base: seconds per tick of all pts.
        segments: one or more, in order; together they have every frame once.
        whole: why the video is one segment although it is long enough for more; None where it is cut or short.
        clock: of the file, as `VideoReader` finds it: whoever carries sound over need not read the file for it again.
    """

    time_base: Fraction
    segments: tuple[Segment, ...]
    whole: str | None
    clock: Clock = field(repr=False)

    def uncut(self, reason: str) -> SegmentPlan:
        """The same video as one segment, because of something that only decoding has shown."""
        return SegmentPlan(self.time_base, (Segment(),), reason, self.clock)


def plan_segments(path: Path | str, *, least_s: float = LEAST_S, most_s: float = MOST_S) -> SegmentPlan:
    """Cuts a video at key frames, preferably at those that an encoder has set at changes of scene.

    Args:
        least_s: a segment is at least so long; the last one at least `LAST_S`, or half of this if that is shorter.
        most_s: after so many seconds a cut may lie on any frame, as long as the last key frame is near enough.

    Raises:
        InputError: as `probe`.
    """
    path = Path(path)
    with open_input(path) as container:
        stream = video_stream(container)
        packets = _Packets(stream)
        indexed = "mp4" in container.format.name
        if indexed:  # its clock is in the header, so that the packets of the picture suffice
            packets.cut = _reaches_too_far(container, path.stat().st_size)
            packets.read(container, stream)
        time_base = Fraction(stream.time_base or Fraction(1, 1000))
        clock = Clock.of(path, also=None if indexed else packets.see)
        reason = packets.oddity(clock, container)
    pts = np.sort(np.frombuffer(packets.pts, np.int64))
    ticks = [math.ceil(Fraction(seconds) / time_base) for seconds in (least_s, most_s, min(LAST_S, least_s / 2))]
    cuts = choose_cuts(pts, sorted(packets.keys), ticks[0], ticks[1], ticks[2])
    if cuts:
        reason = reason or _order_oddity(path)
    elif len(pts):
        reason = None
    if reason is not None:
        return SegmentPlan(time_base, (Segment(),), reason, clock)
    return SegmentPlan(time_base, _segments(pts, packets.keys, cuts, clock.origin_s, time_base), None, clock)


def choose_cuts(pts: npt.NDArray[np.int64], keys: Sequence[int], least: int, most: int, last: int) -> list[int]:
    """Where segments begin, but for the first.

    Args:
        pts: of all frames, rising.
        keys: of the key frames, rising.
        least, most, last: the length of a segment, and of the last one at least; all in ticks.

    Returns:
        The pts of frames. A cut lies on a key frame if there is one between `least` and `most` after the cut before,
        else on the next frame, unless its last key frame is more than `PRE_ROLL` times `most` away, else on the next
        key frame.
    """
    if not len(pts) or not keys:
        return []
    key_pts = np.asarray(keys, np.int64)
    striking = np.asarray(_striking(pts, key_pts), bool)
    end = int(pts[-1]) - last  # a later cut would leave too little
    cuts: list[int] = []
    before = int(pts[0])
    while True:
        low, high = np.searchsorted(key_pts, (before + least, min(before + most, end) + 1))
        if low < high:
            chosen = low + int(np.argmax(striking[low:high]))  # the first of them where none is striking
            cut = int(key_pts[chosen])
        else:
            after = int(np.searchsorted(pts, before + most))
            cut = int(pts[after]) if after < len(pts) else end + 1
            known = int(np.searchsorted(key_pts, cut, side="right"))
            if known == 0 or cut - int(key_pts[known - 1]) > PRE_ROLL * most:
                cut = int(key_pts[known]) if known < len(key_pts) else end + 1
        if cut > end:
            return cuts
        cuts.append(cut)
        before = cut


def _striking(pts: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> list[bool]:
    """Which key frames stand out of a regular rhythm: encoders set those where the scene changes."""
    gaps = np.diff(np.searchsorted(pts, keys)).tolist()
    usual, count = Counter(gaps).most_common(1)[0] if gaps else (0, 0)
    regular = 2 * count >= len(gaps)
    return [True, *(not regular or gap != usual for gap in gaps)]


def _segments(
    pts: npt.NDArray[np.int64], keys: dict[int, int | None], cuts: list[int], origin_s: Fraction, time_base: Fraction
) -> tuple[Segment, ...]:
    """Segments on the reader's clock, which begins with the file."""
    if not cuts:
        return (Segment(),)
    shift = -round(origin_s / time_base)  # as `StreamClock` has it
    key_pts = sorted(keys)
    places = [0, *(int(place) for place in np.searchsorted(pts, cuts)), len(pts)]
    segments = []
    for index, (start, end) in enumerate(pairwise([None, *cuts, None])):
        near = [] if start is None else [key for key in key_pts if key <= start][: -SEEK_POINTS - 1 : -1]
        segments.append(
            Segment(
                index=index,
                start=None if start is None else start + shift,
                end=None if end is None else end + shift,
                frames=places[index + 1] - places[index],
                origin_s=origin_s,
                seek=tuple(SeekPoint(key, keys[key]) for key in near),
            )
        )
    return tuple(segments)


class _Packets:
    """What the packets of a video's picture tell without being decoded."""

    def __init__(self, stream: VideoStream) -> None:
        self.pts = array("q")
        self.keys: dict[int, int | None] = {}  # pts → byte in the file
        self.cut = False
        self._index = stream.index
        self._missing = self._errors = self._placeless = 0
        self._last_key: int | None = None
        self._keys_fall = False
        self._reach = Reach(stream.index)

    def read(self, container: av.container.InputContainer, stream: VideoStream) -> None:
        """Sees all packets of one stream."""
        while self._errors <= MAX_ERRORS:
            try:
                for packet in demux(container, stream):
                    if packet.size:
                        self.see(packet)
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.see(None)

    def see(self, packet: Packet[Any] | None) -> None:
        """Takes a packet of any stream, in the order of the file, or a broken place."""
        if packet is None:
            self._errors += 1
            return
        self._reach.see(packet)
        if packet.stream.index != self._index:
            return
        if packet.pts is None:
            self._missing += 1
            return
        if packet.is_discard:  # an edit list does not show it
            if packet.is_keyframe and not self.pts:
                self.keys[packet.pts] = packet.pos  # but the first frames need it
            return
        self.pts.append(packet.pts)
        if packet.is_keyframe:
            self._keys_fall |= self._last_key is not None and packet.pts <= self._last_key
            self._last_key = packet.pts
            self.keys[packet.pts] = packet.pos
            self._placeless += packet.pos is None

    def oddity(self, clock: Clock, container: av.container.InputContainer) -> str | None:
        """Why the file cannot be read in segments, as far as its packets tell."""
        kind = container.format.name
        if not any(name in kind for name in CUTTABLE):
            return f"files of the kind {kind.split(',')[0]} are read from their beginning only"
        if not self.pts:
            return "it has no frames"
        if clock.breaks.get(self._index) or clock.strays.get(self._index):
            return "its clock is set anew, or has stamps that belong to none"
        if self._missing:
            return f"{self._missing} of its frames have no time"
        repeated = len(self.pts) - len(set(self.pts))
        if repeated:
            return f"{repeated} of its times are there twice"
        if self._keys_fall:
            return "the times of its key frames do not rise"
        if not self.keys or (self._placeless and any(name in kind for name in BY_BYTES)):
            return "its key frames cannot be found"
        if self._errors:
            return "its container is broken in places"
        if self.cut or ("mp4" not in kind and self._reach.ends_early(container)):
            return "it is cut short"
        return None


def _reaches_too_far(container: av.container.InputContainer, size_bytes: int) -> bool:
    """Whether an index names bytes that the file does not have: it was cut short."""
    entries = (entry for stream in container.streams for entry in stream.index_entries)
    return any(entry.pos + entry.size > size_bytes for entry in entries)


def _order_oddity(path: Path) -> str | None:
    """Whether the first pictures come out of the decoder at times that rise. Those of a file that was made of one
    without times of display (AVI) may not, though nothing is odd about its packets."""
    with open_input(path) as container:
        stream = video_stream(container)
        stream.codec_context.thread_type = "AUTO"
        last: int | None = None
        try:
            for picture in islice(container.decode(stream), ORDER_FRAMES):
                if picture.pts is None or (last is not None and picture.pts <= last):
                    return "its times are not those of display"
                last = picture.pts
        except av.error.FFmpegError:  # whoever decodes counts them
            return None
    return None
