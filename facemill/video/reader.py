"""Frames of a video one after another, and an honest account of what could not be read.

Broken packets are skipped, counted and bounded. A stream that ends before the container's own word is reported as cut:
FFmpeg itself only logs that. All times are on one clock that begins with the file (`clock.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video.changes import Changes
from facemill.video.clock import Clock, StreamClock
from facemill.video.fields import Weaver
from facemill.video.frame import (
    EIGHT_BITS,
    Frame,
    colour_matrix,
    fitted,
    to_format,
    upright,
    working_colour,
    working_format,
)
from facemill.video.hdr import Hdr, ToneMapper, check_hdr, told, written_info
from facemill.video.info import Orientation, Reach, VideoInfo, demux, open_input, orientation, probe, video_stream
from facemill.video.segments import BY_BYTES, SeekPoint, Segment

MAX_CORRUPT_PACKETS = 64
RESIZES_NAMED = 5


def read_frames(path: Path | str, *, threads: int = 0) -> Iterator[Frame]:
    """All frames of a video, upright, in order of display: `frame.rgb`, `frame.pts`, `frame.time_base`.

    Raises:
        InputError: as `probe`; HDR_VIDEO; VIDEO_TRUNCATED when there are too many broken packets. A stream that is
            merely cut short ends early without an error: `VideoReader` says so in `cut`.
    """
    with VideoReader(path, threads=threads) as reader:
        yield from reader


class VideoReader:
    """Decodes one video stream, or one segment of it; iterate once.

    The frames of all segments of a plan are those of the whole: as many, at the same times, with the same pixels. Where
    that does not come true, an error says so instead of losing frames.

    Attributes:
        info: what `probe` found.
        frames_read: frames handed out so far.
        corrupt_packets: packets that could not be demuxed or decoded so far.
        repaired_pts: frames whose timestamp was missing or did not rise, and was set to one that does.
        clock: what was added to the file's own times; for a segment, no more than where they begin.
        cut: after the last frame, whether the stream ended before the container said it would.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        threads: int = 0,
        pix_fmt: str | None = None,
        max_corrupt_packets: int = MAX_CORRUPT_PACKETS,
        segment: Segment | None = None,
        hdr: Hdr = "refuse",
    ) -> None:
        """
        Args:
            threads: for the decoder, 0 for one per core.
            pix_fmt: one of `SUBSAMPLING`, by default the nearest with 8 bits.
            segment: of `plan_segments` for the same file, by default all of it.
            hdr: what becomes of high dynamic range: refused, kept, or tone mapped to BT.709 in 8 bits.
        """
        self.path = Path(path)
        self._probed = probe(self.path)
        check_hdr(self._probed, hdr)
        self._hdr = hdr
        self.info: VideoInfo = written_info(self._probed, hdr)
        self._mapper = ToneMapper(self._probed) if self.info is not self._probed else None
        self._segment = None if segment is None or segment.whole else segment
        self.clock = Clock.of(self.path) if self._segment is None else Clock(self._segment.origin_s)
        self.pix_fmt = pix_fmt or working_format(self.info, EIGHT_BITS, odd_420=True)
        self.deinterlace = False
        self.frames_read = 0
        self.corrupt_packets = 0
        self.repaired_pts = 0
        self.cut = False
        self._threads = threads
        self._max_corrupt = max_corrupt_packets
        self._packets = 0
        self._reach = Reach(self.info.index)
        self._last_pts: int | None = None
        self._resized: list[str] = []
        self._changes = Changes(self._probed, refuse_hdr=hdr == "refuse")
        self._oriented: tuple[int, Orientation] | None = None
        self._opened = open_input(self.path)
        self._container = self._opened.__enter__()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.__exit__(None, None, None)

    def __iter__(self) -> Iterator[Frame]:
        time_base = self.info.time_base
        colour = working_colour(self.info)
        matrix = colour_matrix(colour.space, self.info.width, self.info.height)
        pixel_ratio = self.info.sample_aspect_ratio
        for picture in self._pictures() if self._segment is None else self._pictures_of(self._segment):
            duration = int(picture.duration or 0)
            pts = self._rising(picture.pts, duration, time_base)
            shown = picture if self._mapper is None else self._mapper.map(picture)
            working = self._shown(to_format(shown, self.pix_fmt, colour), picture, pts * time_base)
            self._changes.shown(picture, working)
            self.frames_read += 1
            yield Frame(working, pts, time_base, duration, matrix, pixel_ratio)
        if self._segment is None:
            self.cut = self._ended_early()
        else:
            self._check_number(self._segment)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Decoded pictures in order of display, with their times, from where the container stands."""
        stream = video_stream(self._container)
        stream.codec_context.thread_type = "AUTO"  # frames and slices: half as fast again as slices alone
        stream.codec_context.thread_count = self._threads
        clock, weaver = StreamClock(self.clock, stream), Weaver() if self.deinterlace else None
        # AVI has no times of display, only the order of its packets
        decode_order = _DecodeOrder(stream, self._step(self.info.time_base)) if self.info.container == "avi" else None
        for packet in self._demux():
            if packet.size:
                clock.set(packet)
                if decode_order is not None:
                    decode_order.packet(packet)
            for picture in self._decode(packet):
                self._changes.see(picture, stream.codec_context)
                if decode_order is not None:
                    decode_order.picture(picture)
                if weaver is None:
                    yield picture
                else:
                    yield from weaver.progressive(picture)
        if weaver is not None:
            yield from weaver.rest()

    def _pictures_of(self, segment: Segment) -> Iterator[av.VideoFrame]:
        """The decoded pictures of a segment. A decoder begins at a key frame at or before the first of them; whether it
        really did is seen by what comes out, for a seek may land behind its aim and a key frame may be none."""
        last: int | None = None
        for picture in self._pictures_before(segment):
            if picture.pts is None or (last is not None and picture.pts <= last):
                raise _not_as_planned(segment, "a frame has no time, or an earlier one than the frame before")
            last = picture.pts
            # leading pictures of the next key frame come after it in the file: only a later one shown ends the segment
            if segment.end is not None and last >= segment.end:
                return
            if segment.start is None or last >= segment.start:
                yield picture

    def _pictures_before(self, segment: Segment, skip: int = 0) -> Iterator[av.VideoFrame]:
        """Decoded pictures from before a segment begins, or from its beginning on; `skip`: of its points of seek."""
        self._seeks = skip
        for point in segment.seek[skip:]:
            self._seeks += 1
            self.corrupt_packets = 0
            self._seek(point)
            pictures = self._pictures()
            first = next(pictures, None)
            # where frames are made of fields, those before and after have a part in each
            late = (segment.start or 0) + (not self.deinterlace)
            if first is not None and first.pts is not None and first.key_frame and first.pts < late:
                yield first
                yield from pictures
                return
        self._seeks += 1
        self.corrupt_packets = 0
        self._seek(None)
        yield from self._pictures()

    def _seek(self, point: SeekPoint | None) -> None:
        """Opens the file again, at a key frame or at its beginning."""
        self._opened.__exit__(None, None, None)
        self._opened = open_input(self.path)
        self._container = self._opened.__enter__()
        if point is None:
            return
        try:
            if any(name in self.info.container for name in BY_BYTES) and point.pos is not None:
                self._container.seek(point.pos, unsupported_byte_offset=True)
            else:
                self._container.seek(point.pts, stream=video_stream(self._container))
        except av.error.FFmpegError:  # decoded from the beginning, then
            self._seek(None)

    def _check_number(self, segment: Segment) -> None:
        """Whether all frames of a segment came, but for those that broken packets cost.

        A packet may hold no frame of its own; then as many are missing where the decoder began earlier.

        Raises:
            InputError: CONVERSION_FAILED.
        """
        read = self.frames_read
        if read == segment.frames or (read < (segment.frames or read) and self.corrupt_packets):
            return
        if 0 < read < (segment.frames or read):
            if self._seeks > len(segment.seek):
                return  # it began with the file, as whoever reads all of it does
            again = 0
            for picture in self._pictures_before(segment, skip=self._seeks):
                if picture.pts is not None and segment.end is not None and picture.pts >= segment.end:
                    break
                again += picture.pts is not None and (segment.start is None or picture.pts >= segment.start)
            if again == read:
                self.corrupt_packets = 0  # of what was decoded for this alone
                return
        raise _not_as_planned(segment, f"{self.frames_read} frames were read, the file has {segment.frames}")

    def _shown(self, working: av.VideoFrame, picture: av.VideoFrame, time_s: Fraction) -> av.VideoFrame:
        """The picture turned as it says itself, in the size of the video."""
        if self._oriented is None or self._oriented[0] != picture.rotation:
            self._oriented = (picture.rotation, orientation(picture) or Orientation())
        working = upright(working, self._oriented[1])
        size = (working.width, working.height)
        if size == (self.info.width, self.info.height):
            return working
        note = f"the picture size changes to {size[0]}×{size[1]} at {float(time_s):.0f} s: scaled"
        if not self._resized or self._resized[-1].split(" at ")[0] != note.split(" at ")[0]:
            self._resized.append(note)
        return fitted(working, self.info.width, self.info.height)

    def warnings(self) -> list[str]:
        """What a person should know about the input, after the last frame."""
        notes = []
        if self.cut:
            stated = f" of {self.info.frames}" if self.info.frames else ""
            notes.append(f"input is cut short: {self.frames_read}{stated} frames could be read")
        frames = self._packets if self._segment is None else self._segment.frames or self.frames_read
        missing = frames - self.frames_read
        if self._segment is not None and (missing or self.corrupt_packets):
            start_s = float((self._segment.start or 0) * self.info.time_base)
            notes.append(
                f"from {start_s:.0f} s on: {self.corrupt_packets} broken packets were skipped, {missing} of {frames} "
                "frames are lost"
            )
        elif self.corrupt_packets:
            notes.append(f"{self.corrupt_packets} broken packets were skipped, {missing} of {frames} frames are lost")
        if self.repaired_pts:
            notes.append(f"{self.repaired_pts} missing or falling timestamps were repaired")
        if self.clock.times_set_anew:
            notes.append(f"the clock was set anew {self.clock.times_set_anew} times: picture and sound run on")
        notes += self._resized[:RESIZES_NAMED] + self._changes.notes
        bits = 10 if self.pix_fmt.endswith("10le") else 8
        if self.info.bit_depth > bits:
            notes.append(f"{self.info.bit_depth} bits a channel became {bits}")
        notes += told(self._probed, self._hdr, bits)
        if self.info.skew:
            notes.append("the picture is to be turned by less than a quarter, which was ignored")
        if self.info.alpha:
            notes.append("alpha dropped: no pixel is transparent any more")
        notes += [f"dropped the {name} of the picture" for name in self.info.immersive]
        if self.info.interlaced:
            notes.append(
                "fields were made into whole frames (bwdif)" if self.deinterlace else "interlaced, and kept so"
            )
        return notes

    def _demux(self) -> Iterator[Packet[Any]]:
        """Packets of the video stream, the last one empty; other streams only tell how far the file reaches."""
        while True:
            try:
                # of a segment nobody asks how far the file reaches
                wanted = () if self._segment is None else (video_stream(self._container),)
                for packet in demux(self._container, *wanted):
                    # A flush packet is empty; a missing dts alone is no sign of one.
                    if packet.size == 0:
                        if packet.stream.index == self.info.index:
                            yield packet
                        continue
                    self._reach.see(packet)
                    if packet.stream.index == self.info.index:
                        self._packets += 1
                        yield packet
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self._count_corrupt(error)

    def _decode(self, packet: Packet[Any]) -> list[av.VideoFrame]:
        try:
            return list(packet.decode())
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            if self._segment is None or self._within(self._segment, packet):
                self._count_corrupt(error)
            return []

    def _within(self, segment: Segment, packet: Packet[Any]) -> bool:
        """Whether a packet belongs to a segment, not to what is decoded before and after it."""
        at = packet.pts
        if at is None:
            return True
        return (segment.start is None or at >= segment.start) and (segment.end is None or at < segment.end)

    def _count_corrupt(self, error: av.error.FFmpegError) -> None:
        self.corrupt_packets += 1
        if self.corrupt_packets > self._max_corrupt:
            raise InputError(
                Reason.VIDEO_TRUNCATED, f"more than {self._max_corrupt} broken packets ({error.strerror})"
            ) from error

    def _rising(self, pts: int | None, duration: int, time_base: Fraction) -> int:
        """The frame's pts if it is there and rises, else one step after the last."""
        last = self._last_pts
        if pts is None or (last is not None and pts <= last):
            self.repaired_pts += 1
            missing = pts is None
            step = duration or self._step(time_base)
            pts = 0 if last is None else last + (max(1, step) if missing else 1)
        self._last_pts = pts
        return pts

    def _step(self, time_base: Fraction) -> int:
        """Ticks from one frame to the next, by the average rate."""
        return max(1, round(1 / (self.info.fps * time_base))) if self.info.fps else 1

    def _ended_early(self) -> bool:
        # AVI counts ticks and Matroska nothing: only MP4's number of frames is one
        if self.info.frames and "mp4" in self.info.container and self._packets < self.info.frames:
            return True
        return self._reach.ends_early(self._container)


def _not_as_planned(segment: Segment, detail: str) -> InputError:
    return InputError(
        Reason.CONVERSION_FAILED,
        f"segment {segment.index} is not as it was planned: {detail}. If the file has not changed since, its container "
        "is broken: copy its streams into another one (ffmpeg -i IN -c copy OUT.mkv)",
    )


class _DecodeOrder:
    """Times of display for a container that knows only when packets are decoded: those times in order, later by as many
    frames as the decoder holds back to sort them."""

    def __init__(self, stream: VideoStream, step: int) -> None:
        self._context = stream.codec_context
        self._step = step
        self._times: deque[int] = deque()
        self._delay: int | None = None

    def packet(self, packet: Packet[Any]) -> None:
        """Takes a packet's time and leaves it there, to be found in its picture."""
        if packet.dts is not None:
            self._times.append(packet.dts)
            packet.pts = packet.dts

    def picture(self, picture: av.VideoFrame) -> None:
        """Sets `pts` of the next picture in order of display."""
        if self._delay is None:
            self._delay = self._context.reorder_depth * self._step
        decoded = picture.pts
        while self._times:
            shown = self._times.popleft() + self._delay
            if decoded is None or shown >= decoded:  # else its packet was lost: nothing is shown before it is decoded
                picture.pts = shown
                return
